"""Operations of workers on jobs: claim, keep alive, log, end. Only the clock of PostgreSQL is used.

Each run of a job is an *attempt* with its own id. Every write of a worker is conditional on its attempt still
being the current one: a worker that was given up, or whose job was cancelled, can no longer change anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.logs import Entry
from odc_openeo.jobs.claims import Claim as Claim
from odc_openeo.jobs.claims import claim_job as claim_job
from odc_openeo.jobs.claims import get_result_folder as get_result_folder
from odc_openeo.jobs.store import add_log_entries

DEAD_AFTER_S = 10.0
"""Seconds of silence after which the lock of a run decides whether its worker has ended."""


def send_heartbeat(config: Config, claim: Claim, progress: float, entries: Sequence[Entry] = ()) -> bool:
    """Record a sign of life, progress and log entries; False, without a write, if the run is obsolete."""
    alive = (
        update(db.JobRow)
        .where(*_match_claim(claim))
        .values(heartbeat=func.clock_timestamp(), progress=func.greatest(db.JobRow.progress, progress))
        .returning(db.JobRow.id)
    )
    with db.session(config) as session:
        if session.scalar(alive) is None:
            return False
        add_log_entries(session, claim.job.id, entries)
        return True


def publish_partial_results(config: Config, claim: Claim, assets: Sequence[Mapping[str, Any]]) -> bool:
    """Publish files of an unfinished run as partial results; False if the run is obsolete."""
    with db.session(config) as session:
        if not _lock_run(session, claim):
            return False
        _record_results(session, claim, assets, {}, compute_expiry(config), complete=False)
        return True


def finish_run(
    config: Config,
    claim: Claim,
    assets: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    usage: Mapping[str, Any],
    entries: Sequence[Entry] = (),
) -> bool:
    """End a run successfully: publish all its results in one transaction. False if the run is obsolete."""
    with db.session(config) as session:
        if not _lock_run(session, claim):
            return False
        _record_results(session, claim, assets, details, compute_expiry(config), complete=True)
        add_log_entries(session, claim.job.id, entries)
        values = {"status": "finished", "progress": 100.0, "usage": dict(usage)}
        _end_run(session, claim, values)
        return True


def fail_run(config: Config, claim: Claim, usage: Mapping[str, Any], entries: Sequence[Entry]) -> bool:
    """End a run with an error, the last of ``entries``. False if the run is obsolete."""
    with db.session(config) as session:
        if not _lock_run(session, claim):
            return False
        add_log_entries(session, claim.job.id, entries)
        _end_run(session, claim, {"status": "error", "usage": dict(usage)})
        return True


def give_back(config: Config, claim: Claim, entries: Sequence[Entry], *, wait_s: float, counts: bool) -> bool:
    """Queue the job again, after ``wait_s``; ``counts``: this run counts as one of its tries."""
    with db.session(config) as session:
        if not _lock_run(session, claim):
            return False
        add_log_entries(session, claim.job.id, entries)
        session.execute(delete(db.JobResult).where(db.JobResult.job_id == claim.job.id))
        due = func.clock_timestamp() + timedelta(seconds=wait_s)
        tries = db.JobRow.tries if counts else db.JobRow.tries - 1
        _end_run(session, claim, {"status": "queued", "progress": 0, "not_before": due, "tries": tries})
        return True


class RunLock:
    """The advisory lock of a run, on a connection of its own: it is free as soon as its worker has ended.

    Behind a pool that shares connections between transactions the lock may stay; then only silence counts.
    """

    def __init__(self, config: Config, claim: Claim) -> None:
        self._config, self._key = config, _make_lock_key(claim.attempt)
        self._connection: Connection | None = None

    def hold(self) -> None:
        """Take the lock, or check that it is still held.

        Raises:
            InfrastructureBusy: the database cannot be reached.
        """
        with db.as_infrastructure_busy():
            try:
                if self._connection is None:
                    engine = db.get_engine(self._config).execution_options(isolation_level="AUTOCOMMIT")
                    self._connection = engine.connect()
                    self._connection.execute(select(func.pg_try_advisory_lock(self._key)))
                else:
                    self._connection.execute(text("SELECT 1"))
            except Exception:
                self.release()
                raise

    def release(self) -> None:
        """Close the connection, and the lock with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not back to the pool, where it would keep the lock.
            connection.invalidate()
            connection.close()


def _make_lock_key(attempt: UUID) -> int:
    return int.from_bytes(attempt.bytes[:8], "big", signed=True)


