"""Who may read a collection: everybody, signed-in users, or those with a role or a claim.

A collection that somebody may not read does not exist for them: no answer tells it from an unknown one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from odc_openeo.users.claim_rules import ClaimRule
from odc_openeo.users.roles import check_role


class Entitled(BaseModel):
    """Users with one of the roles, or to whom one of the rules about claims applies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: tuple[Annotated[str, AfterValidator(check_role)], ...] = ()
    claims: tuple[ClaimRule, ...] = Field(default=())

    @model_validator(mode="after")
    def _check_somebody(self) -> Entitled:
        if not self.roles and not self.claims:
            raise ValueError("name at least one of roles and claims; 'hidden: true' hides it from everybody")
        return self

    @property
    def grants(self) -> frozenset[str]:
        """Roles and rules, one of which a user needs."""
        return frozenset({*self.roles, *(rule.grant for rule in self.claims)})


Access = Literal["public", "signed-in"] | Entitled


@dataclass(frozen=True)
class Reader:
    """Somebody who reads the catalogue; ``grants`` are roles and the rules about claims that apply."""

    signed_in: bool = False
    grants: frozenset[str] = frozenset()
    reads_all: bool = False

    def describe(self) -> str:
        """Return a string that is equal for readers who may read the same."""
        return repr((self.reads_all, self.signed_in, sorted(self.grants)))

    def may_read(self, access: Access) -> bool:
        """Whether the reader may read a collection with this access."""
        if self.reads_all or access == "public":
            return True
        if not self.signed_in:
            return False
        return access == "signed-in" or not self.grants.isdisjoint(access.grants)


ANYBODY: Final = Reader()
"""Somebody who is not signed in."""
OPERATOR: Final = Reader(reads_all=True)
"""The service itself, and the commands of its operator."""


def list_claim_rules(accesses: Iterable[Access]) -> frozenset[ClaimRule]:
    """List the rules about claims that open collections."""
    return frozenset(rule for access in accesses if isinstance(access, Entitled) for rule in access.claims)
