"""Claims of workers: the next job, or the next part of a job that runs in parts, in fair order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.jobs.model import Job
from odc_openeo.jobs.quotas import describe_job_limits, get_default_job_limit
from odc_openeo.jobs.store import make_job

CLAIM_LOCK: Final = 0x6F64636A
"""Advisory lock: work is claimed one after the other, so that the limits of users are kept exactly."""

CHOOSE: Final = text(
    """
    WITH waiting AS (
        SELECT DISTINCT ON (user_id) id, user_id, queued FROM openeo.jobs
        WHERE :jobs AND status = 'queued' AND (not_before IS NULL OR not_before <= now())
        ORDER BY user_id, queued
    ), job_units AS (
        SELECT waiting.id AS job_id, CAST(NULL AS integer) AS number, waiting.user_id, waiting.queued,
            CAST(0 AS bigint) AS siblings
        FROM waiting, LATERAL (
            SELECT count(*) FROM openeo.jobs LEFT JOIN openeo.job_splits AS s
            ON s.job_id = jobs.id AND s.attempt = jobs.attempt
            WHERE user_id = waiting.user_id AND status = 'running' AND s.paused IS NOT TRUE) AS running
        WHERE running.count < COALESCE(
            (SELECT max(value::int) FROM jsonb_each_text(CAST(:limits AS jsonb)), openeo.users
             WHERE users.id = waiting.user_id AND key = ANY(users.roles || users.grants)), :per_user)
    ), splits AS (
        SELECT s.job_id, s.last_started, j.user_id, j.queued, s.paused FROM openeo.job_splits AS s
        JOIN openeo.jobs AS j ON j.id = s.job_id AND j.status = 'running' AND j.attempt = s.attempt
    ), part_units AS (
        SELECT s.job_id, p.number, s.user_id, s.queued, running.count AS siblings FROM splits AS s,
        LATERAL (SELECT number, is_last FROM openeo.job_parts AS p
                 WHERE p.job_id = s.job_id AND status = 'waiting'
                     AND (not_before IS NULL OR not_before <= now())
                 ORDER BY number LIMIT 1) AS p,
        LATERAL (SELECT count(*) FROM openeo.job_parts AS p
                 WHERE p.job_id = s.job_id AND status = 'running') AS running
        WHERE :parts AND NOT s.paused AND (NOT p.is_last OR running.count = 0 AND NOT EXISTS (
            SELECT FROM openeo.job_parts AS other
            WHERE other.job_id = s.job_id AND other.status = 'waiting' AND NOT other.is_last))
    ), units AS (SELECT * FROM job_units UNION ALL SELECT * FROM part_units)
    SELECT units.job_id, units.number FROM units,
    LATERAL (SELECT count(*) FROM openeo.jobs LEFT JOIN openeo.job_splits AS s
             ON s.job_id = jobs.id AND s.attempt = jobs.attempt
             WHERE jobs.user_id = units.user_id AND status = 'running' AND s.job_id IS NULL) AS runs,
    LATERAL (SELECT count(*) FROM splits JOIN openeo.job_parts AS p
             ON p.job_id = splits.job_id AND p.status = 'running'
             WHERE splits.user_id = units.user_id) AS part_runs,
    LATERAL (SELECT max(started) AS started FROM openeo.jobs
             WHERE user_id = units.user_id) AS latest,
    LATERAL (SELECT max(last_started) AS started FROM splits
             WHERE splits.user_id = units.user_id) AS latest_part
    ORDER BY runs.count + part_runs.count, GREATEST(latest.started, latest_part.started) NULLS FIRST,
        units.number IS NOT NULL, units.siblings, units.queued
    LIMIT 1
    """
)
"""Chooses the next job or part in fair order: users with fewer runs first (of jobs and of parts), then those
whose last start was longest ago. Of one user jobs that may begin come before parts, in the order they were
queued; their jobs in parts take turns."""


@dataclass(frozen=True)
class Claim:
    """The right of a worker to run a job once."""

    job: Job
    attempt: UUID

    @property
    def folder(self) -> str:
        """The folder of the storage with the files of this attempt."""
        return get_result_folder(self.job.id, self.attempt)


@dataclass(frozen=True)
class PartClaim(Claim):
    """The right of a worker to run a part of a job once; ``attempt`` is that of the part.

    ``split`` and ``part`` are JSON as they were planned; ``run`` is the attempt of the job.
    """

    run: UUID
    number: int
    is_last: bool
    tries: int
    split: str
    part: str

    @property
    def folder(self) -> str:
        """The folder of the storage with the files of this attempt."""
        return get_part_folder(self.job.id, self.run, self.attempt)


def get_result_folder(job: UUID, attempt: UUID | None = None) -> str:
    """Return the folder of the storage with the files of a job, or of one attempt."""
    return f"results/{job}/{attempt}" if attempt else f"results/{job}"


def get_part_folder(job: UUID, run: UUID, attempt: UUID) -> str:
    """Return the folder of the storage with the files of one attempt at a part."""
    return f"{get_result_folder(job, run)}/.parts/{attempt}"


def claim_job(config: Config, worker: str) -> Claim | None:
    """Claim the next job that is due, None if there is none or the limits of all owners are reached."""
    return claim_work(config, worker, parts=False)


def claim_work(config: Config, worker: str, *, jobs: bool = True, parts: bool = True) -> Claim | None:
    """Claim the next job or part that is due (or one of either kind), None if there is none."""
    limits = {"per_user": get_default_job_limit(config), "limits": describe_job_limits(config)}
    with db.session(config) as session:
        session.execute(select(func.pg_advisory_xact_lock(CLAIM_LOCK)))
        unit = session.execute(CHOOSE, {**limits, "jobs": jobs, "parts": parts}).one_or_none()
        if unit is None:
            return None
        if unit.number is None:
            return _begin_job(session, unit.job_id, worker)
        return _begin_part(session, unit.job_id, unit.number, worker)


def claim_part(config: Config, job: UUID, number: int, worker: str) -> PartClaim | None:
    """Claim one part of a job, None if it is not due or the job is paused."""
    split, part = db.JobSplitRow, db.JobPartRow
    is_open = (
        select(split.job_id)
        .join(db.JobRow, db.JobRow.id == split.job_id)
        .where(split.job_id == job, db.JobRow.status == "running", db.JobRow.attempt == split.attempt)
        .where(split.paused.is_(False))
    )
    unfinished = select(part.number).where(
        part.job_id == job, part.is_last.is_(False), part.status.in_(("waiting", "running"))
    )
    with db.session(config) as session:
        session.execute(select(func.pg_advisory_xact_lock(CLAIM_LOCK)))
        if session.scalar(is_open) is None:
            return None
        row = session.get(part, (job, number))
        if row is None or (row.is_last and session.scalar(unfinished.limit(1)) is not None):
            return None
        return _begin_part(session, job, number, worker)


def _begin_job(session: Session, id_: UUID, worker: str) -> Claim | None:
    query = select(db.JobRow).where(db.JobRow.id == id_, db.JobRow.status == "queued")
    row = session.scalar(query.with_for_update(skip_locked=True))
    if row is None:
        return None
    attempt, now = uuid4(), session.scalars(select(func.clock_timestamp())).one()
    row.status, row.attempt, row.worker, row.tries = "running", attempt, worker, row.tries + 1
    row.started = row.updated = row.heartbeat = now
    row.progress = 0.0
    # Results and parts of an earlier attempt.
    session.execute(delete(db.JobResult).where(db.JobResult.job_id == id_))
    session.execute(delete(db.JobSplitRow).where(db.JobSplitRow.job_id == id_))
    session.flush()
    return Claim(make_job(row), attempt)


def _begin_part(session: Session, job: UUID, number: int, worker: str) -> PartClaim | None:
    part = db.JobPartRow
    due = (part.not_before.is_(None)) | (part.not_before <= func.now())
    query = select(part).where(part.job_id == job, part.number == number, part.status == "waiting", due)
    row = session.scalar(query.with_for_update(skip_locked=True))
    if row is None:
        return None
    split = session.get_one(db.JobSplitRow, job)
    attempt, now = uuid4(), session.scalars(select(func.clock_timestamp())).one()
    row.status, row.attempt, row.worker, row.tries = "running", attempt, worker, row.tries + 1
    row.started = row.heartbeat = split.last_started = now
    session.flush()
    owner = make_job(session.get_one(db.JobRow, job))
    return PartClaim(owner, attempt, split.attempt, number, row.is_last, row.tries, split.split, row.part)
