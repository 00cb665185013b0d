"""The log entries of user code: from wherever it runs into the log of the request or job.

Functions run in threads of the process that evaluates the graph, or in dask workers. In a worker the entries
are sent to the process that computes on the cluster.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from odc_openeo.compute import cluster
from odc_openeo.udf.child.main import LONGEST_TEXT

LEVELS: Final = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
CODE: Final = "UDF"
"""Label of entries to which user code gives none."""

WINDOW_S: Final = 3600
MOST_ENTRIES: Final = 10_000
"""Entries of a run within an hour: each is a row of the database, and chunks may be many."""
MOST_CHARACTERS: Final = 20_000_000
"""Characters of these."""
MOST_ERRORS: Final = 100
"""Entries of level ``error`` beyond that."""
LONGEST_CODE: Final = 100
TOO_MUCH: Final = "User code has logged too much within an hour; more is left out, but for some errors."


@dataclass
class _Budget:
    """Room for what a run may still log within an hour from ``begin`` on."""

    entries: int
    characters: int = MOST_CHARACTERS
    errors: int = field(default_factory=lambda: MOST_ERRORS)
    begin: float = field(default_factory=time.monotonic)
    is_exceeded: bool = False
    is_announced: bool = False

    def take(self, entry: Mapping[str, Any]) -> bool:
        """Return whether there is room for an entry; then there is less."""
        size = len(repr(entry))
        if self.entries > 0 and size <= self.characters:
            self.entries -= 1
            self.characters -= size
            return True
        self.is_exceeded = True
        self.errors -= entry.get("level") == "error"
        return entry.get("level") == "error" and self.errors >= 0


_loggers: weakref.WeakValueDictionary[str, logging.Logger] = weakref.WeakValueDictionary()
_budgets: weakref.WeakKeyDictionary[logging.Logger, _Budget] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class LogTarget:
    """Where the entries of a function go: the topic of its run, and its node in the graph.

    ``path``: (node id, process id) of the nodes of a call, the innermost first.
    """

    topic: str
    path: tuple[tuple[str, str], ...]

    @classmethod
    def open(cls, logger: logging.Logger, path: tuple[tuple[str, str], ...]) -> LogTarget:
        """Return a target that leads to a logger of this process."""
        with _lock:
            topic = next((name for name, owner in _loggers.items() if owner is logger), None)
            if topic is None:
                topic = f"odc-openeo-udf-{uuid4().hex}"
                _loggers[topic] = logger
                cluster.receive_events(topic, _write_event)
                weakref.finalize(logger, cluster.stop_receiving, topic)
        return cls(topic, path)

    @property
    def node(self) -> str:
        """The ids of the nodes from the outermost to that of the function, joined by dots."""
        return ".".join(node for node, _ in reversed(self.path))

    def deliver(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write entries into the log of the run, which may be that of another process."""
        entries = list(entries)
        logger = _loggers.get(self.topic)
        if logger is not None:
            _write_entries(logger, self.path, entries)
        elif entries:
            cluster.send_event(self.topic, {"path": [list(step) for step in self.path], "entries": entries})


def _write_event(topic: str, event: Mapping[str, Any]) -> None:
    logger = _loggers.get(topic)
    if logger is not None:
        _write_entries(
            logger, [(str(node), str(process)) for node, process in event["path"]], event["entries"]
        )


def _write_entries(
    logger: logging.Logger, path: Iterable[tuple[str, str]], entries: Iterable[Mapping[str, Any]]
) -> None:
    for entry in _limit_entries(logger, [_limit_texts(entry) for entry in entries]):
        level = LEVELS.get(str(entry.get("level")), logging.INFO)
        extra: dict[str, Any] = {"code": entry.get("code", CODE), "path": tuple(path)}
        if "data" in entry:
            extra["data"] = entry["data"]
        logger.log(level, "%s", entry["message"], extra=extra)


def _limit_texts(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shorten what user code logs; it may also send entries by itself, with anything in them."""
    texts = {"message": str(entry.get("message", ""))[:LONGEST_TEXT]}
    if "code" in entry:
        texts["code"] = str(entry["code"])[:LONGEST_CODE]
    return {**entry, **texts}


def _limit_entries(
    logger: logging.Logger, entries: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Leave out the entries that a run has too many of, most errors excepted."""
    with _lock:
        budget = _budgets.get(logger)
        if budget is None or time.monotonic() - budget.begin > WINDOW_S:
            budget = _budgets[logger] = _Budget(MOST_ENTRIES)
        kept = [entry for entry in entries if budget.take(entry)]
        is_exceeded, budget.is_announced = budget.is_exceeded and not budget.is_announced, budget.is_exceeded
    yield from kept
    if is_exceeded:
        yield {"level": "warning", "message": TOO_MUCH}
