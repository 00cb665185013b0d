"""Jobs as operators see them: of all users, by state and age; cancel and queue again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import JobNotFound
from odc_openeo.jobs import store
from odc_openeo.jobs.model import BUSY


@dataclass(frozen=True)
class JobFilter:
    """Which jobs: of a user (name or id), with one of the states, created at least so long ago."""

    user: str | None = None
    states: Sequence[str] = ()
    older: timedelta | None = None


@dataclass(frozen=True)
class JobEntry:
    """A job in the operator's list."""

    id: UUID
    user: str
    user_id: UUID
    status: str
    title: str | None
    created: datetime
    updated: datetime
    progress: float
    tries: int
    worker: str | None


def list_all_jobs(config: Config, which: JobFilter, limit: int | None = None) -> list[JobEntry]:
    """List jobs of all users, the newest first."""
    row, user = db.JobRow, db.User
    columns = (row.status, row.title, row.created, row.updated, row.progress, row.tries, row.worker)
    query = select(row.id, user.name, user.id, *columns).join(user, user.id == row.user_id)
    if which.user is not None:
        query = query.where(_match_user(which.user))
    if which.states:
        query = query.where(row.status.in_(which.states))
    if which.older is not None:
        query = query.where(row.created < func.now() - which.older)
    with db.autocommit_session(config) as session:
        rows = session.execute(query.order_by(row.created.desc(), row.id.desc()).limit(limit)).all()
    return [JobEntry(*tuple(entry)) for entry in rows]


def _match_user(who: str) -> ColumnElement[bool]:
    try:
        return db.User.id == UUID(who)
    except ValueError:
        # Users of a provider can choose any name, even that of somebody else.
        return (db.User.name == who) & db.User.issuer.is_(None)


def cancel_any_job(config: Config, id_: str) -> bool:
    """Cancel a job of any user; False if it was neither queued nor running. JobNotFound without one."""
    owner, status = _find_job(config, id_)
    store.cancel_job(config, owner, id_)
    return status in BUSY


def requeue_job(config: Config, id_: str) -> tuple[UUID | None, bool]:
    """Queue a job of any user again from its beginning; the one that is running is stopped first.

    Returns:
        The attempt whose files must be removed, if there is one, and whether the job was queued (one that
        waits stays as it is).
    """
    owner, status = _find_job(config, id_)
    if status == "queued":
        return None, False
    store.cancel_job(config, owner, id_)
    return store.start_job(config, owner, id_), True


def _find_job(config: Config, id_: str) -> tuple[UUID, str]:
    try:
        query = select(db.JobRow.user_id, db.JobRow.status).where(db.JobRow.id == UUID(id_))
    except ValueError as error:
        raise JobNotFound(identifier=id_) from error
    with db.autocommit_session(config) as session:
        row = session.execute(query).first()
    if row is None:
        raise JobNotFound(identifier=id_)
    return row[0], row[1]
