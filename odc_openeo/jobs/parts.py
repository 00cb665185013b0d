"""The book of parts: operations of workers on the parts of a job, with the rules of `queue` for its runs.

A part belongs to one run of its job: every write is conditional on the attempt at the part and on that run,
so that nothing can change a job that was cancelled, deleted or started again. A part counts once its files
are recorded here; an attempt that was lost leaves files that nothing refers to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.logs import Entry
from odc_openeo.jobs.claims import Claim, PartClaim
from odc_openeo.jobs.queue import DEAD_AFTER_S, compute_expiry, has_run_ended
from odc_openeo.jobs.store import add_log_entries

MOST_PERCENT = 99.0
"""Only finished jobs are at 100 %."""


@dataclass(frozen=True)
class PartUsage:
    """The usage of a run: CPU seconds, wall seconds, MB of memory times seconds."""

    cpu_s: float = 0.0
    seconds: float = 0.0
    mb_seconds: float = 0.0

    def to_dict(self, stored: int = 0) -> dict[str, Any]:
        """Return the usage as the API shows it; ``stored`` in bytes."""
        usage = {
            "cpu": {"value": round(self.cpu_s, 3), "unit": "cpu-seconds"},
            "duration": {"value": round(self.seconds, 3), "unit": "seconds"},
            "memory": {"value": round(self.mb_seconds, 1), "unit": "mb-seconds"},
        }
        return {**usage, "storage": {"value": stored, "unit": "b"}} if stored else usage


@dataclass(frozen=True)
class PlannedParts:
    """The plan of a job: the split without its parts, the parts, and the last one, each as JSON.

    ``soft_errors`` is the share of parts that may be left out; ``details`` say where the results come from.
    """

    split: Mapping[str, Any]
    parts: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    soft_errors: float = 0.0


def record_split(
    config: Config, claim: Claim, plan: PlannedParts, usage: PartUsage, entries: Sequence[Entry] = ()
) -> bool:
    """End the run that planned a job: any worker may take its parts now. False if the run is obsolete."""
    row = db.JobSplitRow(
        job_id=claim.job.id,
        attempt=claim.attempt,
        split=json.dumps(plan.split),
        details=db.dump_finite_json(plan.details),
        parts=len(plan.parts),
        soft_errors=plan.soft_errors,
        cpu_s=usage.cpu_s,
        seconds=usage.seconds,
        mb_seconds=usage.mb_seconds,
    )
    with db.session(config) as session:
        if not _lock_job(session, claim.job.id, claim.attempt):
            return False
        session.execute(delete(db.JobSplitRow).where(db.JobSplitRow.job_id == claim.job.id))
        session.add(row)
        session.flush()
        for number, part in enumerate([*plan.parts, {}]):
            is_last = number == len(plan.parts)
            session.add(
                db.JobPartRow(job_id=claim.job.id, number=number, is_last=is_last, part=json.dumps(part))
            )
        add_log_entries(session, claim.job.id, entries)
        return True


def send_part_heartbeat(
    config: Config, claim: PartClaim, progress: float, entries: Sequence[Entry] = ()
) -> bool:
    """Record a sign of life and log entries; False, without a write, if the attempt is obsolete."""
    part = db.JobPartRow
    run = select(db.JobRow.id).where(*_match_run(claim.job.id, claim.run)).exists()
    alive = update(part).where(*_match_part(claim), run).values(heartbeat=func.clock_timestamp())
    with db.session(config) as session:
        if session.scalar(alive.returning(part.number)) is None:
            return False
        add_log_entries(session, claim.job.id, entries)
        return True


def add_run_entries(config: Config, claim: PartClaim, entries: Sequence[Entry]) -> None:
    """Add entries to the log of the job, unless that run of it is obsolete."""
    with db.session(config) as session:
        if session.scalar(select(db.JobRow.id).where(*_match_run(claim.job.id, claim.run))) is not None:
            add_log_entries(session, claim.job.id, entries)


def finish_part(
    config: Config,
    claim: PartClaim,
    assets: Sequence[Mapping[str, Any]],
    usage: PartUsage,
    entries: Sequence[Entry] = (),
) -> bool:
    """Record a part as done: its files count from now on. False if the attempt is obsolete."""
    with db.session(config) as session:
        if not _lock_job(session, claim.job.id, claim.run):
            return False
        done = {"status": "done", "attempt": claim.attempt, "assets": json.dumps(list(assets))}
        if not _end_part(session, claim, usage, **done):
            return False
        add_log_entries(session, claim.job.id, entries)
        _publish_part(session, config, claim, assets)
        _update_progress(session, claim.job.id)
        return True


def finish_last_part(
    config: Config,
    claim: PartClaim,
    assets: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    usage: PartUsage,
    entries: Sequence[Entry] = (),
) -> bool:
    """Finish the job: publish all its results in one transaction. False if the attempt is obsolete.

    An entry with the usage of all parts is added to ``entries``.
    """
    stored = sum(int(asset.get("file:size", 0)) for asset in assets)
    values = {
        "expires": compute_expiry(config),
        "attempt": claim.run,
        "complete": True,
        "assets": json.dumps(list(assets)),
        "details": db.dump_finite_json(details),
        "nbytes": stored,
    }
    with db.session(config) as session:
        if not _lock_job(session, claim.job.id, claim.run):
            return False
        if not _end_part(session, claim, usage, status="done", attempt=claim.attempt):
            return False
        row = upsert(db.JobResult).values(job_id=claim.job.id, **values)
        session.execute(row.on_conflict_do_update(index_elements=["job_id"], set_=values))
        total = _sum_usage(session, claim.job.id).to_dict(stored)
        is_logged = claim.job.draft.log_level in ("debug", "info")
        last = Entry("info", "The job has finished", db.now(), {"usage": total})
        add_log_entries(session, claim.job.id, [*entries, *([last] if is_logged else [])])
        _end_job(session, claim, status="finished", progress=100.0, usage=total)
        return True


def retry_part(
    config: Config,
    claim: PartClaim,
    usage: PartUsage,
    entries: Sequence[Entry],
    *,
    wait_s: float,
    counts: bool = True,
) -> bool:
    """Let the part be tried again after ``wait_s``; ``counts``: this attempt is one of its tries."""
    due = func.clock_timestamp() + timedelta(seconds=wait_s)
    tries = db.JobPartRow.tries if counts else db.JobPartRow.tries - 1
    with db.session(config) as session:
        if not _lock_job(session, claim.job.id, claim.run):
            return False
        if not _end_part(session, claim, usage, status="waiting", not_before=due, tries=tries, ended=None):
            return False
        add_log_entries(session, claim.job.id, entries)
        return True


def fail_part(
    config: Config, claim: PartClaim, usage: PartUsage, entries: Sequence[Entry], error: Entry
) -> bool:
    """Give a part up: the job goes on without it if its soft errors allow that, else it ends."""
    with db.session(config) as session:
        if not _lock_job(session, claim.job.id, claim.run):
            return False
        if not _end_part(session, claim, usage, status="failed", error=error.message):
            return False
        add_log_entries(session, claim.job.id, entries)
        _leave_out(session, claim.job.id, claim.number, error)
        return True


def _leave_out(session: Session, job: UUID, number: int, error: Entry) -> None:
    """Leave a failed part out, or end the job with its error. The row of the job is locked."""
    part = db.JobPartRow
    split = session.get_one(db.JobSplitRow, job)
    failed = select(func.count()).where(part.job_id == job, part.status == "failed")
    count = session.scalar(failed) or 0
    if number < split.parts and count <= split.soft_errors * split.parts and count < split.parts:
        message = f"Part {number + 1} of {split.parts} is left out. {error.message}"
        add_log_entries(session, job, [Entry("warning", message, error.time, error.more)])
        _update_progress(session, job)
        return
    where = f"Part {number + 1} of {split.parts}: " if number < split.parts else ""
    add_log_entries(session, job, [Entry("error", f"{where}{error.message}", error.time, error.more)])
    ended = {"status": "error", "usage": _sum_usage(session, job).to_dict()}
    now = func.clock_timestamp()
    query = update(db.JobRow).where(db.JobRow.id == job)
    session.execute(query.values(updated=now, attempt=None, **ended))
    session.execute(delete(db.JobResult).where(db.JobResult.job_id == job))


def recover_lost_parts(config: Config) -> tuple[int, int]:
    """Take parts from workers that have ended or do not respond; returns (to be tried again, given up)."""
    quiet = timedelta(seconds=min(DEAD_AFTER_S, config.job_lost_after_s / 3))
    now, part = func.clock_timestamp(), db.JobPartRow
    silence = (now - part.heartbeat) > timedelta(seconds=config.job_lost_after_s)
    settled = now - func.pg_postmaster_start_time() > quiet
    suspects = (
        select(part, silence, settled)
        .join(db.JobSplitRow, db.JobSplitRow.job_id == part.job_id)
        .join(db.JobRow, db.JobRow.id == part.job_id)
        .where(part.status == "running", part.heartbeat < now - quiet)
        .where(db.JobRow.status == "running", db.JobRow.attempt == db.JobSplitRow.attempt)
        .order_by(part.job_id, part.number)
        .with_for_update(skip_locked=True, of=[db.JobRow, part])
    )
    again = given_up = 0
    with db.session(config) as session:
        for row, is_silent, is_settled in session.execute(suspects).all():
            if not (is_silent or (is_settled and has_run_ended(session, row.attempt))):
                continue
            is_spent = row.tries >= config.job_tries
            again, given_up = again + (not is_spent), given_up + is_spent
            row.attempt, row.status = None, "failed" if is_spent else "waiting"
            message = f"The worker that ran part {row.number + 1} was lost (try {row.tries})."
            entry = Entry("warning", message, db.now(), {"code": "WorkerLost"})
            row.error = message if is_spent else None
            session.flush()
            if is_spent:
                _leave_out(session, row.job_id, row.number, entry)
            else:
                add_log_entries(session, row.job_id, [entry])
    return again, given_up


def is_part_attempt_kept(config: Config, claim: PartClaim) -> bool:
    """Return whether an attempt at a part is the one that is done, or one that may go on."""
    part = db.JobPartRow
    is_wanted = select(db.JobRow.id).where(*_match_run(claim.job.id, claim.run)).exists()
    query = select(part.number).where(
        part.job_id == claim.job.id,
        part.attempt == claim.attempt,
        (part.status == "done") | ((part.status == "running") & is_wanted),
    )
    with db.autocommit_session(config) as session:
        return session.scalar(query) is not None


def _match_run(job: UUID, run: UUID) -> tuple[ColumnElement[bool], ...]:
    return db.JobRow.id == job, db.JobRow.attempt == run, db.JobRow.status == "running"


def _match_part(claim: PartClaim) -> tuple[ColumnElement[bool], ...]:
    part = db.JobPartRow
    return (
        part.job_id == claim.job.id,
        part.number == claim.number,
        part.attempt == claim.attempt,
        part.status == "running",
    )


def _lock_job(session: Session, job: UUID, run: UUID) -> bool:
    """Lock the row of the job; False if that run of it is obsolete."""
    return session.scalar(select(db.JobRow.id).where(*_match_run(job, run)).with_for_update()) is not None


def _end_part(session: Session, claim: PartClaim, usage: PartUsage, **values: Any) -> bool:
    part = db.JobPartRow
    sums = {
        "cpu_s": part.cpu_s + usage.cpu_s,
        "seconds": part.seconds + usage.seconds,
        "mb_seconds": part.mb_seconds + usage.mb_seconds,
    }
    changes = {"ended": func.clock_timestamp(), "attempt": None, **sums, **values}
    query = update(part).where(*_match_part(claim)).values(**changes).returning(part.number)
    return session.scalar(query) is not None


def _publish_part(
    session: Session, config: Config, claim: PartClaim, assets: Sequence[Mapping[str, Any]]
) -> None:
    """Count the files of a part as results; `results.find_results` lists those of all parts."""
    size = sum(int(asset.get("file:size", 0)) for asset in assets)
    row = upsert(db.JobResult).values(
        job_id=claim.job.id,
        attempt=claim.run,
        complete=False,
        assets="[]",
        details="{}",
        nbytes=size,
        expires=compute_expiry(config),
    )
    more = {"nbytes": db.JobResult.nbytes + size}
    session.execute(row.on_conflict_do_update(index_elements=["job_id"], set_=more))


def _update_progress(session: Session, job: UUID) -> None:
    part = db.JobPartRow
    ended = select(func.count()).where(part.job_id == job, part.status.in_(("done", "failed")))
    count = session.scalar(ended) or 0
    total = session.get_one(db.JobSplitRow, job).parts
    percent = min(100.0 * count / max(total, 1), MOST_PERCENT)
    session.execute(update(db.JobRow).where(db.JobRow.id == job).values(progress=percent))


def _sum_usage(session: Session, job: UUID) -> PartUsage:
    part, split = db.JobPartRow, session.get_one(db.JobSplitRow, job)
    sums = select(func.sum(part.cpu_s), func.sum(part.seconds), func.sum(part.mb_seconds))
    cpu_s, seconds, mb_seconds = session.execute(sums.where(part.job_id == job)).one()
    return PartUsage(
        split.cpu_s + (cpu_s or 0), split.seconds + (seconds or 0), split.mb_seconds + (mb_seconds or 0)
    )


def _end_job(session: Session, claim: PartClaim, **values: Any) -> None:
    query = update(db.JobRow).where(*_match_run(claim.job.id, claim.run))
    session.execute(query.values(updated=func.clock_timestamp(), attempt=None, **values))
