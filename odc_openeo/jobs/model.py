"""Batch jobs as the rest of the service sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from odc_openeo.json_pickling import PickledAsJson

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Levels of log entries, from low to high severity."""

BUSY: Final = ("queued", "running")
"""States in which a job can't be changed."""


@dataclass(frozen=True)
class JobDraft(PickledAsJson):
    """What a user says of a job; ``extras`` are properties that the API does not know."""

    json_fields = ("process", "extras")

    process: Mapping[str, Any]
    title: str | None = None
    description: str | None = None
    plan: str | None = None
    budget: float | None = None
    log_level: str = "info"
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A job in a listing."""

    id: UUID
    status: str
    title: str | None
    progress: float
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class Job(Summary):
    """A job with all that is known of it. ``unpublished`` is when its results are deleted."""

    user: UUID
    draft: JobDraft
    queued: datetime | None
    started: datetime | None
    usage: Mapping[str, Any] | None
    attempt: UUID | None
    tries: int
    unpublished: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """A log entry; ``more`` holds what else the API shows: code, data, path, usage."""

    level: str
    message: str
    time: datetime
    more: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list; ``next`` is where the following part starts, None at the end."""

    items: list[T]
    next: str | None = None
