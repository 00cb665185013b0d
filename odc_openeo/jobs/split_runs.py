"""Runs of jobs in parts as an engine outside of the queue sees them: which are open, how far each part is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.logs import Entry
from odc_openeo.jobs.store import add_log_entries, cancel_matching_job
from odc_openeo.telemetry.log_records import record_event

UNFINISHED: Final = ("waiting", "running")


@dataclass(frozen=True)
class SplitRun:
    """A run of a job in parts that is under way.

    ``is_quiet``: no part runs though one is due and the job is not paused; nobody may be at work on it.
    """

    job: UUID
    run: UUID
    is_quiet: bool


@dataclass(frozen=True)
class UnfinishedParts:
    """The parts of a run that are neither done nor failed, by number; the last one is ``total``, if open."""

    numbers: tuple[int, ...]
    total: int


def list_split_runs(config: Config) -> list[SplitRun]:
    """List the runs of jobs in parts that are under way, the oldest first."""
    split, part = db.JobSplitRow, db.JobPartRow
    mine = part.job_id == split.job_id
    due = (part.not_before.is_(None)) | (part.not_before <= func.now())
    is_busy = select(part.number).where(mine, part.status == "running").exists()
    has_due = select(part.number).where(mine, part.status == "waiting", due).exists()
    is_quiet = split.paused.is_(False) & ~is_busy & has_due
    query = select(split.job_id, split.attempt, is_quiet).join(db.JobRow, db.JobRow.id == split.job_id)
    with db.autocommit_session(config) as session:
        rows = session.execute(query.where(*_match_open()).order_by(split.created)).all()
    return [SplitRun(row[0], row[1], row[2]) for row in rows]


def list_unfinished_parts(config: Config, job: UUID, run: UUID) -> UnfinishedParts | None:
    """List what is left to do of a run, None if the run is not under way."""
    split, part = db.JobSplitRow, db.JobPartRow
    is_open = select(split.parts).join(db.JobRow, db.JobRow.id == split.job_id)
    numbers = select(part.number).where(part.job_id == job, part.status.in_(UNFINISHED))
    with db.autocommit_session(config) as session:
        total = session.scalar(is_open.where(split.job_id == job, split.attempt == run, *_match_open()))
        if total is None:
            return None
        return UnfinishedParts(tuple(session.scalars(numbers.order_by(part.number))), total)


def find_part_status(config: Config, job: UUID, run: UUID, number: int) -> str | None:
    """Return the status of a part, None if its run has ended without it: canceled, failed, started again."""
    split, part = db.JobSplitRow, db.JobPartRow
    query = (
        select(part.status, db.JobRow.status, db.JobRow.attempt)
        .join(split, split.job_id == part.job_id)
        .join(db.JobRow, db.JobRow.id == part.job_id)
        .where(part.job_id == job, part.number == number, split.attempt == run)
    )
    with db.autocommit_session(config) as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    status, job_status, attempt = row
    is_open = job_status == "running" and attempt == run
    return status if is_open or status not in UNFINISHED else None


def find_job_status(config: Config, job: UUID, run: UUID) -> str | None:
    """Return the status of a job, None if it was deleted or its parts are those of another run."""
    query = select(db.JobRow.status).join(db.JobSplitRow, db.JobSplitRow.job_id == db.JobRow.id)
    with db.autocommit_session(config) as session:
        return session.scalar(query.where(db.JobRow.id == job, db.JobSplitRow.attempt == run))


def cancel_run(config: Config, job: UUID, run: UUID, reason: str) -> bool:
    """Cancel a job, with the reason in its log, unless that run of it has ended. What is done stays."""
    row = db.JobRow
    is_current = (row.id == job, row.status == "running", row.attempt == run)
    with db.session(config) as session:
        owner = session.scalar(select(row.user_id).where(*is_current).with_for_update())
        if owner is None:
            return False
        add_log_entries(session, job, [Entry("warning", reason, db.now())])
        cancel_matching_job(session, *is_current)
    record_event("job_canceled", job=job, owner=owner)
    return True


def _match_open() -> tuple[ColumnElement[bool], ...]:
    return db.JobRow.status == "running", db.JobRow.attempt == db.JobSplitRow.attempt
