"""An OpenID Connect provider on loopback, small but real: every flow that openEO clients use, with PKCE."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, redirect, request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, RSAKey
from joserfc.util import urlsafe_b64encode

from tests.support.http_service import serve_application

AUDIENCE = "https://openeo.example.org"
PUBLIC, OPAQUE, MACHINE, SECRET = "openeo-public", "openeo-opaque", "robot", "machine secret"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_CLIENT = {
    "id": PUBLIC,
    "grant_types": [f"{DEVICE}+pkce", "authorization_code+pkce", "refresh_token"],
    "redirect_urls": ["http://localhost/callback"],
}
Claims = dict[str, Any]


@dataclass
class Grant:
    """What somebody has allowed a client: by a code, a refresh token, or an opaque access token."""

    client: str
    person: str | None
    challenge: str | None = None
    expires: float = field(default_factory=lambda: time.time() + 3600)


@dataclass
class IdentityProvider:
    """The state of a provider that counts requests by path; ``broken`` makes all of them fail."""

    issuer: str = ""
    lifetime: float = 3600
    broken: bool = False
    people: dict[str, Claims] = field(default_factory=lambda: {"anna": {"name": "Anna Example"}})
    keys: list[RSAKey] = field(default_factory=list)
    requests_by_path: Counter[str] = field(default_factory=Counter)
    grants: dict[str, Grant] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish only that."""
        self.keys = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})]

    def claims(self, **changes: Any) -> Claims:
        """The claims of a good access token of Anna's; None takes a claim away."""
        now = int(time.time())
        usual = {"iss": self.issuer, "sub": "anna", "aud": AUDIENCE, "client_id": PUBLIC, "iat": now}
        usual["jti"] = secrets.token_hex(8)
        claims = {**usual, "exp": now + int(self.lifetime), **self.people["anna"], **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, claims: Claims | None = None, *, key: Key | None = None, **header: Any) -> str:
        """A signed JWT with any claims and header."""
        head = {"alg": "RS256", "kid": self.keys[0].get("kid"), "typ": "at+jwt", **header}
        head = {name: value for name, value in head.items() if value is not None}
        chosen = self.keys[0] if key is None else key
        return jwt.encode(head, claims or self.claims(), chosen, algorithms=[head["alg"]])

    def opaque(self, person: str | None = "anna", client: str = PUBLIC) -> str:
        """An access token that is no JWT."""
        return self._keep(Grant(client, person), "at/")

    def approve(self, user_code: str, person: str = "anna") -> None:
        """Somebody enters the code of a device and agrees."""
        self.grants[f"user {user_code}"].person = person

    def _keep(self, grant: Grant, prefix: str = "") -> str:
        value = prefix + secrets.token_urlsafe(24)
        self.grants[value] = grant
        return value

    # --- What it answers --------------------------------------------------------------------------

    def app(self) -> Flask:
        """The application that answers for this provider."""
        app = Flask(__name__)
        views: dict[str, tuple[str, Callable[[], Any]]] = {
            "/.well-known/openid-configuration": ("GET", self._discovery),
            "/jwks": ("GET", lambda: {"keys": [key.as_dict(private=False) for key in self.keys]}),
            "/authorize": ("GET", self._authorize),
            "/device_authorization": ("POST", self._device),
            "/token": ("POST", self._token),
            "/userinfo": ("GET", self._userinfo),
            "/introspect": ("POST", self._introspect),
        }
        for path, (method, view) in views.items():
            app.add_url_rule(path, path, view, methods=[method])
        app.before_request(self._count)
        app.after_request(_for_web_pages)
        return app

    def _count(self) -> Response | None:
        self.requests_by_path[request.path] += 1
        return Response("out of order", status=500) if self.broken else None

    def _discovery(self) -> Claims:
        paths = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "device_authorization_endpoint": "device_authorization",
            "userinfo_endpoint": "userinfo",
            "introspection_endpoint": "introspect",
            "jwks_uri": "jwks",
        }
        urls = {name: f"{self.issuer}/{path}" for name, path in paths.items()}
        return {"issuer": self.issuer, **urls, **self.replaced}

    def _authorize(self) -> Any:
        grant = Grant(request.args["client_id"], "anna", request.args["code_challenge"])
        code = self._keep(grant)
        self.grants[f"nonce {code}"] = Grant(request.args["nonce"], None)
        return redirect(f"{request.args['redirect_uri']}?code={code}&state={request.args['state']}")

    def _device(self) -> Claims:
        grant = Grant(request.form["client_id"], None, request.form.get("code_challenge"))
        user_code = secrets.token_hex(3)
        self.grants[f"user {user_code}"] = grant
        page = f"{self.issuer}/device"
        return {
            "device_code": self._keep(grant),
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}",
            "expires_in": 60,
            "interval": 1,
        }

    def _token(self) -> Any:
        form = request.form
        if form["grant_type"] == "client_credentials":
            good = (form["client_id"], form["client_secret"]) == (MACHINE, SECRET)
            return self._issue(Grant(MACHINE, None)) if good else _refused("invalid_client")
        code = form.get("device_code") or form.get("code") or form.get("refresh_token") or ""
        grant = self.grants.get(code)
        if grant is None or grant.client != form["client_id"]:
            return _refused("invalid_grant")
        if grant.person is None:
            return _refused("authorization_pending")
        if grant.challenge not in (None, _challenge(form.get("code_verifier", ""))):
            return _refused("invalid_grant")
        del self.grants[code]
        return self._issue(grant, refresh=True, nonce=self.grants.get(f"nonce {code}"))

    def _issue(self, grant: Grant, refresh: bool = False, nonce: Grant | None = None) -> Claims:
        if grant.client == OPAQUE:
            access = self.opaque(grant.person, grant.client)
        elif grant.person is None:
            access = self.token(self.claims(sub=grant.client, client_id=grant.client, name=None))
        else:
            access = self.token(self.claims(sub=grant.person, **self.people[grant.person]))
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": self.lifetime}
        if refresh:
            answer["refresh_token"] = self._keep(Grant(grant.client, grant.person))
            answer["id_token"] = self.id_token(nonce.client if nonce else None)
        return answer

    def id_token(self, nonce: str | None = None) -> str:
        """An ID token of Anna's: signed by the same key, made for the client."""
        return self.token(self.claims(aud=PUBLIC, client_id=None, azp=PUBLIC, nonce=nonce or "n"), typ="JWT")

    def _userinfo(self) -> Any:
        grant = self.grants.get(request.headers["Authorization"].removeprefix("Bearer "))
        person = grant.person if grant is not None and grant.expires > time.time() else None
        if grant is None:
            person = self._person_of_jwt()
        return {"sub": person, **self.people[person]} if person else _refused("invalid_token", 401)

    def _person_of_jwt(self) -> str | None:
        try:
            token = request.headers["Authorization"].removeprefix("Bearer ")
            sub = jwt.decode(token, self.keys[0], algorithms=["RS256"]).claims["sub"]
        except (JoseError, KeyError):
            return None
        return sub if sub in self.people else None

    def _introspect(self) -> Any:
        given = request.authorization
        if given is None or (given.username, given.password) != (MACHINE, SECRET):
            return _refused("invalid_client", 401)
        grant = self.grants.get(request.form["token"])
        if grant is None:
            return {"active": False}
        if grant.expires < time.time():
            return {"active": False, "client_id": grant.client, "sub": grant.person}
        person = {"sub": grant.person, **self.people[grant.person]} if grant.person else {}
        return {"active": True, "client_id": grant.client, "exp": int(grant.expires), **person}


def _for_web_pages(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _refused(error: str, status: int = 400) -> tuple[Response, int]:
    return jsonify({"error": error}), status


def _challenge(verifier: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode()


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    """A provider that answers on loopback."""
    provider = IdentityProvider()
    with serve_application(provider.app()) as url:
        provider.issuer = url
        yield provider


def settings_of(provider: IdentityProvider, id_: str = "local", **changes: Any) -> dict[str, Any]:
    """An entry of the operator's file for a provider."""
    usual = {"title": "Local login", "audiences": [AUDIENCE], "default_clients": [DEFAULT_CLIENT]}
    fast = {"refresh_interval_s": 0.2, "scopes": ["openid", "email"]}
    return {"id": id_, "issuer": provider.issuer, **usual, **fast, **changes}
