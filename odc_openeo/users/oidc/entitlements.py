"""Names, roles and admission of users from their claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from odc_openeo.errors import PermissionsInsufficient, TokenInvalid
from odc_openeo.users.oidc.settings import ProviderSettings

MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class Identity:
    """A user of a provider; ``issuer`` and ``subject`` together never change."""

    issuer: str
    subject: str
    name: str
    roles: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def make_identity(settings: ProviderSettings, claims: Mapping[str, Any]) -> Identity:
    """Make the identity from verified claims; PermissionsInsufficient if the rules do not admit the user."""
    return Identity(
        settings.issuer,
        _get_subject(claims),
        choose_name(settings, claims),
        grant_roles(settings, claims),
        claims,
    )


def _get_subject(claims: Mapping[str, Any]) -> str:
    # At some providers clients that act on their own behalf have no subject; no user's has this prefix.
    sub, client = claims.get("sub"), find_client_id(claims)
    if isinstance(sub, str) and sub:
        return sub
    if client:
        return f"client:{client}"
    raise TokenInvalid


def find_client_id(claims: Mapping[str, Any]) -> str | None:
    """Find the id of the client that a token was issued to, under the names that providers use."""
    values = [claims.get(name) for name in ("client_id", "azp", "cid", "appid")]
    return next((value for value in values if isinstance(value, str) and value), None)


def choose_name(settings: ProviderSettings, claims: Mapping[str, Any]) -> str:
    """Choose a display name: the configured claim, else another usual one."""
    # Tokens of a client that acts on its own behalf have no name, some not even a subject.
    usual = ("name", "preferred_username", "email", "sub", "client_id", "azp")
    for claim in (settings.name_claim, *usual):
        value = claims.get(claim)
        text = "".join(filter(str.isprintable, value)).strip() if isinstance(value, str) else ""
        if text:
            return text[:MAX_NAME_LENGTH]
    return "?"


def grant_roles(settings: ProviderSettings, claims: Mapping[str, Any]) -> frozenset[str]:
    """Grant roles by the rules; PermissionsInsufficient for users who are refused or not entitled."""
    matching = [rule for rule in settings.rules if rule.matches(claims)]
    if any(rule.refuse for rule in matching):
        raise PermissionsInsufficient("Your account is not admitted to this service. Ask its operator.")
    if settings.entitled_only and not matching:
        raise PermissionsInsufficient(
            f"Your account at {settings.title} lacks the entitlement that this service requires. "
            "Ask its operator."
        )
    return frozenset(role for rule in matching for role in rule.roles)
