"""From the claims about somebody to a name, roles, and whether they may come in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from odc_openeo.errors import PermissionsInsufficient, TokenInvalid
from odc_openeo.oidc.settings import ProviderSettings, Rule

LONGEST_NAME = 200


@dataclass(frozen=True)
class Identity:
    """Whom a provider vouches for. ``issuer`` and ``subject`` together never change."""

    issuer: str
    subject: str
    name: str
    roles: frozenset[str] = frozenset()


def identity(settings: ProviderSettings, claims: Mapping[str, Any]) -> Identity:
    """The identity in checked claims; PermissionsInsufficient when the rules do not let them in."""
    return Identity(settings.issuer, _subject(claims), name(settings, claims), roles(settings, claims))


def _subject(claims: Mapping[str, Any]) -> str:
    # Who acts for itself has no subject at some providers; no user can be called so elsewhere.
    sub, client = claims.get("sub"), client_of(claims)
    if isinstance(sub, str) and sub:
        return sub
    if client:
        return f"client:{client}"
    raise TokenInvalid


def client_of(claims: Mapping[str, Any]) -> str | None:
    """The client that a token was given to, under the names that providers use."""
    values = [claims.get(name) for name in ("client_id", "azp", "cid", "appid")]
    return next((value for value in values if isinstance(value, str) and value), None)


def name(settings: ProviderSettings, claims: Mapping[str, Any]) -> str:
    """How to call them: the configured claim, else what a provider may give instead."""
    # Tokens of a client that acts for itself have no name, some not even a subject.
    usual = ("name", "preferred_username", "email", "sub", "client_id", "azp")
    for claim in (settings.name_claim, *usual):
        value = claims.get(claim)
        text = "".join(filter(str.isprintable, value)).strip() if isinstance(value, str) else ""
        if text:
            return text[:LONGEST_NAME]
    return "?"


def roles(settings: ProviderSettings, claims: Mapping[str, Any]) -> frozenset[str]:
    """The roles that the rules give; PermissionsInsufficient for those who are refused, or not entitled."""
    matching = [rule for rule in settings.rules if _matches(rule, claims)]
    if any(rule.refuse for rule in matching):
        raise PermissionsInsufficient("Your account is not admitted to this service. Ask its operator.")
    if settings.entitled_only and not matching:
        raise PermissionsInsufficient(
            f"Your account at {settings.title} lacks the entitlement that this service asks for. "
            "Ask its operator."
        )
    return frozenset(role for rule in matching for role in rule.roles)


def _matches(rule: Rule, claims: Mapping[str, Any]) -> bool:
    # Only the star is special: brackets and question marks are common in entitlements.
    patterns = [".*".join(map(re.escape, wanted.split("*"))) for wanted in rule.values]
    values = list(_values(rule, claims))
    return any(re.fullmatch(pattern, value, re.DOTALL) for pattern in patterns for value in values)


def _values(rule: Rule, claims: Mapping[str, Any]) -> Iterable[str]:
    found: Any = claims
    for step in rule.path:
        found = found.get(step) if isinstance(found, Mapping) else None
    values = found if isinstance(found, list) else [found]
    for value in values:
        if isinstance(value, bool):
            yield str(value).lower()
        elif isinstance(value, str | int):
            yield str(value)
