"""What users do with their jobs. Every statement names the owner: others' jobs do not exist."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    case,
    func,
    select,
    tuple_,
)
from sqlalchemy import (
    delete as delete_,
)
from sqlalchemy import (
    update as update_,
)
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import JobLocked, JobNotFound, RequestInvalid
from odc_openeo.jobs.model import BUSY, LEVELS, Entry, Job, JobDraft, Page, Summary, T

PageQuery = Select[UUID, str, str | None, float, datetime, datetime]
COLUMNS = (db.Job.id, db.Job.status, db.Job.title, db.Job.progress, db.Job.created, db.Job.updated)


def create(config: Config, user: UUID, draft: JobDraft) -> UUID:
    """Store a new job of a user; its id."""
    row = db.Job(user_id=user, process=json.dumps(draft.process), extras=json.dumps(draft.extras))
    for name in ("title", "description", "plan", "budget", "log_level"):
        setattr(row, name, getattr(draft, name))
    with db.session(config) as session:
        session.add(row)
        session.flush()
        return row.id


def get(config: Config, user: UUID, id_: str) -> Job:
    """A job of a user; JobNotFound if they have none of this id."""
    with db.session(config) as session:
        found = session.execute(
            select(db.Job, db.JobResult.expires)
            .outerjoin(db.JobResult, db.JobResult.job_id == db.Job.id)
            .where(*_own(user, id_))
        ).one_or_none()
    if found is None:
        raise JobNotFound(identifier=id_)
    return job_of(found[0], found[1])


def job_of(row: db.Job, unpublished: datetime | None = None) -> Job:
    """A row of the table as a job."""
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
) -> Page[Summary]:
    """A user's jobs, the newest first: ``limit`` of them (None: all) from the place ``after``.

    Read from the index alone, page by page from where the last one ended: the last page is as quick as
    the first.
    """
    query = page_query(user, limit, after)
    with db.session(config) as session:
        found = [Summary(*row) for row in session.execute(query)]
    if limit is None or len(found) <= limit:
        return Page(found)
    last = found[limit - 1]
    return Page(found[:limit], f"{last.created.isoformat()}_{last.id}")


def page_query(user: UUID, limit: int | None, after: str | None) -> PageQuery:
    """The statement of `list_jobs`; asks for one job more than wanted, to see whether there are more."""
    query = select(*COLUMNS).where(db.Job.user_id == user)
    query = query.order_by(db.Job.created.desc(), db.Job.id.desc())
    if after is not None:
        query = query.where(tuple_(db.Job.created, db.Job.id) < tuple_(*place(after)))
    return query if limit is None else query.limit(limit + 1)


def place(after: str) -> tuple[datetime, UUID]:
    """Where a list by time and id goes on; RequestInvalid if that is no such place."""
    time, _, id_ = after.partition("_")
    try:
        return datetime.fromisoformat(time), UUID(id_)
    except ValueError as error:
        raise RequestInvalid(
            reason="the place in the list is unknown: follow the link 'next' of a page."
        ) from error


def update(config: Config, user: UUID, id_: str, changes: Mapping[str, Any]) -> None:
    """Change what the user says of a job: fields of `JobDraft`; ``extras`` are added to those it has.

    Raises:
        JobNotFound: the user has no such job.
        JobLocked: it is queued or running.
    """
    values = dict(changes)
    if "process" in values:
        values["process"] = json.dumps(values["process"])
    with _locked(config, user, id_) as (session, row):
        if row.status in BUSY:
            raise JobLocked
        if "extras" in values:
            values["extras"] = json.dumps({**json.loads(row.extras), **values["extras"]})
        for name, value in values.items():
            setattr(row, name, value)
        session.flush()


@contextmanager
def _locked(config: Config, user: UUID, id_: str) -> Iterator[tuple[Session, db.Job]]:
    """The job with its row locked until the block ends."""
    with db.session(config) as session:
        row = session.scalar(select(db.Job).where(*_own(user, id_)).with_for_update())
        if row is None:
            raise JobNotFound(identifier=id_)
        yield session, row


def delete(config: Config, user: UUID, id_: str) -> UUID:
    """Delete a job, whatever it is doing, with logs and the record of its results; its id.

    A worker that runs it finds out and stops. The files are for the caller to remove.
    """
    query = delete_(db.Job).where(*_own(user, id_)).returning(db.Job.id)
    with db.session(config) as session:
        found = session.scalar(query)
    if found is None:
        raise JobNotFound(identifier=id_)
    return found


def start(config: Config, user: UUID, id_: str) -> UUID | None:
    """Queue a job; logs and results of an earlier run are discarded. No effect if it is queued or running.

    Returns the attempt whose files are to be removed now, if there is one.
    """
    queued = (
        update_(db.Job)
        .where(*_own(user, id_), db.Job.status.not_in(BUSY))
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
        .returning(db.Job.id)
    )
    with db.session(config) as session:
        if session.scalar(queued) is None:
            _must_exist(session, user, id_)
            return None
        job = UUID(id_)
        session.execute(delete_(db.JobLog).where(db.JobLog.job_id == job))
        return session.scalar(
            delete_(db.JobResult).where(db.JobResult.job_id == job).returning(db.JobResult.attempt)
        )


def cancel(config: Config, user: UUID, id_: str) -> None:
    """Take a job out of the queue, or stop it. No effect if it is neither queued nor running.

    It is ``canceled`` if it was running and some of its results are there, else ``created``.
    """
    partial = select(db.JobResult.job_id).where(db.JobResult.job_id == db.Job.id).exists()
    query = (
        update_(db.Job)
        .where(*_own(user, id_), db.Job.status.in_(BUSY))
        .values(
            status=case(((db.Job.status == "running") & partial, "canceled"), else_="created"),
            updated=func.now(),
            attempt=None,
            not_before=None,
        )
        .returning(db.Job.id)
    )
    with db.session(config) as session:
        if session.scalar(query) is None:
            _must_exist(session, user, id_)


def _must_exist(session: Session, user: UUID, id_: str) -> None:
    if session.scalar(select(db.Job.id).where(*_own(user, id_))) is None:
        raise JobNotFound(identifier=id_)


def _own(user: UUID, id_: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    try:
        return db.Job.id == UUID(id_), db.Job.user_id == user
    except ValueError as error:
        raise JobNotFound(identifier=id_) from error


# --- Logs ----------------------------------------------------------------------------------------


def list_logs(
    config: Config, job: Job, level: str = "debug", limit: int | None = None, after: str | None = None
) -> Page[Entry]:
    """Log entries of a job in order of time: ``limit`` of them (None: all) after the entry ``after``."""
    return read_logs(config, db.JobLog, db.JobLog.job_id == job.id, level, limit, after)


def read_logs(
    config: Config,
    table: type[db.JobLog] | type[db.ServiceLog],
    where: ColumnElement[bool],
    level: str,
    limit: int | None,
    after: str | None,
) -> Page[Entry]:
    """Entries of a table of logs, as `list_logs` has them."""
    query = select(table).where(where, table.level >= LEVELS[level])
    if after:
        if not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise RequestInvalid(reason=f"offset '{after}' is no id of a log entry.")
        query = query.where(table.id > int(after))
    query = query.order_by(table.id)
    return read_page(config, query, limit, _entry, lambda entry: str(entry.id))


def read_page(
    config: Config,
    query: Select[Any],
    limit: int | None,
    of_row: Callable[[Any], T],
    place_of: Callable[[T], str],
) -> Page[T]:
    """A part of an ordered list; asks for one more than wanted, to see whether there are more."""
    with db.session(config) as session:
        rows: Iterable[Any] = session.scalars(query if limit is None else query.limit(limit + 1))
        found = [of_row(row) for row in rows]
    shown = found[:limit]
    return Page(shown, place_of(shown[-1]) if len(found) > len(shown) else None)


def log_columns(entry: Entry) -> dict[str, Any]:
    """An entry as any table of logs keeps it."""
    return {
        "level": LEVELS[entry.level],
        "time": entry.time,
        "message": entry.message.replace("\0", ""),
        "entry": json.dumps(entry.more),
    }


def last_error(config: Config, job: Job) -> Entry:
    """The last error that a job has logged."""
    query = select(db.JobLog).where(db.JobLog.job_id == job.id, db.JobLog.level == LEVELS["error"])
    with db.session(config) as session:
        row = session.scalar(query.order_by(db.JobLog.id.desc()).limit(1))
    return _entry(row) if row else Entry("error", "The batch job failed.", job.updated)


def _entry(row: db.JobLog | db.ServiceLog) -> Entry:
    level = next(name for name, value in LEVELS.items() if value == row.level)
    return Entry(level, row.message, row.time, json.loads(row.entry), row.id)
