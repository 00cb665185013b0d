"""Access tokens that are JWTs: signature, times, issuer and audience."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError

from odc_openeo.errors import TokenInvalid
from odc_openeo.users.oidc.entitlements import find_client_id
from odc_openeo.users.oidc.provider import Claims, OidcProvider
from odc_openeo.users.oidc.settings import ProviderSettings

log = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 2**16
TYPES = ("jwt", "at+jwt", "application/at+jwt")
ID_TOKEN_CLAIMS = ("at_hash", "c_hash", "s_hash", "events")


class Registry(jws.JWSRegistry):
    """A registry that accepts long headers: providers put more than the standard's fields into them."""

    max_header_length = 2**14


def parse_unverified(token: str) -> tuple[Claims, Claims] | None:
    """Parse header and claims of a JWT without verifying them; None for a token of another kind."""
    if len(token) > MAX_TOKEN_LENGTH or token.count(".") != 2 or not token.isascii():
        return None
    try:
        parts = jws.extract_compact(token.encode(), registry=Registry(strict_check_header=False))
        claims = json.loads(parts.payload or b"")
    except (JoseError, ValueError, RecursionError):
        return None
    return (dict(parts.headers()), claims) if isinstance(claims, dict) else None


def verify_token(provider: OidcProvider, token: str) -> Claims:
    """Verify a JWT of ``provider`` and return its claims; TokenInvalid if anything is wrong."""
    parts = parse_unverified(token)
    if parts is None:
        raise TokenInvalid
    header = parts[0]
    try:
        claims = _verify_signature(provider, token, header)
        # A token without an explicit type may have another purpose: ID tokens are not access tokens.
        _check_kind(header, claims)
        check_claims(provider, claims)
    except ExpiredTokenError:
        raise TokenInvalid("The token has expired. Please sign in again.") from None
    except JoseError as error:
        log.info("Token of provider %s refused: %s", provider.settings.id, error)
        raise TokenInvalid from None
    return claims


def _verify_signature(provider: OidcProvider, token: str, header: Claims) -> Claims:
    kid, algorithm = header.get("kid"), header.get("alg")
    settings = provider.settings
    # Checked first, so that no key is looked up in vain.
    if algorithm not in settings.algorithms or not isinstance(kid, str | None):
        log.info("Token of provider %s refused: its algorithm is not allowed", settings.id)
        raise TokenInvalid
    registry = Registry(algorithms=settings.algorithms, strict_check_header=False)
    failure: JoseError | None = None
    for key in provider.get_keys(kid):
        try:
            return jwt.decode(token, key, registry=registry).claims
        except JoseError as error:
            failure = error
    if failure is None:
        log.info("Token of provider %s refused: its key is unknown", settings.id)
        raise TokenInvalid
    raise failure


def _check_kind(header: Mapping[str, Any], claims: Claims) -> None:
    header_type = str(header.get("typ") or "JWT").lower()
    # One provider puts the type of a token into a claim, and nonces into access tokens too.
    claimed_type = claims.get("typ")
    has_other_type = claimed_type is not None and claimed_type != "Bearer"
    if header_type not in TYPES or has_other_type or any(claim in claims for claim in ID_TOKEN_CLAIMS):
        raise TokenInvalid("This is not an access token: send the access token, not the ID token.")
    if "nonce" in claims and claimed_type != "Bearer" and header_type == "jwt":
        raise TokenInvalid("This is not an access token: send the access token, not the ID token.")


def check_claims(provider: OidcProvider, claims: Claims) -> None:
    """Check issuer, times and audience; JoseError or TokenInvalid if they are not valid."""
    settings = provider.settings
    registry = jwt.JWTClaimsRegistry(
        leeway=int(settings.leeway_s),
        iss={"essential": True, "value": provider.issuer},
        exp={"essential": True},
    )
    registry.validate(claims)
    check_audience(settings, claims)


def check_audience(settings: ProviderSettings, claims: Claims) -> None:
    """Raise TokenInvalid unless the token was issued for this service, or for one of its clients."""
    value = claims.get("aud")
    audiences = {
        audience for audience in (value if isinstance(value, list) else [value]) if isinstance(audience, str)
    }
    is_for_us = find_client_id(claims) in settings.accepted_clients or audiences & set(settings.audiences)
    if not (is_for_us or settings.any_audience):
        log.info("Token of provider %s refused: it is for %s", settings.id, sorted(audiences))
        raise TokenInvalid("The token was issued for another service. Please sign in to this one.")