def recover_lost_jobs(config: Config) -> tuple[int, int]:
    """Take jobs from workers that have ended or do not respond; returns (queued again, failed for good).

    A worker that holds the lock of its run is alive, however slow: it is given up after a long silence only.
    """
    quiet = timedelta(seconds=min(DEAD_AFTER_S, config.job_lost_after_s / 3))
    now = func.clock_timestamp()
    silence = (now - db.JobRow.heartbeat) > timedelta(seconds=config.job_lost_after_s)
    # After the database has started, workers need a moment to take their locks again.
    settled = now - func.pg_postmaster_start_time() > quiet
    suspects = (
        select(db.JobRow, silence, settled)
        .where(db.JobRow.status == "running", db.JobRow.heartbeat < now - quiet)
        # The parts of a job have workers of their own, see `recover_lost_parts`.
        .where(~_has_parts())
        .with_for_update(skip_locked=True, of=db.JobRow)
    )
    requeued = failed = 0
    with db.session(config) as session:
        for row, is_silent, is_settled in session.execute(suspects).all():
            if not (is_silent or (is_settled and has_run_ended(session, row.attempt))):
                continue
            is_last = row.tries >= config.job_tries
            requeued, failed = requeued + (not is_last), failed + is_last
            row.status = "error" if is_last else "queued"
            row.attempt, row.updated = None, db.now()
            session.execute(delete(db.JobResult).where(db.JobResult.job_id == row.id))
            add_log_entries(session, row.id, [_make_lost_entry(row.tries, config.job_tries)])
    return requeued, failed


def _has_parts() -> ColumnElement[bool]:
    split = db.JobSplitRow
    query = select(split.job_id).where(split.job_id == db.JobRow.id, split.attempt == db.JobRow.attempt)
    return query.exists()


def has_run_ended(session: Session, attempt: UUID | None) -> bool:
    """Whether nobody holds the lock of a run."""
    return attempt is None or bool(
        session.scalar(select(func.pg_try_advisory_xact_lock(_make_lock_key(attempt))))
    )


def _make_lost_entry(tries: int, most: int) -> Entry:
    message = f"The worker that ran the job was lost (try {tries} of {most})."
    if tries < most:
        return Entry("warning", f"{message} The job is queued again.", db.now(), {"code": "WorkerLost"})
    advice = "The job may need more memory than available: choose a smaller extent, or start it again."
    return Entry("error", f"{message} {advice}", db.now(), {"code": "WorkerLost"})


@dataclass(frozen=True)
class QueueState:
    """Jobs by status, seconds that the oldest job which is due has waited, and workers that run jobs."""

    counts: Mapping[str, int]
    age_s: float
    workers: int


def read_queue_state(config: Config) -> QueueState:
    """Return the state of the queue."""
    due = func.greatest(db.JobRow.queued, func.coalesce(db.JobRow.not_before, db.JobRow.queued))
    age = func.max(func.extract("epoch", func.clock_timestamp() - due))
    is_due = (db.JobRow.status == "queued") & (due <= func.clock_timestamp())
    with db.autocommit_session(config) as session:
        counts = session.execute(select(db.JobRow.status, func.count()).group_by(db.JobRow.status)).all()
        age_s = session.scalar(select(age).where(is_due))
        running = select(func.count(db.JobRow.worker.distinct())).where(db.JobRow.status == "running")
        workers = session.scalar(running)
    return QueueState({row[0]: row[1] for row in counts}, float(age_s or 0), workers or 0)


def delete_expired_results(config: Config) -> list[UUID]:
    """Delete the records of expired results; returns their jobs."""
    query = delete(db.JobResult).where(db.JobResult.expires < func.now()).returning(db.JobResult.job_id)
    with db.session(config) as session:
        return list(session.scalars(query))


def delete_results_without_files(config: Config, exists: Callable[[str], bool]) -> int:
    """Delete the records of results with missing files; ``exists`` is called with keys of the storage."""
    deleted = 0
    with db.session(config) as session:
        for row in session.scalars(select(db.JobResult)).all():
            folder = get_result_folder(row.job_id, row.attempt)
            assets = json.loads(row.assets)
            if not all(exists(f"{folder}/{asset.get('path', asset['name'])}") for asset in assets):
                session.delete(row)
                deleted += 1
    return deleted


def find_live_attempts(config: Config, attempts: Iterable[UUID]) -> set[UUID]:
    """Return the attempts that are running or have results."""
    ids = list(attempts)
    running = select(db.JobRow.attempt).where(db.JobRow.attempt.in_(ids))
    kept = select(db.JobResult.attempt).where(db.JobResult.attempt.in_(ids))
    with db.session(config) as session:
        return {id_ for id_ in session.scalars(running.union(kept)) if id_ is not None}


def _match_claim(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return db.JobRow.id == claim.job.id, db.JobRow.attempt == claim.attempt, db.JobRow.status == "running"


def _lock_run(session: Session, claim: Claim) -> bool:
    """Lock the row of the job; False if the run is obsolete."""
    return session.scalar(select(db.JobRow.id).where(*_match_claim(claim)).with_for_update()) is not None


def _end_run(session: Session, claim: Claim, values: Mapping[str, Any]) -> None:
    now = func.clock_timestamp()
    session.execute(update(db.JobRow).where(*_match_claim(claim)).values(updated=now, attempt=None, **values))


def compute_expiry(config: Config) -> Any:
    return func.clock_timestamp() + timedelta(days=config.result_lifetime_days)


def _record_results(
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
