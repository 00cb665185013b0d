"""Batch jobs, independent of how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from odc_openeo.runners.json_pickling import PickledAsJson

BUSY: Final = ("queued", "running")
"""States in which a job cannot be changed."""


@dataclass(frozen=True)
class JobDraft(PickledAsJson):
    """The properties of a job that its user sets; ``extras`` are those unknown to the API."""

    json_fields = ("process", "extras")

    process: Mapping[str, Any]
    title: str | None = None
    description: str | None = None
    plan: str | None = None
    budget: float | None = None
    log_level: str = "info"
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobSummary:
    """A job in a listing."""

    id: UUID
    status: str
    title: str | None
    progress: float
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class Job(JobSummary):
    """A stored job; ``unpublished`` is when its results are deleted."""

    user: UUID
    draft: JobDraft
    queued: datetime | None
    started: datetime | None
    usage: Mapping[str, Any] | None
    attempt: UUID | None
    tries: int
    unpublished: datetime | None = None
