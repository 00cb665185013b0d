"""Counts of what happens, from any room and any process; `monitoring` publishes them as metrics.

A process with a sink passes on every count at once. In other processes (runners, jobs, dask workers) they add
up until they are drained and sent to such a process. Names and labels come from this package only, never from
requests: their number is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

Kind = Literal["add", "set", "observe"]


class Count(NamedTuple):
    """A number to add to a counter, set a gauge to, or observe in a histogram; ``labels`` in any order."""

    kind: Kind
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


Sink = Callable[[Count], None]

_lock = threading.Lock()
_pending: Final[dict[tuple[Kind, str, tuple[tuple[str, str], ...]], float]] = {}
_sinks: Final[list[Sink]] = []


def add_count(name: str, value: float = 1.0, /, **labels: str) -> None:
    """Add to a counter."""
    pass_on([Count("add", name, tuple(sorted(labels.items())), value)])


def set_gauge(name: str, value: float, /, **labels: str) -> None:
    """Set a gauge."""
    pass_on([Count("set", name, tuple(sorted(labels.items())), value)])


def observe_seconds(name: str, seconds: float, /, **labels: str) -> None:
    """Observe a duration; only processes with a sink have histograms."""
    if _sinks:
        pass_on([Count("observe", name, tuple(sorted(labels.items())), seconds)])


def pass_on(counts: Iterable[Count]) -> None:
    """Pass counts to the sink, or add them up here without one."""
    if _sinks:
        for count in counts:
            _sinks[0](count)
        return
    with _lock:
        for kind, name, labels, value in counts:
            key = (kind, name, labels)
            _pending[key] = value + (_pending.get(key, 0.0) if kind == "add" else 0.0)


def list_counts() -> list[Count]:
    """List what has added up in this process."""
    with _lock:
        return [Count(*key, value) for key, value in _pending.items()]


def drain_counts() -> list[Count]:
    """Take what has added up in this process."""
    with _lock:
        counts = [Count(*key, value) for key, value in _pending.items()]
        _pending.clear()
    return counts


def set_sink(sink: Sink | None) -> None:
    """Have counts of this process passed on at once; None: add them up again."""
    _sinks[:] = [] if sink is None else [sink]
