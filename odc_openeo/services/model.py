"""Secondary web services, independent of how they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from odc_openeo.runners.json_pickling import PickledAsJson


@dataclass(frozen=True)
class ServiceDraft(PickledAsJson):
    """The properties of a service that its user sets; ``extras`` are those unknown to the API."""

    json_fields = ("process", "configuration", "extras")

    type: str
    process: Mapping[str, Any]
    title: str | None = None
    description: str | None = None
    enabled: bool = True
    configuration: Mapping[str, Any] = field(default_factory=dict)
    plan: str | None = None
    budget: float | None = None
    log_level: str = "info"
    extras: Mapping[str, Any] = field(default_factory=dict)


Ranges = Sequence[tuple[float, float]]
"""The values shown darkest and brightest, for each band."""


@dataclass(frozen=True)
class Service:
    """A stored service.

    ``version`` changes when the tiles show something else; ``ranges`` were measured for it, None if not yet.
    """

    id: UUID
    user: UUID
    draft: ServiceDraft
    version: int
    ranges: Ranges | None
    tiles: int
    nbytes: int
    cpu_s: float
    created: datetime

    @property
    def public(self) -> bool:
        """Whether everybody may see the tiles."""
        return bool(self.draft.configuration.get("public"))

    def get_setting(self, name: str, default: Any = None) -> Any:
        """Return a setting of the configuration, or the default if the user has not set it."""
        value = self.draft.configuration.get(name)
        return default if value is None else value
