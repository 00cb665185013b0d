"""Run a job in its own process, keep it alive in the queue and record its outcome."""

from __future__ import annotations

import contextlib
import logging
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
from odc_openeo.errors import InfrastructureBusy, OpenEOError, PaymentRequired
from odc_openeo.jobs import LEVELS, Entry, queue
from odc_openeo.jobs.parts import PartUsage, record_split
from odc_openeo.jobs.queue import Claim
from odc_openeo.jobs.quotas import check_cpu_budget
from odc_openeo.jobs.usage import Amounts, add_usage, find_collections
from odc_openeo.runners.memory import MemoryWatch, memory_exceeded
from odc_openeo.storage import get_storage
from odc_openeo.telemetry.counts import add_count, pass_on
from odc_openeo.worker.cleaning import get_scratch_folder, remove_attempt
from odc_openeo.worker.heartbeats import Heartbeats
from odc_openeo.worker.messages import RunDone, RunFailed, RunSplit, RunUpdate

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.2
END_SECONDS: Final = 3.0
LONGEST_PAUSE: Final = 60.0
MOST_ENTRIES: Final = 10_000
"""Log entries kept per run."""

OUTCOMES: Final = {"RunDone": "finished", "RunSplit": "split", "RunFailed": "failed", "NoneType": "returned"}
"""Outcomes of recorded runs, by the type of the last message of the run."""


def _run_job(*arguments: Any) -> None:
    # A supervisor does not compute: without the libraries for it, it starts soon and needs little memory.
    from odc_openeo.worker.run import run_job

    run_job(*arguments)


@dataclass
class RunUsage:
    """Measured usage: CPU of the process and on the cluster, memory of the process over time, wall time."""

    start: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    cpu_s: float = 0.0
    cluster_cpu_s: float = 0.0
    mb_seconds: float = 0.0
    earlier_cpu_s: float | None = 0.0

    def sample_process(self, pid: int | None) -> None:
        """Measure the process now."""
        now = time.monotonic()
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu_s = times.user + times.system
                # A process that has run other parts before.
                self.earlier_cpu_s = cpu_s if self.earlier_cpu_s is None else self.earlier_cpu_s
                self.cpu_s = cpu_s - self.earlier_cpu_s
                self.mb_seconds += process.memory_info().rss / 1e6 * (now - self.last)
        self.last = now

    def sum_up(self) -> PartUsage:
        """Return the usage so far."""
        seconds = time.monotonic() - self.start
        return PartUsage(self.cpu_s + self.cluster_cpu_s, seconds, self.mb_seconds)

    def to_dict(self, stored: int = 0) -> dict[str, Any]:
        """Return the usage as the API shows it."""
        return self.sum_up().to_dict(stored)


