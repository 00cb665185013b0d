"""Identification of users by their access tokens."""

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
from odc_openeo.users.oidc.access_tokens import (
    MAX_TOKEN_LENGTH,
    check_audience,
    parse_unverified,
    verify_token,
)
from odc_openeo.users.oidc.entitlements import Identity, make_identity
from odc_openeo.users.oidc.http import Unreachable
from odc_openeo.users.oidc.provider import Claims, OidcProvider
from odc_openeo.users.oidc.settings import load_providers

log = logging.getLogger(__name__)


@cache
def _make_providers(path: Path) -> dict[str, OidcProvider]:
    return {settings.id: OidcProvider(settings) for settings in load_providers(path)}


def get_providers(config: Config) -> dict[str, OidcProvider]:
    """Get the providers by id; ValueError if their file is invalid."""
    return _make_providers(config.oidc_providers) if config.oidc_providers is not None else {}


def list_providers(config: Config) -> list[dict[str, Any]]:
    """List the providers as in ``GET /credentials/oidc``; ValueError if their file is invalid."""
    return [provider.settings.to_public_dict() for provider in get_providers(config).values()]


def find_account_url(config: Config, issuer: str | None) -> str | None:
    """The URL where users of a provider manage their account; None if it is not configured."""
    provider_settings = [provider.settings for provider in get_providers(config).values()]
    return next((settings.account_url for settings in provider_settings if settings.issuer == issuer), None)


def find_provider(config: Config, id_: str | None, token: str) -> OidcProvider | None:
    """Find the provider with an id, or else by the issuer of the token; None for tokens of Basic login.

    Raises AuthenticationSchemeInvalid if there is no provider with this id.
    """
    providers_by_id = get_providers(config)
    if id_:
        if id_ not in providers_by_id:
            names = ", ".join(providers_by_id) or "none"
            raise AuthenticationSchemeInvalid(
                f"There is no identity provider '{id_[:20]}'. Available: {names}."
            )
        return providers_by_id[id_]
    parts = parse_unverified(token) if id_ is None else None
    issuer = str(parts[1].get("iss")).rstrip("/") if parts is not None else None
    return next(
        (provider for provider in providers_by_id.values() if provider.settings.issuer == issuer), None
    )


def identify_user(provider: OidcProvider, token: str) -> Identity:
    """Identify the user to whom a provider's access token belongs.

    Raises:
        TokenInvalid: it is not valid, or for another service.
        PermissionsInsufficient: the rules do not admit the user.
        InfrastructureBusy: the provider must be asked, and cannot be reached.
    """
    if not token or len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise TokenInvalid
    try:
        return make_identity(provider.settings, _get_claims(provider, token))
    except Unreachable as error:
        log.warning("Provider %s: %s", provider.settings.id, error)
        raise InfrastructureBusy(
            f"{provider.settings.title} cannot be asked about your token at the moment. "
            "Try again in a minute."
        ) from None


def needs_provider(provider: OidcProvider, token: str) -> bool:
    """Whether the provider must be asked about a token: not for JWTs, nor with a cached answer."""
    opaque = provider.settings.opaque_tokens != "refuse" and parse_unverified(token) is None
    return opaque and not provider.has_answer(token)


def _get_claims(provider: OidcProvider, token: str) -> Claims:
    if parse_unverified(token) is None:
        return _claims_of_opaque(provider, token)
    claims = verify_token(provider, token)
    if not provider.settings.userinfo_claims:
        return claims
    return _with_userinfo(provider, token, claims)


def _with_userinfo(provider: OidcProvider, token: str, claims: Claims) -> Claims:
    """Add the claims of userinfo, which has none for a client that acts on its own behalf."""
    try:
        more = provider.fetch_userinfo(token)
    except TokenInvalid:
        return claims
    if more["sub"] != claims.get("sub"):
        raise TokenInvalid
    return {**more, **claims}


def _claims_of_opaque(provider: OidcProvider, token: str) -> Claims:
    settings = provider.settings
    if settings.opaque_tokens == "userinfo":
        return provider.fetch_userinfo(token)
    if settings.opaque_tokens == "introspection":
        claims = provider.introspect(token)
        _check_introspection(provider, claims)
        return _with_userinfo(provider, token, claims) if settings.userinfo_claims else claims
    log.info("Token of provider %s refused: not a JWT, and opaque_tokens is set to refuse", settings.id)
    raise TokenInvalid("The token is not a JSON Web Token. This service accepts no other tokens.")


def _check_introspection(provider: OidcProvider, claims: Claims) -> None:
    # These claims are optional here, but if present they must be valid, even more so from the cache.
    issuer = {"iss": {"value": provider.issuer}} if "iss" in claims else {}
    try:
        registry = jwt.JWTClaimsRegistry(now=int(time.time()), **issuer)  # type: ignore[arg-type]
        registry.validate({name: claims[name] for name in ("iss", "exp", "nbf") if name in claims})
    except JoseError:
        raise TokenInvalid from None
    check_audience(provider.settings, claims)


def check_providers(config: Config) -> str:
    """Check all providers and summarize how to sign in; ValueError if a provider cannot be used."""
    for provider in get_providers(config).values():
        try:
            if not provider.get_keys(None):
                raise ValueError(f"{provider.settings.id} publishes no key that could sign a token")
        except Unreachable as error:
            raise ValueError(f"{provider.settings.id} at {provider.settings.issuer}: {error}") from error
    names = [*get_providers(config), *(["Basic"] if config.basic_login else [])]
    if not names:
        raise ValueError("nobody can sign in: see ODC_OPENEO_OIDC_PROVIDERS and ODC_OPENEO_BASIC_LOGIN")
    return f"by {', '.join(names)}"
