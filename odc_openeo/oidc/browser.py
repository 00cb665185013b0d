"""Signing in to our own pages: the authorization code flow with PKCE, as a public client of a provider.

A provider takes part if one of its ``default_clients`` has that grant type and our address to come back to.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from odc_openeo.config import Config
from odc_openeo.errors import AuthenticationSchemeInvalid, InfrastructureBusy, SignInFailed
from odc_openeo.oidc.fetch import Unreachable, fetch_json
from odc_openeo.oidc.identify import providers
from odc_openeo.oidc.provider import Provider
from odc_openeo.oidc.settings import Client

log = logging.getLogger(__name__)

GRANT: Final = "authorization_code+pkce"
SECONDS: Final = 600


@dataclass(frozen=True)
class Departure:
    """Where to send the browser, and what it must keep until it comes back."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Arrival:
    """The access token that a browser has brought, of which provider, and the page that was wanted."""

    provider: str
    token: str = field(repr=False)
    to: str = ""


def for_browsers(config: Config, callback: str) -> list[dict[str, str]]:
    """Id and title of the providers that can sign in people who come back to ``callback``."""
    return [
        {"id": id_, "title": provider.settings.title}
        for id_, provider in providers(config).items()
        if _client(provider, callback) is not None
    ]


def depart(config: Config, id_: str, callback: str, to: str) -> Departure:
    """Begin to sign somebody in.

    Raises:
        AuthenticationSchemeInvalid: there is no such provider for browsers.
        InfrastructureBusy: it cannot be reached.
    """
    provider, client = _taking_part(config, id_, callback)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    question = {
        **provider.settings.authorization_parameters,
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": callback,
        "scope": " ".join(provider.settings.scopes),
        "state": state,
        "nonce": secrets.token_urlsafe(24),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    try:
        url = provider.endpoint("authorization_endpoint")
    except Unreachable as error:
        raise _busy(provider, error) from None
    claims = {"provider": id_, "state": state, "verifier": verifier, "to": to[:500]}
    secret = jwt.encode({"alg": "HS256"}, {**claims, "exp": int(time.time()) + SECONDS}, _key(config))
    return Departure(f"{url}{'&' if '?' in url else '?'}{urlencode(question)}", secret)


def arrive(config: Config, secret: str, callback: str, answer: dict[str, str]) -> Arrival:
    """Exchange the code in a provider's answer for a token.

    Raises:
        SignInFailed: the answer is not to this browser's question, or the provider refuses.
        InfrastructureBusy: the provider cannot be reached.
    """
    asked = _remembered(config, secret)
    if not hmac.compare_digest(answer.get("state", "").encode(), str(asked["state"]).encode()):
        raise SignInFailed(reason="its answer was not for this browser")
    if "error" in answer or not answer.get("code"):
        raise SignInFailed(reason=answer.get("error", "there is no code")[:100])
    provider, client = _taking_part(config, str(asked["provider"]), callback)
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": callback,
        "client_id": client.id,
        "code_verifier": str(asked["verifier"]),
    }
    try:
        # Another provider must not be able to slip in its own code (RFC 9207).
        if answer.get("iss", provider.issuer) != provider.issuer:
            raise SignInFailed(reason="its answer names another issuer")
        status, body = fetch_json(provider.endpoint("token_endpoint"), form=form)
    except Unreachable as error:
        raise _busy(provider, error) from None
    token = body.get("access_token") if isinstance(body, dict) else None
    if status != 200 or not isinstance(token, str):
        log.info("Provider %s gives no token: status %s", provider.settings.id, status)
        raise SignInFailed(reason="it gave no token")
    return Arrival(provider.settings.id, token, str(asked["to"]))


def _remembered(config: Config, secret: str) -> dict[str, Any]:
    try:
        claims = dict(jwt.decode(secret, _key(config), algorithms=["HS256"]).claims)
        jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
    except (JoseError, ValueError):
        raise SignInFailed(reason="that took too long, or the browser takes no cookies") from None
    return claims


def _key(config: Config) -> OctKey:
    return OctKey.import_key(hmac.digest(config.signing_key(), b"browsers at a provider", "sha256"))


def _taking_part(config: Config, id_: str, callback: str) -> tuple[Provider, Client]:
    provider = providers(config).get(id_)
    client = _client(provider, callback) if provider is not None else None
    if provider is None or client is None:
        raise AuthenticationSchemeInvalid("There is no such provider to sign in with in the browser.")
    return provider, client


def _client(provider: Provider, callback: str) -> Client | None:
    clients = provider.settings.default_clients
    return next((c for c in clients if GRANT in c.grant_types and callback in c.redirect_urls), None)


def _busy(provider: Provider, error: Unreachable) -> InfrastructureBusy:
    log.warning("Provider %s: %s", provider.settings.id, error)
    return InfrastructureBusy(
        f"{provider.settings.title} cannot be reached at the moment. Try again in a minute."
    )
