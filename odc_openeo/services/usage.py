"""Usage and log entries of services, written to the database in batches so that no tile waits for it."""

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
"""Seconds for which a message is not logged again: a map requests dozens of tiles at once."""

MOST_REMEMBERED: Final = 10_000
_log = logging.getLogger(__name__)


@dataclass
class _PendingUsage:
    tiles: int = 0
    nbytes: int = 0
    cpu_s: float = 0.0
    entries: list[Entry] = field(default_factory=list)


class UsageMeter:
    """Collects usage and log entries for one process; thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._pending: defaultdict[UUID, _PendingUsage] = defaultdict(_PendingUsage)
        self._logged: dict[tuple[UUID, str], float] = {}
        self._timer: threading.Timer | None = None

    def count_tile(self, service: UUID, nbytes: int, cpu_s: float) -> None:
        """Count a tile that was sent."""
        with self._lock:
            usage = self._pending[service]
            usage.tiles += 1
            usage.nbytes += nbytes
            usage.cpu_s += cpu_s
            self._schedule_flush()

    def log_entry(self, service: UUID, entry: Entry) -> None:
        """Add an entry to the log of a service, unless it was logged recently."""
        with self._lock:
            now, key = time.monotonic(), (service, f"{entry.level} {entry.message}")
            if now - self._logged.get(key, -REPEAT_S) < REPEAT_S:
                return
            if len(self._logged) >= MOST_REMEMBERED:
                self._logged.clear()
            self._logged[key] = now
            self._pending[service].entries.append(entry)
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write all pending usage and entries."""
        with self._lock:
            pending, self._pending = self._pending, defaultdict(_PendingUsage)
            self._timer = None
        for id_, usage in pending.items():
            try:
                if usage.tiles:
                    store.add_usage(self._config, id_, usage.tiles, usage.nbytes, usage.cpu_s)
                store.add_log_entries(self._config, id_, usage.entries)
            except OpenEOError:
                # Usage counts are not worth a failure; an unavailable database is reported elsewhere.
                _log.warning("usage of service %s was lost", id_)
