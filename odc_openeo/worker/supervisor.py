"""Claims jobs, runs each in a process of its own, keeps it alive in the queue and records its end."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final

import psutil

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy, OpenEOError
from odc_openeo.jobs import LEVELS, Entry, queue
from odc_openeo.jobs.queue import Claim
from odc_openeo.runners.memory import MemoryWatch, memory_exceeded
from odc_openeo.storage import storage
from odc_openeo.worker.cleaning import clean, remove_attempt, scratch
from odc_openeo.worker.run import Done, Failed, News, run

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.4
TICK_SECONDS: Final = 0.2
BEAT_SECONDS: Final = 1.0
CLEAN_SECONDS: Final = 600.0
END_SECONDS: Final = 3.0
LONGEST_PAUSE: Final = 60.0
MOST_ENTRIES: Final = 10_000
"""Log entries that are kept of one run."""


def work(config: Config, stop: threading.Event) -> None:
    """Run jobs until ``stop`` is set; the job that runs then goes back to the queue."""
    context = multiprocessing.get_context("forkserver")
    # Everything heavy is imported once: a job's process starts in milliseconds.
    context.set_forkserver_preload([run.__module__])
    name = f"{socket.gethostname()}:{os.getpid()}"
    upkeep = Upkeep(config)
    log.info("worker %s waits for jobs", name)
    away = False
    while not stop.is_set():
        try:
            upkeep.when_due()
            claim = queue.claim(config, name)
        except InfrastructureBusy as error:
            log.log(logging.DEBUG if away else logging.WARNING, "%s", error)
            away = True
            stop.wait(BEAT_SECONDS)
            continue
        away = False
        if claim is None:
            stop.wait(POLL_SECONDS)
        else:
            Supervision(config, claim, context).run(stop)


@dataclass
class Upkeep:
    """What any worker does for all: take over lost jobs, remove old files."""

    config: Config
    recovered: float = 0.0
    cleaned: float = 0.0

    def when_due(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        if now - self.recovered > min(5.0, self.config.job_lost_after_s / 3):
            self.recovered = now
            again, failed = queue.recover(self.config)
            if again or failed:
                log.warning("lost workers: %d jobs queued again, %d failed", again, failed)
        if not self.cleaned or now - self.cleaned > CLEAN_SECONDS:
            self.cleaned = now
            try:
                clean(self.config)
            except (OpenEOError, OSError) as error:
                log.warning("old files could not be removed: %s", error)


@dataclass
class Usage:
    """Measured: CPU of the job's process and on the cluster, memory of the process over time, wall time."""

    start: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    cpu_s: float = 0.0
    cluster_cpu_s: float = 0.0
    mb_seconds: float = 0.0

    def sample(self, pid: int | None) -> None:
        """Look at the process."""
        now = time.monotonic()
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                self.cpu_s = times.user + times.system
                self.mb_seconds += process.memory_info().rss / 1e6 * (now - self.last)
        self.last = now

    def to_dict(self, stored: int = 0) -> dict[str, Any]:
        """As the API shows it."""
        found = {
            "cpu": {"value": round(self.cpu_s + self.cluster_cpu_s, 3), "unit": "cpu-seconds"},
            "duration": {"value": round(time.monotonic() - self.start, 3), "unit": "seconds"},
            "memory": {"value": round(self.mb_seconds, 1), "unit": "mb-seconds"},
        }
        return {**found, "storage": {"value": stored, "unit": "b"}} if stored else found


