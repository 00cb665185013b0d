"""Sign-in to our own pages: the authorization code flow with PKCE, as a public client of a provider.

A provider supports it if one of its ``default_clients`` has this grant type and our redirect URL.
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
from odc_openeo.users.oidc.http import Unreachable, fetch_json
from odc_openeo.users.oidc.identify import get_providers
from odc_openeo.users.oidc.provider import OidcProvider
from odc_openeo.users.oidc.settings import Client

log = logging.getLogger(__name__)

GRANT: Final = "authorization_code+pkce"
SECONDS: Final = 600


@dataclass(frozen=True)
class SignInRedirect:
    """The URL to send the browser to, and the secret that it must keep until it comes back."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class SignInResult:
    """The access token that a browser has obtained, its provider, and the page that was requested."""

    provider: str
    token: str = field(repr=False)
    to: str = ""


def list_browser_providers(config: Config, callback: str) -> list[dict[str, str]]:
    """List id and title of the providers that support sign-in with the redirect URL ``callback``."""
    return [
        {"id": id_, "title": provider.settings.title}
        for id_, provider in get_providers(config).items()
        if _find_client(provider, callback) is not None
    ]


def begin_sign_in(config: Config, id_: str, callback: str, to: str) -> SignInRedirect:
    """Begin a sign-in in the browser.

    Raises:
        AuthenticationSchemeInvalid: there is no such provider for browsers.
        InfrastructureBusy: it cannot be reached.
    """
    provider, client = _get_browser_provider(config, id_, callback)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
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
        url = provider.get_endpoint("authorization_endpoint")
    except Unreachable as error:
        raise _make_unavailable_error(provider, error) from None
    claims = {"provider": id_, "state": state, "verifier": verifier, "to": to[:500]}
    secret = jwt.encode({"alg": "HS256"}, {**claims, "exp": int(time.time()) + SECONDS}, _make_key(config))
    return SignInRedirect(f"{url}{'&' if '?' in url else '?'}{urlencode(query)}", secret)


def finish_sign_in(config: Config, secret: str, callback: str, answer: dict[str, str]) -> SignInResult:
    """Exchange the code in a provider's response for a token.

    Raises:
        SignInFailed: the response is not for a request of this browser, or the provider refuses.
        InfrastructureBusy: the provider cannot be reached.
    """
    request = _decode_secret(config, secret)
    if not hmac.compare_digest(answer.get("state", "").encode(), str(request["state"]).encode()):
        raise SignInFailed(reason="its response was not for this browser")
    if "error" in answer or not answer.get("code"):
        raise SignInFailed(reason=answer.get("error", "there is no code")[:100])
    provider, client = _get_browser_provider(config, str(request["provider"]), callback)
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": callback,
        "client_id": client.id,
        "code_verifier": str(request["verifier"]),
    }
    try:
        # Another provider must not be able to slip in its own code (RFC 9207).
        if answer.get("iss", provider.issuer) != provider.issuer:
            raise SignInFailed(reason="its response names another issuer")
        status, body = fetch_json(provider.get_endpoint("token_endpoint"), form=form)
    except Unreachable as error:
        raise _make_unavailable_error(provider, error) from None
    token = body.get("access_token") if isinstance(body, dict) else None
    if status != 200 or not isinstance(token, str):
        log.info("Provider %s returned no token: status %s", provider.settings.id, status)
        raise SignInFailed(reason="it returned no token")
    return SignInResult(provider.settings.id, token, str(request["to"]))


def _decode_secret(config: Config, secret: str) -> dict[str, Any]:
    try:
        claims = dict(jwt.decode(secret, _make_key(config), algorithms=["HS256"]).claims)
        jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
    except (JoseError, ValueError):
        raise SignInFailed(reason="it took too long, or the browser blocks cookies") from None
    return claims


def _make_key(config: Config) -> OctKey:
    return OctKey.import_key(hmac.digest(config.signing_key(), b"browsers at a provider", "sha256"))


def _get_browser_provider(config: Config, id_: str, callback: str) -> tuple[OidcProvider, Client]:
    provider = get_providers(config).get(id_)
    client = _find_client(provider, callback) if provider is not None else None
    if provider is None or client is None:
        raise AuthenticationSchemeInvalid("There is no such provider to sign in with in the browser.")
    return provider, client


def _find_client(provider: OidcProvider, callback: str) -> Client | None:
    clients = provider.settings.default_clients
    return next((c for c in clients if GRANT in c.grant_types and callback in c.redirect_urls), None)


def _make_unavailable_error(provider: OidcProvider, error: Unreachable) -> InfrastructureBusy:
    log.warning("Provider %s: %s", provider.settings.id, error)
    return InfrastructureBusy(
        f"{provider.settings.title} cannot be reached at the moment. Try again in a minute."
    )
