"""Rules about users of identity providers: which values of which claims they apply to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ClaimRule(BaseModel):
    """Users with one of the values in a claim; an asterisk in a value stands for any characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str | tuple[str, ...]
    values: tuple[str, ...] = Field(min_length=1)

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to the claim, from the outermost object inwards."""
        return (self.claim,) if isinstance(self.claim, str) else self.claim

    @property
    def grant(self) -> str:
        """The name by which it is stored with a user that the rule applies; never the name of a role."""
        return json.dumps([self.path, sorted(self.values)])

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether the rule applies to a user with these verified claims."""
        # Only the asterisk is special: brackets and question marks are common in entitlements.
        patterns = [".*".join(map(re.escape, pattern.split("*"))) for pattern in self.values]
        values = list(self._iterate_values(claims))
        return any(re.fullmatch(pattern, value, re.DOTALL) for pattern in patterns for value in values)

    def _iterate_values(self, claims: Mapping[str, Any]) -> Iterable[str]:
        claim: Any = claims
        for step in self.path:
            claim = claim.get(step) if isinstance(claim, Mapping) else None
        values = claim if isinstance(claim, list) else [claim]
        for value in values:
            if isinstance(value, bool):
                yield str(value).lower()
            elif isinstance(value, str | int):
                yield str(value)
