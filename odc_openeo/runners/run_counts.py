"""Counts of runs by lane and outcome."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from odc_openeo.errors import InfrastructureBusy, OpenEOError, TooManyRequests
from odc_openeo.telemetry.counts import add_count, observe_seconds, set_gauge

_active: Final[Counter[str]] = Counter()
_lock = threading.Lock()


class RunAbandoned(Exception):
    """A run was ended because no client waits for its result any more."""


@dataclass
class RunCount:
    """A run that is counted; it begins once it has a runner."""

    lane: str
    began: float | None = None

    def begin(self) -> None:
        """Count it as active from now on."""
        self.began = time.monotonic()
        _change_active(self.lane, 1)

    def end(self, error: BaseException | None) -> None:
        """Count its outcome."""
        add_count("runs", lane=self.lane, outcome=_name_outcome(error, self.began is not None))
        if self.began is not None:
            _change_active(self.lane, -1)
            observe_seconds("run_duration_seconds", time.monotonic() - self.began, lane=self.lane)


@contextlib.contextmanager
def count_run(lane: str) -> Iterator[RunCount]:
    """Count a run of a lane."""
    run = RunCount(lane)
    try:
        yield run
    except BaseException as error:
        run.end(error)
        raise
    run.end(None)


def _change_active(lane: str, change: int) -> None:
    with _lock:
        _active[lane] += change
        set_gauge("runs_active", _active[lane], lane=lane)


def _name_outcome(error: BaseException | None, has_begun: bool) -> str:
    """Name the outcome of a run: one of six."""
    if error is None:
        return "finished"
    if isinstance(error, RunAbandoned):
        return "abandoned"
    if not has_begun and isinstance(error, InfrastructureBusy | TooManyRequests):
        return "refused"
    if isinstance(error, OpenEOError):
        return {408: "timeout", 500: "failed"}.get(error.status, "error")
    return "failed"
