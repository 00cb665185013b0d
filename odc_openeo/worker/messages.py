"""Messages from the process of a job to its supervisor, which does not import what computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odc_openeo.jobs import Entry
from odc_openeo.jobs.claims import PartClaim
from odc_openeo.jobs.parts import PlannedParts
from odc_openeo.telemetry.counts import Count


@dataclass(frozen=True)
class PartTask:
    """The request of a supervisor to run a part, whose files are written into ``folder`` first."""

    claim: PartClaim
    folder: Path


@dataclass(frozen=True)
class RunUpdate:
    """An update from a run to its supervisor; any of the fields may be set. ``counts`` are for metrics."""

    entry: Entry | None = None
    progress: float | None = None
    cluster_cpu_s: float | None = None
    partial_assets: Sequence[dict[str, Any]] | None = None
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True)
class RunDone:
    """The outcome of a run that has written all its files."""

    assets: Sequence[dict[str, Any]]
    details: dict[str, Any]


@dataclass(frozen=True)
class RunSplit:
    """The outcome of a run that has planned its job in parts, and written what they need in common."""

    plan: PlannedParts


@dataclass(frozen=True)
class RunFailed:
    """The outcome of a run that ended with an error; ``transient``: another try may succeed.

    ``counts``: the computation had begun, so this run counts as one of the tries of the job. ``cause`` is for
    the operator: the errors that led to the one that the user sees.
    """

    entry: Entry
    transient: bool
    counts: bool = True
    cause: str = ""
