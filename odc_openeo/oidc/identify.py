"""Whom an access token belongs to."""

from __future__ import annotations

import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from odc_openeo.config import Config
from odc_openeo.errors import AuthenticationSchemeInvalid, InfrastructureBusy, TokenInvalid
from odc_openeo.oidc.entitlements import Identity, identity
from odc_openeo.oidc.fetch import Unreachable
from odc_openeo.oidc.provider import Claims, Provider
from odc_openeo.oidc.settings import load_providers
from odc_openeo.oidc.tokens import LONGEST_TOKEN, check_audience, unverified, verified

log = logging.getLogger(__name__)


@cache
def _load(path: Path) -> dict[str, Provider]:
    return {settings.id: Provider(settings) for settings in load_providers(path)}


def providers(config: Config) -> dict[str, Provider]:
    """The providers by id; ValueError when their file is faulty."""
    return _load(config.oidc_providers) if config.oidc_providers is not None else {}


def listing(config: Config) -> list[dict[str, Any]]:
    """The providers as ``GET /credentials/oidc`` has them; ValueError when their file is faulty."""
    return [provider.settings.published() for provider in providers(config).values()]


def account_url(config: Config, issuer: str | None) -> str | None:
    """Where users of a provider look after their account, if its settings say so."""
    known = [each.settings for each in providers(config).values()]
    return next((each.account_url for each in known if each.issuer == issuer), None)


def find_provider(config: Config, id_: str | None, token: str) -> Provider | None:
    """The provider with an id, or whose issuer the token names if None; None for tokens of Basic login.

    Raises AuthenticationSchemeInvalid when there is no provider with this id.
    """
    known = providers(config)
    if id_:
        if id_ not in known:
            names = ", ".join(known) or "none"
            raise AuthenticationSchemeInvalid(
                f"There is no identity provider '{id_[:20]}' here, but: {names}."
            )
        return known[id_]
    parts = unverified(token) if id_ is None else None
    issuer = str(parts[1].get("iss")).rstrip("/") if parts is not None else None
    return next((each for each in known.values() if each.settings.issuer == issuer), None)


def identify(provider: Provider, token: str) -> Identity:
    """Whom a provider's access token belongs to.

    Raises:
        TokenInvalid: it is not good, or not for this service.
        PermissionsInsufficient: the rules do not let them in.
        InfrastructureBusy: the provider is needed to tell, and cannot be reached.
    """
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
        raise TokenInvalid
    try:
        return identity(provider.settings, _claims(provider, token))
    except Unreachable as error:
        log.warning("Provider %s: %s", provider.settings.id, error)
        raise InfrastructureBusy(
            f"{provider.settings.title} cannot be asked about your token at the moment. "
            "Try again in a minute."
        ) from None


def asks(provider: Provider, token: str) -> bool:
    """Whether the provider must be asked about a token: not about JWTs, nor about those of just now."""
    opaque = provider.settings.opaque_tokens != "refuse" and unverified(token) is None
    return opaque and not provider.remembers(token)


def _claims(provider: Provider, token: str) -> Claims:
    if unverified(token) is None:
        return _claims_of_opaque(provider, token)
    claims = verified(provider, token)
    if not provider.settings.userinfo_claims:
        return claims
    return _with_userinfo(provider, token, claims)


def _with_userinfo(provider: Provider, token: str, claims: Claims) -> Claims:
    """The claims, with those of userinfo beside them; a client that acts for itself has none there."""
    try:
        more = provider.userinfo(token)
    except TokenInvalid:
        return claims
    if more["sub"] != claims.get("sub"):
        raise TokenInvalid
    return {**more, **claims}


def _claims_of_opaque(provider: Provider, token: str) -> Claims:
    settings = provider.settings
    if settings.opaque_tokens == "userinfo":
        return provider.userinfo(token)
    if settings.opaque_tokens == "introspection":
        claims = provider.introspect(token)
        _check_introspection(provider, claims)
        return _with_userinfo(provider, token, claims) if settings.userinfo_claims else claims
    log.info("Token of provider %s refused: no JWT; opaque_tokens says to refuse those", settings.id)
    raise TokenInvalid("The token is no JSON Web Token. This service takes no other tokens.")


def _check_introspection(provider: Provider, claims: Claims) -> None:
    # All of these are optional here, but what is said must be right, the more so from the cache.
    issuer = {"iss": {"value": provider.issuer}} if "iss" in claims else {}
    try:
        registry = jwt.JWTClaimsRegistry(now=int(time.time()), **issuer)  # type: ignore[arg-type]
        registry.validate({name: claims[name] for name in ("iss", "exp", "nbf") if name in claims})
    except JoseError:
        raise TokenInvalid from None
    check_audience(provider.settings, claims)


def check(config: Config) -> str:
    """Say in a few words who may sign in how; ValueError when a provider cannot be used."""
    for provider in providers(config).values():
        try:
            if not provider.keys(None):
                raise ValueError(f"{provider.settings.id} publishes no key that could sign a token")
        except Unreachable as error:
            raise ValueError(f"{provider.settings.id} at {provider.settings.issuer}: {error}") from error
    names = [*providers(config), *(["Basic"] if config.basic_login else [])]
    if not names:
        raise ValueError("nobody can sign in: see ODC_OPENEO_OIDC_PROVIDERS and ODC_OPENEO_BASIC_LOGIN")
    return f"by {', '.join(names)}"
