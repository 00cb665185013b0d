"""The log entries of user code: from wherever it runs into the log of the request or job.

Functions run in threads of the process that evaluates the graph, or in dask workers. In a worker the entries
are sent to the process that computes on the cluster.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from odc_openeo.compute import cluster

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

_loggers: weakref.WeakValueDictionary[str, logging.Logger] = weakref.WeakValueDictionary()
_counts: dict[logging.Logger, tuple[float, int]] = {}
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
    for entry in _limit_entries(logger, list(entries)):
        level = LEVELS.get(str(entry.get("level")), logging.INFO)
        extra: dict[str, Any] = {"code": str(entry.get("code", CODE)), "path": tuple(path)}
        if "data" in entry:
            extra["data"] = entry["data"]
        logger.log(level, "%s", entry.get("message", ""), extra=extra)


def _limit_entries(logger: logging.Logger, entries: list[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Leave out the entries that a run has too many of, all errors excepted."""
    now = time.monotonic()
    with _lock:
        begin, count = _counts.get(logger, (now, 0))
        begin, count = (now, 0) if now - begin > WINDOW_S else (begin, count)
        _counts[logger] = begin, count + len(entries)
    left = max(MOST_ENTRIES - count, 0)
    more = entries[left:]
    if more and left:
        message = (
            f"User code has logged {MOST_ENTRIES} entries within an hour; more are left out, but for errors."
        )
        more = [{"level": "warning", "message": message}, *more]
    return [
        *entries[:left],
        *(e for i, e in enumerate(more) if (i == 0 and left) or e.get("level") == "error"),
    ]
