"""What workers do with jobs: claim, keep alive, log, end. PostgreSQL's clock is the only clock.

Each run of a job is an *attempt* with an id of its own. All a worker writes is conditional on that attempt
still being the job's: a worker that was given up, or whose job was cancelled, can change nothing any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.jobs.model import Entry, Job
from odc_openeo.jobs.store import job_of, log_columns

CLAIM_LOCK = 0x6F64636A
"""Advisory lock: claims are made one after the other, so that users' limits are kept exactly."""

CLAIM = text(
    """
    WITH waiting AS (
        SELECT DISTINCT ON (user_id) id, user_id, queued FROM openeo.jobs
        WHERE status = 'queued' AND (not_before IS NULL OR not_before <= now())
        ORDER BY user_id, queued
    ), turn AS (
        SELECT waiting.id, running.count, latest.started, waiting.queued FROM waiting,
        LATERAL (SELECT count(*) FROM openeo.jobs
                 WHERE user_id = waiting.user_id AND status = 'running') AS running,
        LATERAL (SELECT max(started) AS started FROM openeo.jobs
                 WHERE user_id = waiting.user_id) AS latest
        WHERE running.count < :per_user
    ), chosen AS (
        SELECT jobs.id FROM openeo.jobs JOIN turn ON turn.id = jobs.id
        WHERE jobs.status = 'queued'
        ORDER BY turn.count, turn.started NULLS FIRST, turn.queued
        LIMIT 1 FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE openeo.jobs SET status = 'running', attempt = :attempt, worker = :worker, tries = tries + 1,
        started = clock_timestamp(), updated = clock_timestamp(), heartbeat = clock_timestamp(), progress = 0
    FROM chosen WHERE jobs.id = chosen.id RETURNING jobs.id
    """
)
"""The next job in fair order: users with fewer running jobs first, then who waited longer since their last
start, then the order of queueing. Each user's jobs start in the order they were queued."""


@dataclass(frozen=True)
class Claim:
    """The right to run a job once."""

    job: Job
    attempt: UUID

    @property
    def folder(self) -> str:
        """Where in the storage the files of this attempt are."""
        return folder(self.job.id, self.attempt)


def folder(job: UUID, attempt: UUID | None = None) -> str:
    """Where in the storage the files of a job, or of one attempt, are."""
    return f"results/{job}/{attempt}" if attempt else f"results/{job}"


def claim(config: Config, worker: str) -> Claim | None:
    """Take the next job that is due, None if there is none (or its owner has enough running)."""
    attempt = uuid4()
    with db.session(config) as session:
        session.execute(select(func.pg_advisory_xact_lock(CLAIM_LOCK)))
        values = {"per_user": config.jobs_per_user, "attempt": attempt, "worker": worker}
        id_ = session.scalar(CLAIM, values)
        if id_ is None:
            return None
        row = session.get_one(db.Job, id_)
        # What an earlier attempt has left.
        session.execute(delete(db.JobResult).where(db.JobResult.job_id == id_))
        return Claim(job_of(row), attempt)


def beat(config: Config, claim: Claim, progress: float, entries: Sequence[Entry] = ()) -> bool:
    """A sign of life with news of a run; False if the run is no longer wanted, and nothing was written."""
    alive = (
        update(db.Job)
        .where(*_mine(claim))
        .values(heartbeat=func.clock_timestamp(), progress=func.greatest(db.Job.progress, progress))
        .returning(db.Job.id)
    )
    with db.session(config) as session:
        if session.scalar(alive) is None:
            return False
        _log(session, claim.job.id, entries)
        return True


def publish_part(config: Config, claim: Claim, assets: Sequence[Mapping[str, Any]]) -> bool:
    """Show files of an unfinished run, as partial results; False if the run is no longer wanted."""
    with db.session(config) as session:
        if not _hold(session, claim):
            return False
        _record(session, claim, assets, {}, _expiry(config), complete=False)
        return True


def finish(
    config: Config,
    claim: Claim,
    assets: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    usage: Mapping[str, Any],
    entries: Sequence[Entry] = (),
) -> bool:
    """End a run well: in one transaction its results become visible, all of them. False if unwanted."""
    with db.session(config) as session:
        if not _hold(session, claim):
            return False
        _record(session, claim, assets, details, _expiry(config), complete=True)
        _log(session, claim.job.id, entries)
        values = {"status": "finished", "progress": 100.0, "usage": dict(usage)}
        _end(session, claim, values)
        return True


