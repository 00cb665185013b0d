"""What serving leaves behind: usage and log entries, written now and then so that no tile waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.jobs import Entry
from odc_openeo.services import store

FLUSH_S: Final = 1.0
REPEAT_S: Final = 60.0
"""The same message is not logged again for so long: a map asks for dozens of tiles at once."""

MOST_KNOWN: Final = 10_000
_log = logging.getLogger(__name__)


@dataclass
class _Usage:
    tiles: int = 0
    nbytes: int = 0
    cpu_s: float = 0.0
    entries: list[Entry] = field(default_factory=list)


class Meter:
    """Counts for one process; safe for threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._waiting: defaultdict[UUID, _Usage] = defaultdict(_Usage)
        self._said: dict[tuple[UUID, str], float] = {}
        self._timer: threading.Timer | None = None

    def served(self, service: UUID, nbytes: int, cpu_s: float) -> None:
        """A tile was sent."""
        with self._lock:
            usage = self._waiting[service]
            usage.tiles += 1
            usage.nbytes += nbytes
            usage.cpu_s += cpu_s
            self._schedule()

    def said(self, service: UUID, entry: Entry) -> None:
        """There is something to tell the owner."""
        with self._lock:
            now, key = time.monotonic(), (service, f"{entry.level} {entry.message}")
            if now - self._said.get(key, -REPEAT_S) < REPEAT_S:
                return
            if len(self._said) >= MOST_KNOWN:
                self._said.clear()
            self._said[key] = now
            self._waiting[service].entries.append(entry)
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write what has gathered."""
        with self._lock:
            found, self._waiting = self._waiting, defaultdict(_Usage)
            self._timer = None
        for id_, usage in found.items():
            try:
                if usage.tiles:
                    store.count(self._config, id_, usage.tiles, usage.nbytes, usage.cpu_s)
                store.log(self._config, id_, usage.entries)
            except OpenEOError:
                # Counting is not worth failing for; the loss of the database shows elsewhere.
                _log.warning("usage of service %s was lost", id_)
