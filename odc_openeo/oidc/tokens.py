"""Access tokens that are JWTs: signature, times, issuer, and whom they are for."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError

from odc_openeo.errors import TokenInvalid
from odc_openeo.oidc.entitlements import client_of
from odc_openeo.oidc.provider import Claims, Provider
from odc_openeo.oidc.settings import ProviderSettings

log = logging.getLogger(__name__)

LONGEST_TOKEN = 2**16
TYPES = ("jwt", "at+jwt", "application/at+jwt")
OF_ID_TOKENS = ("at_hash", "c_hash", "s_hash", "events")


class Registry(jws.JWSRegistry):
    """Providers put more than the standard's fields into headers, certificates among them."""

    max_header_length = 2**14


def unverified(token: str) -> tuple[Claims, Claims] | None:
    """Header and claims of a JWT that nobody has checked yet; None for a token of another kind."""
    if len(token) > LONGEST_TOKEN or token.count(".") != 2 or not token.isascii():
        return None
    try:
        parts = jws.extract_compact(token.encode(), registry=Registry(strict_check_header=False))
        claims = json.loads(parts.payload or b"")
    except (JoseError, ValueError, RecursionError):
        return None
    return (dict(parts.headers()), claims) if isinstance(claims, dict) else None


def verified(provider: Provider, token: str) -> Claims:
    """The claims of a JWT of ``provider``; TokenInvalid unless all of it is in order."""
    parts = unverified(token)
    if parts is None:
        raise TokenInvalid
    header = parts[0]
    try:
        claims = _checked_signature(provider, token, header)
        # A token without kind of its own could be made for another purpose: ID tokens are no access tokens.
        _check_kind(header, claims)
        check_claims(provider, claims)
    except ExpiredTokenError:
        raise TokenInvalid("The token has expired. Please sign in again.") from None
    except JoseError as error:
        log.info("Token of provider %s refused: %s", provider.settings.id, error)
        raise TokenInvalid from None
    return claims


def _checked_signature(provider: Provider, token: str, header: Claims) -> Claims:
    kid, algorithm = header.get("kid"), header.get("alg")
    settings = provider.settings
    # Said here already, so that no key is looked for.
    if algorithm not in settings.algorithms or not isinstance(kid, str | None):
        log.info("Token of provider %s refused: its algorithm is not allowed", settings.id)
        raise TokenInvalid
    registry = Registry(algorithms=settings.algorithms, strict_check_header=False)
    failure: JoseError | None = None
    for key in provider.keys(kid):
        try:
            return jwt.decode(token, key, registry=registry).claims
        except JoseError as error:
            failure = error
    if failure is None:
        log.info("Token of provider %s refused: its key is unknown", settings.id)
        raise TokenInvalid
    raise failure


def _check_kind(header: Mapping[str, Any], claims: Claims) -> None:
    kind = str(header.get("typ") or "JWT").lower()
    # One provider puts the kind of a token into a claim, and nonces into access tokens too.
    claimed = claims.get("typ")
    other = claimed is not None and claimed != "Bearer"
    if kind not in TYPES or other or any(claim in claims for claim in OF_ID_TOKENS):
        raise TokenInvalid("This is no access token: send the access token, not the ID token.")
    if "nonce" in claims and claimed != "Bearer" and kind == "jwt":
        raise TokenInvalid("This is no access token: send the access token, not the ID token.")


def check_claims(provider: Provider, claims: Claims) -> None:
    """Check issuer, times and whom the token is for; JoseError or TokenInvalid when they are not right."""
    settings = provider.settings
    registry = jwt.JWTClaimsRegistry(
        leeway=int(settings.leeway_s),
        iss={"essential": True, "value": provider.issuer},
        exp={"essential": True},
    )
    registry.validate(claims)
    check_audience(settings, claims)


def check_audience(settings: ProviderSettings, claims: Claims) -> None:
    """TokenInvalid unless the token was made for this service, or for one of its clients."""
    value = claims.get("aud")
    audiences = {each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)}
    ours = client_of(claims) in settings.accepted_clients or audiences & set(settings.audiences)
    if not (ours or settings.any_audience):
        log.info("Token of provider %s refused: it is for %s", settings.id, sorted(audiences))
        raise TokenInvalid("The token was made for another service. Please sign in to this one.")