def fail(config: Config, claim: Claim, usage: Mapping[str, Any], entries: Sequence[Entry]) -> bool:
    """End a run with an error, the last of ``entries``. False if the run is no longer wanted."""
    with db.session(config) as session:
        if not _hold(session, claim):
            return False
        _log(session, claim.job.id, entries)
        _end(session, claim, {"status": "error", "usage": dict(usage)})
        return True


def give_back(config: Config, claim: Claim, entries: Sequence[Entry], *, wait_s: float, counts: bool) -> bool:
    """Let the job be run again, after ``wait_s``; ``counts`` says whether this run is one of its tries."""
    with db.session(config) as session:
        if not _hold(session, claim):
            return False
        _log(session, claim.job.id, entries)
        session.execute(delete(db.JobResult).where(db.JobResult.job_id == claim.job.id))
        due = func.clock_timestamp() + timedelta(seconds=wait_s)
        tries = db.Job.tries if counts else db.Job.tries - 1
        _end(session, claim, {"status": "queued", "progress": 0, "not_before": due, "tries": tries})
        return True


def recover(config: Config) -> tuple[int, int]:
    """Take jobs from workers that give no sign of life: (queued again, failed after the last try)."""
    silent = func.clock_timestamp() - timedelta(seconds=config.job_lost_after_s)
    lost = (
        select(db.Job)
        .where(db.Job.status == "running", db.Job.heartbeat < silent)
        .with_for_update(skip_locked=True)
    )
    again = failed = 0
    with db.session(config) as session:
        for row in session.scalars(lost):
            last = row.tries >= config.job_tries
            again, failed = again + (not last), failed + last
            row.status = "error" if last else "queued"
            row.attempt, row.updated = None, db.now()
            session.execute(delete(db.JobResult).where(db.JobResult.job_id == row.id))
            _log(session, row.id, [_lost(row.tries, config.job_tries)])
    return again, failed


def _lost(tries: int, most: int) -> Entry:
    what = f"The worker that ran the job was lost (try {tries} of {most})."
    if tries < most:
        return Entry("warning", f"{what} The job is queued again.", db.now(), {"code": "WorkerLost"})
    advice = "The job may need more memory than there is: choose a smaller extent, or start it again."
    return Entry("error", f"{what} {advice}", db.now(), {"code": "WorkerLost"})


def expired(config: Config) -> list[UUID]:
    """Forget results whose time is over; the jobs they belong to."""
    query = delete(db.JobResult).where(db.JobResult.expires < func.now()).returning(db.JobResult.job_id)
    with db.session(config) as session:
        return list(session.scalars(query))


def known_attempts(config: Config, attempts: Iterable[UUID]) -> set[UUID]:
    """Those attempts that run or whose results are there."""
    wanted = list(attempts)
    running = select(db.Job.attempt).where(db.Job.attempt.in_(wanted))
    kept = select(db.JobResult.attempt).where(db.JobResult.attempt.in_(wanted))
    with db.session(config) as session:
        return {each for each in session.scalars(running.union(kept)) if each is not None}


def _mine(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return db.Job.id == claim.job.id, db.Job.attempt == claim.attempt, db.Job.status == "running"


def _hold(session: Session, claim: Claim) -> bool:
    """Lock the job's row if the run is still wanted."""
    return session.scalar(select(db.Job.id).where(*_mine(claim)).with_for_update()) is not None


def _end(session: Session, claim: Claim, values: Mapping[str, Any]) -> None:
    now = func.clock_timestamp()
    session.execute(update(db.Job).where(*_mine(claim)).values(updated=now, attempt=None, **values))


def _expiry(config: Config) -> Any:
    return func.clock_timestamp() + timedelta(days=config.result_lifetime_days)


def _record(
    session: Session,
    claim: Claim,
    assets: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    expires: Any,
    *,
    complete: bool,
) -> None:
    values = {
        "expires": expires,
        "attempt": claim.attempt,
        "complete": complete,
        "assets": json.dumps(list(assets)),
        "details": json.dumps(details),
        "nbytes": sum(int(asset.get("file:size", 0)) for asset in assets),
    }
    row = upsert(db.JobResult).values(job_id=claim.job.id, **values)
    session.execute(row.on_conflict_do_update(index_elements=["job_id"], set_=values))


def _log(session: Session, job: UUID, entries: Sequence[Entry]) -> None:
    rows = [{"job_id": job, **log_columns(entry)} for entry in entries]
    if rows:
        session.execute(insert(db.JobLog), rows)
