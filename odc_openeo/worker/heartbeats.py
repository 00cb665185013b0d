"""The signs of life of a run, sent by a thread of their own, whatever else its worker waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from odc_openeo.config import Config
from odc_openeo.db.logs import Entry
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.jobs import queue
from odc_openeo.jobs.queue import Claim, RunLock
from odc_openeo.telemetry.log_records import set_log_ids

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
MOST_SILENCE: Final = 0.7
"""The part of the time after which a worker is given up in which its run must have ended by itself."""


@dataclass
class Heartbeats:
    """Sends, once per second, that a run is alive, with its progress, log entries and partial results.

    Starting the process of a run, or receiving what it says, may take long on a machine under load. The
    thread also holds the lock of the run: other workers take a run whose lock is free for a dead one.
    """

    config: Config
    claim: Claim
    send_beat: Callable[[Config, Any, float, Sequence[Entry]], bool] = queue.send_heartbeat
    entries: list[Entry] = field(default_factory=list)
    progress: float = 0.0
    partial_assets: Sequence[Mapping[str, Any]] | None = None
    last_beat: float = field(default_factory=time.monotonic)
    _is_obsolete: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.lock = RunLock(self.config, self.claim)
        self._thread = threading.Thread(target=self._send_until_stopped, name="heartbeats", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.lock.release()

    def stop(self) -> None:
        """Send no more: the outcome of the run is to be recorded. The lock is held until the end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_wanted(self) -> bool:
        """Whether the run may go on: nobody has given it up, nor will before it could notice.

        This run must have ended before another worker may take the job.
        """
        silence = time.monotonic() - self.last_beat
        return not self._is_obsolete and silence < MOST_SILENCE * self.config.job_lost_after_s

    def add_entry(self, entry: Entry) -> None:
        """Add an entry to the log of the job, with the next heartbeat."""
        with self._guard:
            self.entries.append(entry)

    def publish(self, assets: Sequence[Mapping[str, Any]]) -> None:
        """Publish files as partial results, with the next heartbeat."""
        with self._guard:
            self.partial_assets = assets

    def take_entries(self) -> list[Entry]:
        """Return the entries that were not sent yet; they are forgotten here."""
        with self._guard:
            entries, self.entries = self.entries, []
        return entries

    def _send_until_stopped(self) -> None:
        set_log_ids(job=self.claim.job.id, user=self.claim.job.user)
        while not self._stop.is_set() and not self._is_obsolete:
            try:
                self._send()
            except InfrastructureBusy as error:
                log.warning("job %s: %s", self.claim.job.id, error)
            except Exception:
                log.exception("job %s: a heartbeat failed", self.claim.job.id)
            self._stop.wait(BEAT_SECONDS)

    def _send(self) -> None:
        self.lock.hold()
        with self._guard:
            assets, count = self.partial_assets, len(self.entries)
            entries = self.entries[:count]
        if assets is not None:
            queue.publish_partial_results(self.config, self.claim, assets)
        self._is_obsolete = not self.send_beat(self.config, self.claim, self.progress, entries)
        with self._guard:
            del self.entries[:count]
            self.partial_assets = None if self.partial_assets is assets else self.partial_assets
        self.last_beat = time.monotonic()
