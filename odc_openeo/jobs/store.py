"""Operations of users on their jobs. Every statement names the owner: jobs of others are invisible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.logs import LEVELS, Entry, make_entry, make_log_columns, read_logs
from odc_openeo.db.paging import Page, parse_place
from odc_openeo.errors import JobLocked, JobNotFound
from odc_openeo.jobs.model import BUSY, Job, JobDraft, JobSummary
from odc_openeo.telemetry.log_records import record_event

PageQuery = Select[UUID, str, str | None, float, datetime, datetime]
COLUMNS = (
    db.JobRow.id,
    db.JobRow.status,
    db.JobRow.title,
    db.JobRow.progress,
    db.JobRow.created,
    db.JobRow.updated,
)


def create_job(config: Config, user: UUID, draft: JobDraft, entries: Sequence[Entry] = ()) -> UUID:
    """Store a new job of a user, with entries of its log, and return its id."""
    row = db.JobRow(user_id=user, process=json.dumps(draft.process), extras=json.dumps(draft.extras))
    for name in ("title", "description", "plan", "budget", "log_level"):
        setattr(row, name, getattr(draft, name))
    with db.session(config) as session:
        session.add(row)
        session.flush()
        add_log_entries(session, row.id, entries)
        return row.id


def get_job(config: Config, user: UUID, id_: str) -> Job:
    """Return a job of a user; JobNotFound if they have none with this id."""
    with db.session(config) as session:
        rows = session.execute(
            select(db.JobRow, db.JobResult.expires)
            .outerjoin(db.JobResult, db.JobResult.job_id == db.JobRow.id)
            .where(*_match_owner(user, id_))
        ).one_or_none()
    if rows is None:
        raise JobNotFound(identifier=id_)
    return make_job(rows[0], rows[1])


def make_job(row: db.JobRow, unpublished: datetime | None = None) -> Job:
    """Make a job of a row of the table."""
    draft = JobDraft(
        process=json.loads(row.process),
        title=row.title,
        description=row.description,
        plan=row.plan,
        budget=row.budget,
        log_level=row.log_level,
        extras=json.loads(row.extras),
    )
    return Job(
        id=row.id,
        status=row.status,
        title=row.title,
        progress=row.progress,
        created=row.created,
        updated=row.updated,
        user=row.user_id,
        draft=draft,
        queued=row.queued,
        started=row.started,
        usage=row.usage,
        attempt=row.attempt,
        tries=row.tries,
        unpublished=unpublished,
    )


def list_jobs(
    config: Config, user: UUID, limit: int | None = None, after: str | None = None
) -> Page[JobSummary]:
    """List the jobs of a user, newest first: ``limit`` of them (None: all) from the place ``after``.

    Keyset pagination on an index that has all columns: the last page is as fast as the first.
    """
    query = make_page_query(user, limit, after)
    with db.session(config) as session:
        summaries = [JobSummary(*row) for row in session.execute(query)]
    if limit is None or len(summaries) <= limit:
        return Page(summaries)
    last = summaries[limit - 1]
    return Page(summaries[:limit], f"{last.created.isoformat()}_{last.id}")


def make_page_query(user: UUID, limit: int | None, after: str | None) -> PageQuery:
    """Return the statement of `list_jobs`; it selects one job more than ``limit``, to detect more."""
    query = select(*COLUMNS).where(db.JobRow.user_id == user)
    query = query.order_by(db.JobRow.created.desc(), db.JobRow.id.desc())
    if after is not None:
        query = query.where(tuple_(db.JobRow.created, db.JobRow.id) < tuple_(*parse_place(after)))
    return query if limit is None else query.limit(limit + 1)


def update_job(
    config: Config, user: UUID, id_: str, changes: Mapping[str, Any], entries: Sequence[Entry] = ()
) -> None:
    """Change fields of the `JobDraft` of a job; ``extras`` are added to the stored ones.

    ``entries`` are added to its log.

    Raises:
        JobNotFound: the user has no such job.
        JobLocked: it is queued or running.
    """
    values = dict(changes)
    if "process" in values:
        values["process"] = json.dumps(values["process"])
    with _lock_job(config, user, id_) as (session, row):
        if row.status in BUSY:
            raise JobLocked
        if "extras" in values:
            values["extras"] = json.dumps({**json.loads(row.extras), **values["extras"]})
        for name, value in values.items():
            setattr(row, name, value)
        session.flush()
        add_log_entries(session, row.id, entries)


def add_log_entries(session: Session, job: UUID, entries: Sequence[Entry]) -> None:
    """Add entries to the log of a job."""
    rows = [{"job_id": job, **make_log_columns(entry)} for entry in entries]
    if rows:
        session.execute(insert(db.JobLog), rows)


@contextmanager
def _lock_job(config: Config, user: UUID, id_: str) -> Iterator[tuple[Session, db.JobRow]]:
    """Lock the row of a job until the block ends."""
    with db.session(config) as session:
        row = session.scalar(select(db.JobRow).where(*_match_owner(user, id_)).with_for_update())
        if row is None:
            raise JobNotFound(identifier=id_)
        yield session, row


def delete_job(config: Config, user: UUID, id_: str) -> UUID:
    """Delete a job in any state, with logs and the record of its results; return its id.

    A worker that runs it notices and stops. The caller removes the files.
    """
    query = delete(db.JobRow).where(*_match_owner(user, id_)).returning(db.JobRow.id)
    with db.session(config) as session:
        deleted_id = session.scalar(query)
    if deleted_id is None:
        raise JobNotFound(identifier=id_)
    record_event("job_deleted", job=deleted_id, owner=user)
    return deleted_id


def start_job(config: Config, user: UUID, id_: str, entries: Sequence[Entry] = ()) -> UUID | None:
    """Queue a job and discard logs and results of an earlier run. No effect if it is queued or running.

    ``entries`` begin its log. Returns the attempt whose files must be removed now, if there is one.
    """
    queued = (
        update(db.JobRow)
        .where(*_match_owner(user, id_), db.JobRow.status.not_in(BUSY))
        .values(
            status="queued",
            queued=func.now(),
            updated=func.now(),
            started=None,
            progress=0,
            usage=None,
            tries=0,
            not_before=None,
            attempt=None,
        )
        .returning(db.JobRow.id)
    )
    with db.session(config) as session:
        if session.scalar(queued) is None:
            _check_exists(session, user, id_)
            return None
        job = UUID(id_)
        session.execute(delete(db.JobLog).where(db.JobLog.job_id == job))
        session.execute(delete(db.JobSplitRow).where(db.JobSplitRow.job_id == job))
        discarded = delete(db.JobResult).where(db.JobResult.job_id == job).returning(db.JobResult.attempt)
        previous_run = session.scalar(discarded)
        add_log_entries(session, job, entries)
    record_event("job_started", job=job, owner=user)
    return previous_run


def cancel_job(config: Config, user: UUID, id_: str) -> None:
    """Take a job out of the queue, or stop it. No effect if it is neither queued nor running.

    It becomes ``canceled`` if it was running and has partial results, else ``created``.
    """
    with db.session(config) as session:
        canceled_id = cancel_matching_job(session, *_match_owner(user, id_), db.JobRow.status.in_(BUSY))
        if canceled_id is None:
            _check_exists(session, user, id_)
    if canceled_id is not None:
        record_event("job_canceled", job=canceled_id, owner=user)


def cancel_matching_job(session: Session, *conditions: ColumnElement[bool]) -> UUID | None:
    """Cancel the job that meets the conditions, None if none does."""
    partial = select(db.JobResult.job_id).where(db.JobResult.job_id == db.JobRow.id).exists()
    query = (
        update(db.JobRow)
        .where(*conditions)
        .values(
            status=case(((db.JobRow.status == "running") & partial, "canceled"), else_="created"),
            updated=func.now(),
            attempt=None,
            not_before=None,
        )
        .returning(db.JobRow.id)
    )
    return session.scalar(query)


def _check_exists(session: Session, user: UUID, id_: str) -> None:
    if session.scalar(select(db.JobRow.id).where(*_match_owner(user, id_))) is None:
        raise JobNotFound(identifier=id_)


def _match_owner(user: UUID, id_: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    try:
        return db.JobRow.id == UUID(id_), db.JobRow.user_id == user
    except ValueError as error:
        raise JobNotFound(identifier=id_) from error


# --- Logs ----------------------------------------------------------------------------------------


def list_logs(
    config: Config, job: Job, level: str = "debug", limit: int | None = None, after: str | None = None
) -> Page[Entry]:
    """List log entries of a job by time: ``limit`` of them (None: all) after the entry ``after``."""
    return read_logs(config, db.JobLog, db.JobLog.job_id == job.id, level, limit, after)


def get_last_error(config: Config, job: Job) -> Entry:
    """Return the last error that a job has logged."""
    query = select(db.JobLog).where(db.JobLog.job_id == job.id, db.JobLog.level == LEVELS["error"])
    with db.session(config) as session:
        row = session.scalar(query.order_by(db.JobLog.id.desc()).limit(1))
    return make_entry(row) if row else Entry("error", "The batch job failed.", job.updated)
