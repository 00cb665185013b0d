"""Run parts of jobs as `supervisor` does whole jobs; one process runs parts of a job one after the other."""

from __future__ import annotations

import atexit
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.jobs import Entry, parts
from odc_openeo.jobs.claims import PartClaim
from odc_openeo.jobs.part_progress import find_parts_progress
from odc_openeo.jobs.usage import Amounts, add_usage, find_collections
from odc_openeo.storage import get_storage
from odc_openeo.worker.cleaning import (
    get_scratch_folder,
    remove_attempt,
    remove_part_attempt,
    remove_unused_parts,
)
from odc_openeo.worker.messages import PartTask, RunDone, RunFailed
from odc_openeo.worker.supervisor import LONGEST_PAUSE, Supervision

log = logging.getLogger(__name__)

MOST_PERMANENT_TRIES: Final = 2
"""Tries of a part whose error is its own: reading may fail by chance."""

REPORT_PERCENT: Final = 10
"""The progress is logged each time that so many more percent of the parts are done."""


def _run_parts(*arguments: Any) -> None:
    from odc_openeo.worker.part_run import run_parts

    run_parts(*arguments)


@dataclass
class PartProcess:
    """The process in which parts of one job run, kept from one part to the next."""

    config: Config
    context: ForkServerContext
    job: UUID | None = None
    process: Any = None
    pipe: Connection | None = None

    def __post_init__(self) -> None:
        # Else this process would wait for that one when it ends, and that one for its next part.
        atexit.register(self.stop)

    def prepare(self, claim: PartClaim) -> bool:
        """Have a process for the job of a part, perhaps the one of the last part; True if it is new."""
        if self.process is not None and self.job == claim.job.id and self.process.is_alive():
            return False
        self.stop()
        ours, theirs = self.context.Pipe()
        process: Any = self.context.Process(target=_run_parts, args=(self.config, claim.job, theirs))
        process.start()
        theirs.close()
        self.job, self.process, self.pipe = claim.job.id, process, ours
        return True

    def stop(self) -> None:
        """End the process, if there is one."""
        process, pipe = self.process, self.pipe
        self.job = self.process = self.pipe = None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()


@dataclass
class PartSupervision(Supervision):
    """One attempt at a part of a job, as seen by its worker."""

    holder: PartProcess = field(kw_only=True)

    @property
    def part(self) -> PartClaim:
        """The claim of the part."""
        assert isinstance(self.claim, PartClaim)
        return self.claim

    def _announce_start(self) -> None:
        log.info("%s: try %d", self._describe_run(), self.part.tries)
        self.add_message("debug", f"{self._name_part()} has started (try {self.part.tries})")

    def _name_part(self) -> str:
        return "The last part, which completes the results," if self.part.is_last else self._number_part()

    def _number_part(self) -> str:
        return f"Part {self.part.number + 1}"

    def _describe_run(self) -> str:
        return f"job {self.claim.job.id}, part {self.part.number + 1}"

    @contextlib.contextmanager
    def _start_process(self) -> Iterator[tuple[Any, Connection]]:
        local = get_storage(self.config).find_local_path(self.claim.folder)
        folder = local or get_scratch_folder(self.config) / str(self.claim.attempt)
        is_new = self.holder.prepare(self.part)
        self.usage.earlier_cpu_s = 0.0 if is_new else None
        process, pipe = self.holder.process, self.holder.pipe
        assert pipe is not None
        try:
            with contextlib.suppress(OSError):
                pipe.send(PartTask(self.part, Path(folder)))
            yield process, pipe
        finally:
            # What failed may have left anything behind in its process.
            if not isinstance(self.outcome, RunDone):
                self.holder.stop()

    def _record_success(self, done: RunDone) -> bool:
        usage = self.usage.sum_up()
        if self.part.is_last:
            return parts.finish_last_part(
                self.config, self.part, done.assets, done.details, usage, self.entries
            )
        recorded = parts.finish_part(self.config, self.part, done.assets, usage, self.entries)
        if recorded:
            self._report_progress()
        return recorded

    def _report_progress(self) -> None:
        """Log how far the job is, now and then."""
        progress = find_parts_progress(self.config, self.claim.job.id)
        if progress is None or self.claim.job.draft.log_level not in ("debug", "info"):
            return
        ended, total = progress.done + progress.left_out, progress.total
        step = max(total * REPORT_PERCENT // 100, 1)
        if ended % step and ended < total:
            return
        left = describe_time(progress.remaining_s) if ended < total else ""
        message = f"{ended} of {total} parts are done{left}"
        with contextlib.suppress(OpenEOError):
            parts.add_run_entries(self.config, self.part, [Entry("info", message, db.now())])

    def _record_failure(self, failed: RunFailed) -> bool:
        usage, tries = self.usage.sum_up(), self.part.tries
        most = self.config.job_tries if failed.transient else MOST_PERMANENT_TRIES
        if tries < min(most, self.config.job_tries) or not failed.counts:
            message = f"{self._number_part()}: {failed.entry.message} It is tried again."
            entry = Entry("warning", message, failed.entry.time, failed.entry.more)
            return parts.retry_part(
                self.config,
                self.part,
                usage,
                [*self.entries, entry],
                wait_s=min(2.0**tries, LONGEST_PAUSE),
                counts=failed.counts,
            )
        return parts.fail_part(self.config, self.part, usage, self.entries, failed.entry)

    def _return_job(self) -> bool:
        usage = self.usage.sum_up()
        return parts.retry_part(self.config, self.part, usage, self.entries, wait_s=0, counts=False)

    def _add_usage(self) -> None:
        job, done, usage = self.claim.job, self.outcome, self.usage.sum_up()
        stored = 0
        if isinstance(done, RunDone) and self.part.is_last:
            stored = sum(asset["file:size"] for asset in done.assets)
        amounts = Amounts(0, usage.cpu_s, usage.seconds, stored)
        add_usage(self.config, job.user, "job", find_collections(job.draft.process), amounts)

    def _remove_leftovers(self) -> None:
        try:
            remove_part_attempt(self.config, self.part)
            if not isinstance(self.outcome, RunDone):
                # The job may have ended meanwhile.
                remove_attempt(self.config, self.claim.job.id, self.part.run)
            elif self.part.is_last:
                remove_unused_parts(self.config, self.part, self.outcome.assets)
        except (OpenEOError, OSError) as error:
            log.warning("%s: files could not be removed yet: %s", self._describe_run(), error)


def describe_time(seconds: float | None) -> str:
    """Describe the time that is left, in whole minutes."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    return f"; about {minutes} minutes are left" if minutes > 1 else "; about a minute is left"