@dataclass
class Supervision:
    """One run of one job, seen from outside."""

    config: Config
    claim: Claim
    context: ForkServerContext
    usage: Usage = field(default_factory=Usage)
    entries: list[Entry] = field(default_factory=list)
    logged: int = 0
    progress: float = 0.0
    beaten: float = field(default_factory=time.monotonic)
    tried: float = field(default_factory=time.monotonic)
    part: Any = None
    outcome: Done | Failed | None = None

    def run(self, stop: threading.Event) -> None:
        """Run the job to its end, or until it is no longer wanted, or ``stop`` is set."""
        job = self.claim.job
        log.info("job %s: try %d", job.id, job.tries)
        self.log("info", f"The job starts (try {job.tries} of {self.config.job_tries})")
        with self._process() as (process, pipe):
            wanted = self._watch(process, pipe, stop)
        if self.outcome is None and wanted:
            self.outcome = self._gone(process.exitcode)
        self._until_recorded(self._stopped if stop.is_set() and not self._ended else self._end)
        self._remove_leftovers()

    @property
    def _ended(self) -> bool:
        return isinstance(self.outcome, Done | Failed)

    @contextlib.contextmanager
    def _process(self) -> Iterator[tuple[Any, Connection]]:
        ours, theirs = self.context.Pipe(duplex=False)
        local = storage(self.config).local(self.claim.folder)
        folder = local or scratch(self.config) / str(self.claim.attempt)
        arguments = (self.config, self.claim.job, self.claim.folder, folder, theirs)
        process = self.context.Process(target=run, args=arguments)
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.join()
            ours.close()

    def _watch(self, process: Any, pipe: Connection, stop: threading.Event) -> bool:
        """Return when the run has ended (True), is no longer wanted (False), or ``stop`` is set."""
        memory = MemoryWatch(process.pid, self.config.job_memory)
        while self.outcome is None and not stop.is_set():
            alive = self._listen(pipe)
            if memory.is_exceeded():
                self.outcome = self.outcome or self._over_memory()
                return True
            self.usage.sample(process.pid)
            if not self._beat():
                return False
            if not alive:
                return True
        return not stop.is_set() or self._ended

    def _listen(self, pipe: Connection) -> bool:
        """Take in what the run tells; False when it has ended."""
        try:
            while pipe.poll(TICK_SECONDS):
                message = pipe.recv()
                if isinstance(message, News):
                    self._take(message)
                else:
                    self.outcome = message
                    return False
        except (EOFError, OSError):
            return False
        return True

    def _take(self, news: News) -> None:
        if news.entry is not None:
            self._add(news.entry)
        self.progress = max(self.progress, news.progress or 0.0)
        self.usage.cluster_cpu_s = max(self.usage.cluster_cpu_s, news.cluster_cpu_s or 0.0)
        self.part = news.part or self.part

    def _add(self, entry: Entry) -> None:
        self.logged += 1
        if self.logged < MOST_ENTRIES:
            self.entries.append(entry)
        elif self.logged == MOST_ENTRIES:
            self.entries.append(Entry("warning", "Too many messages: the others are not kept.", db.now()))

    def log(self, level: str, message: str, **more: Any) -> None:
        """Tell the owner of the job."""
        if LEVELS[level] >= LEVELS[self.claim.job.draft.log_level]:
            self.entries.append(Entry(level, message, db.now(), more))

    def _beat(self) -> bool:
        """Keep the run alive and tell its news, once a second; False when it is not to go on."""
        now = time.monotonic()
        if now - self.tried < BEAT_SECONDS:
            return True
        self.tried = now
        try:
            if self.part is not None:
                queue.publish_part(self.config, self.claim, self.part)
            wanted = queue.beat(self.config, self.claim, self.progress, self.entries)
        except InfrastructureBusy as error:
            log.warning("job %s: %s", self.claim.job.id, error)
            # Before others may take the job, this run must have ended.
            return now - self.beaten < 0.7 * self.config.job_lost_after_s
        self.entries, self.part, self.beaten = [], None, time.monotonic()
        return wanted

    def _over_memory(self) -> Failed:
        error = memory_exceeded(self.config.job_memory)
        return Failed(Entry("error", error.message, db.now(), {"code": error.code}), transient=False)

    def _gone(self, status: int | None) -> Failed:
        reason = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        advice = "Most often it needed more memory than there is: choose a smaller extent or fewer bands."
        message = f"The process of the job ended unexpectedly ({reason}). {advice}"
        return Failed(Entry("error", message, db.now(), {"code": "WorkerLost"}), transient=True)

    def _end(self) -> bool:
        if self.outcome is None:
            return False
        if isinstance(self.outcome, Done):
            return self._finish(self.outcome)
        return self._fail(self.outcome)

    def _finish(self, done: Done) -> bool:
        usage = self.usage.to_dict(sum(asset["file:size"] for asset in done.assets))
        last = Entry("info", "The job has finished", db.now(), {"usage": usage})
        entries = [*self.entries, *([last] if self.claim.job.draft.log_level in ("debug", "info") else [])]
        return queue.finish(self.config, self.claim, done.assets, done.details, usage, entries)

    def _fail(self, failed: Failed) -> bool:
        tries, most = self.claim.job.tries, self.config.job_tries
        if failed.transient and (tries < most or not failed.counts):
            which = f" (try {tries} of {most})" if failed.counts else ""
            again = f"{failed.entry.message} The job is queued again{which}."
            entry = Entry("warning", again, failed.entry.time, failed.entry.more)
            entries, wait = [*self.entries, entry], self._pause(failed)
            return queue.give_back(self.config, self.claim, entries, wait_s=wait, counts=failed.counts)
        return queue.fail(self.config, self.claim, self.usage.to_dict(), [*self.entries, failed.entry])

    def _pause(self, failed: Failed) -> float:
        """Seconds until the next try: more with each one, or the longer the job waits for what is gone."""
        queued = self.claim.job.queued
        if failed.counts or queued is None:
            return min(2.0**self.claim.job.tries, LONGEST_PAUSE)
        return min(max((db.now() - queued).total_seconds() / 4, 1.0), LONGEST_PAUSE)

    def _stopped(self) -> bool:
        self.log("info", "The worker is shut down; the job is queued again")
        return queue.give_back(self.config, self.claim, self.entries, wait_s=0, counts=False)

    def _until_recorded(self, record: Callable[[], bool]) -> None:
        """Record the end, waiting for a lost database as long as the job is still this worker's."""
        deadline = time.monotonic() + self.config.job_lost_after_s
        if record == self._stopped:
            deadline = time.monotonic() + END_SECONDS
        while True:
            try:
                recorded = record()
            except InfrastructureBusy as error:
                log.warning("job %s: %s", self.claim.job.id, error)
                if time.monotonic() > deadline:
                    return
                time.sleep(0.5)
                continue
            log.info("job %s: %s", self.claim.job.id, type(self.outcome).__name__ if recorded else "unwanted")
            return

    def _remove_leftovers(self) -> None:
        try:
            remove_attempt(self.config, self.claim.job.id, self.claim.attempt)
        except (OpenEOError, OSError) as error:
            log.warning("job %s: files are left for later: %s", self.claim.job.id, error)
        with contextlib.suppress(OSError):
            folder = storage(self.config).local(queue.folder(self.claim.job.id))
            if folder is not None:
                Path(folder).rmdir()