@dataclass
class Supervision:
    """One run of one job, as seen by its worker."""

    config: Config
    claim: Claim
    context: ForkServerContext
    heartbeats: Heartbeats
    usage: RunUsage = field(default_factory=RunUsage)
    entries: list[Entry] = field(default_factory=list)
    logged: int = 0
    outcome: RunDone | RunFailed | RunSplit | None = None

    def run(self, stop: threading.Event) -> None:
        """Run the job until it ends, is no longer wanted, or ``stop`` is set."""
        self._announce_start()
        is_wanted = True
        self.outcome = self._find_refusal()
        if self.outcome is None:
            with self._start_process() as (process, pipe):
                is_wanted = self._watch_run(process, pipe, stop)
            if self.outcome is None and is_wanted:
                self.outcome = self._make_lost_failure(process.exitcode)
        if isinstance(self.outcome, RunFailed):
            self._log_failure(self.outcome)
        self.heartbeats.stop()
        is_stopped = stop.is_set() and not self._has_ended
        self.entries = self.heartbeats.take_entries()
        self._retry_until_recorded(self._return_job if is_stopped else self._record_outcome)
        self._remove_leftovers()

    def _announce_start(self) -> None:
        job = self.claim.job
        log.info("job %s: try %d", job.id, job.tries)
        self.add_message("info", f"The job has started (try {job.tries} of {self.config.job_tries})")

    def _find_refusal(self) -> RunFailed | None:
        """Find why the run may not begin: jobs that ran since it was queued may have used the budget."""
        try:
            check_cpu_budget(self.config, self.claim.job.user)
        except PaymentRequired as error:
            entry = Entry("error", error.message, db.now(), {"code": error.code})
            return RunFailed(entry, transient=False)
        except InfrastructureBusy as error:
            log.warning("job %s: its budget was not checked: %s", self.claim.job.id, error)
        return None

    @property
    def _has_ended(self) -> bool:
        return isinstance(self.outcome, RunDone | RunFailed | RunSplit)

    @contextlib.contextmanager
    def _start_process(self) -> Iterator[tuple[Any, Connection]]:
        ours, theirs = self.context.Pipe(duplex=False)
        local = get_storage(self.config).find_local_path(self.claim.folder)
        folder = local or get_scratch_folder(self.config) / str(self.claim.attempt)
        arguments = (self.config, self.claim.job, self.claim.folder, folder, theirs)
        process = self.context.Process(target=_run_job, args=arguments)
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.join()
            ours.close()

    def _watch_run(self, process: Any, pipe: Connection, stop: threading.Event) -> bool:
        """Wait until the run has ended (True), is no longer wanted (False), or ``stop`` is set."""
        memory = MemoryWatch(process.pid, self.config.job_memory)
        while self.outcome is None and not stop.is_set():
            alive = self._receive_messages(pipe)
            if memory.is_exceeded():
                self.outcome = self.outcome or self._make_memory_failure()
                return True
            self.usage.sample_process(process.pid)
            if not self.heartbeats.is_wanted:
                return False
            if not alive:
                return True
        return not stop.is_set() or self._has_ended

    def _receive_messages(self, pipe: Connection) -> bool:
        """Receive messages of the run for a moment; False when it has ended."""
        deadline = time.monotonic() + TICK_SECONDS
        try:
            while pipe.poll(max(deadline - time.monotonic(), 0)):
                message = pipe.recv()
                if isinstance(message, RunUpdate):
                    self._apply_update(message)
                else:
                    self.outcome = message
                    return False
                if time.monotonic() > deadline:
                    break
        except (EOFError, OSError):
            return False
        return True

    def _apply_update(self, update: RunUpdate) -> None:
        if update.entry is not None:
            self._add_entry(update.entry)
        self.heartbeats.progress = max(self.heartbeats.progress, update.progress or 0.0)
        self.usage.cluster_cpu_s = max(self.usage.cluster_cpu_s, update.cluster_cpu_s or 0.0)
        pass_on(update.counts)
        if update.partial_assets:
            self.heartbeats.publish(update.partial_assets)

    def _add_entry(self, entry: Entry) -> None:
        self.logged += 1
        if self.logged < MOST_ENTRIES:
            self.heartbeats.add_entry(entry)
        elif self.logged == MOST_ENTRIES:
            text = "Too many messages: further ones are not kept."
            self.heartbeats.add_entry(Entry("warning", text, db.now()))

    def add_message(self, level: str, message: str, **more: Any) -> None:
        """Add a message to the log of the job."""
        if LEVELS[level] >= LEVELS[self.claim.job.draft.log_level]:
            self.heartbeats.add_entry(Entry(level, message, db.now(), more))

    def _make_memory_failure(self) -> RunFailed:
        error = memory_exceeded(self.config.job_memory)
        return RunFailed(Entry("error", error.message, db.now(), {"code": error.code}), transient=False)

    def _make_lost_failure(self, status: int | None) -> RunFailed:
        reason = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        advice = "It probably needed more memory than available: choose a smaller extent or fewer bands."
        message = f"The process of the job ended unexpectedly ({reason}). {advice}"
        return RunFailed(Entry("error", message, db.now(), {"code": "WorkerLost"}), transient=True)

    def _record_outcome(self) -> bool:
        if self.outcome is None:
            return False
        if isinstance(self.outcome, RunDone):
            return self._record_success(self.outcome)
        if isinstance(self.outcome, RunSplit):
            return self._record_split(self.outcome)
        return self._record_failure(self.outcome)

    def _record_split(self, outcome: RunSplit) -> bool:
        return record_split(self.config, self.claim, outcome.plan, self.usage.sum_up(), self.entries)

    def _record_success(self, done: RunDone) -> bool:
        usage = self.usage.to_dict(sum(asset["file:size"] for asset in done.assets))
        last_entry = Entry("info", "The job has finished", db.now(), {"usage": usage})
        is_logged = self.claim.job.draft.log_level in ("debug", "info")
        entries = [*self.entries, last_entry] if is_logged else self.entries
        return queue.finish_run(self.config, self.claim, done.assets, done.details, usage, entries)

    def _log_failure(self, failed: RunFailed) -> None:
        job, code = self.claim.job, failed.entry.more.get("code")
        cause = failed.cause or failed.entry.message
        log.error("job %s of user %s failed (try %d, %s): %s", job.id, job.user, job.tries, code, cause)

    def _record_failure(self, failed: RunFailed) -> bool:
        tries, most = self.claim.job.tries, self.config.job_tries
        if failed.transient and (tries < most or not failed.counts):
            which_try = f" (try {tries} of {most})" if failed.counts else ""
            message = f"{failed.entry.message} The job is queued again{which_try}."
            entry = Entry("warning", message, failed.entry.time, failed.entry.more)
            entries, wait = [*self.entries, entry], self._compute_pause(failed)
            return queue.give_back(self.config, self.claim, entries, wait_s=wait, counts=failed.counts)
        return queue.fail_run(self.config, self.claim, self.usage.to_dict(), [*self.entries, failed.entry])

    def _compute_pause(self, failed: RunFailed) -> float:
        """Return seconds until the next try: more with each try, or with the time since queueing."""
        queued = self.claim.job.queued
        if failed.counts or queued is None:
            return min(2.0**self.claim.job.tries, LONGEST_PAUSE)
        return min(max((db.now() - queued).total_seconds() / 4, 1.0), LONGEST_PAUSE)

    def _return_job(self) -> bool:
        text = "The worker is shutting down; the job is queued again"
        is_logged = LEVELS["info"] >= LEVELS[self.claim.job.draft.log_level]
        entries = [*self.entries, Entry("info", text, db.now())] if is_logged else self.entries
        return queue.give_back(self.config, self.claim, entries, wait_s=0, counts=False)

    def _retry_until_recorded(self, record: Callable[[], bool]) -> None:
        """Record the end; retry while the database is unavailable, as long as the job is this worker's."""
        deadline = time.monotonic() + self.config.job_lost_after_s
        if record == self._return_job:
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
            outcome = type(self.outcome).__name__ if recorded else "obsolete"
            log.info("%s: %s", self._describe_run(), outcome)
            add_count("job_runs", outcome=OUTCOMES.get(outcome, outcome))
            add_count("job_cpu_seconds", self.usage.cpu_s + self.usage.cluster_cpu_s)
            self._add_usage()
            return

    def _describe_run(self) -> str:
        return f"job {self.claim.job.id}"

    def _add_usage(self) -> None:
        """Add what the run has taken to the usage of its owner, however it has ended."""
        job, done = self.claim.job, self.outcome
        stored = sum(asset["file:size"] for asset in done.assets) if isinstance(done, RunDone) else 0
        cpu_s, seconds = self.usage.cpu_s + self.usage.cluster_cpu_s, time.monotonic() - self.usage.start
        collections = find_collections(job.draft.process)
        add_usage(self.config, job.user, "job", collections, Amounts(1, cpu_s, seconds, stored))

    def _remove_leftovers(self) -> None:
        try:
            remove_attempt(self.config, self.claim.job.id, self.claim.attempt)
        except (OpenEOError, OSError) as error:
            log.warning("job %s: files could not be removed yet: %s", self.claim.job.id, error)
        with contextlib.suppress(OSError):
            folder = get_storage(self.config).find_local_path(queue.get_result_folder(self.claim.job.id))
            if folder is not None:
                Path(folder).rmdir()
