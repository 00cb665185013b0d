"""The state of a job in parts: its progress, its files so far; pause and resume."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Float, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import JobNotFound

RECENT_PARTS: Final = 200
"""Parts by which the speed of reading is measured."""


@dataclass(frozen=True)
class PartsProgress:
    """Counts of the parts of a job by state; ``remaining_s`` is None until a part is done."""

    total: int
    done: int
    running: int
    left_out: int
    paused: bool
    remaining_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the progress as the API shows it."""
        remaining = {} if self.remaining_s is None else {"remaining_seconds": round(self.remaining_s)}
        counts = {"total": self.total, "done": self.done, "running": self.running, "left_out": self.left_out}
        return {**counts, "paused": self.paused, **remaining}


def find_parts_progress(config: Config, job: UUID) -> PartsProgress | None:
    """Return the progress of a job; None if it does not run in parts (yet)."""
    part = db.JobPartRow
    seconds = func.avg(func.extract("epoch", part.ended - part.started)).filter(part.status == "done")
    query = select(part.status, func.count(), seconds).where(part.job_id == job, part.is_last.is_(False))
    with db.session(config) as session:
        split = session.get(db.JobSplitRow, job)
        rows = session.execute(query.group_by(part.status)).all()
    if split is None:
        return None
    counts = {row[0]: row[1] for row in rows}
    mean = next((float(row[2]) for row in rows if row[2] is not None), None)
    running = counts.get("running", 0)
    waiting = counts.get("waiting", 0) + running / 2
    remaining = None if mean is None else mean * waiting / max(running, 1)
    return PartsProgress(
        split.parts, counts.get("done", 0), running, counts.get("failed", 0), split.paused, remaining
    )


def list_part_assets(config: Config, job: UUID, *, internal: bool = False) -> list[dict[str, Any]]:
    """List the files of the parts of a job that are done, in the order of parts.

    ``internal``: those of which the last part makes the results, each with the number of its part, instead of
    those that are results.
    """
    part = db.JobPartRow
    query = select(part.number, part.assets).where(part.job_id == job, part.status == "done")
    with db.autocommit_session(config) as session:
        rows = session.execute(query.order_by(part.number)).all()
    assets = [{**asset, "part": number} for number, text in rows for asset in json.loads(text)]
    return [asset for asset in assets if bool(asset.get("internal")) is internal]


def list_left_out(config: Config, job: UUID) -> list[tuple[int, str, str]]:
    """List the failed parts of a job: number, part as JSON, reason."""
    part = db.JobPartRow
    query = select(part.number, part.part, part.error).where(part.job_id == job, part.status == "failed")
    with db.autocommit_session(config) as session:
        rows = session.execute(query.order_by(part.number)).all()
    return [(row[0], row[1], row[2] or "") for row in rows]


def find_origin(config: Config, job: UUID) -> dict[str, Any]:
    """Return what the results say about their origin, as it was planned."""
    with db.autocommit_session(config) as session:
        return dict(json.loads(session.get_one(db.JobSplitRow, job).details))


def pause_any_job(config: Config, id_: str, *, paused: bool) -> bool:
    """Pause a job of any user, or let it go on: parts that run now end. False if it doesn't run in parts.

    Raises:
        JobNotFound: there is no such job.
    """
    try:
        job = UUID(id_)
    except ValueError as error:
        raise JobNotFound(identifier=id_) from error
    split = db.JobSplitRow
    is_running = select(db.JobRow.id).where(db.JobRow.id == job, db.JobRow.status == "running").exists()
    query = update(split).where(split.job_id == job, is_running).values(paused=paused)
    with db.session(config) as session:
        if session.get(db.JobRow, job) is None:
            raise JobNotFound(identifier=id_)
        return session.scalar(query.returning(split.job_id)) is not None


def list_parts(config: Config, job: UUID) -> dict[int, str]:
    """List the parts of a job but the last one, as JSON by number."""
    part = db.JobPartRow
    query = select(part.number, part.part).where(part.job_id == job, part.is_last.is_(False))
    with db.autocommit_session(config) as session:
        return {row[0]: row[1] for row in session.execute(query.order_by(part.number))}


@dataclass(frozen=True)
class ReadingRates:
    """Bytes that a worker reads and reduces in a second, and in one of CPU time; None: never measured."""

    per_second: float | None
    per_cpu_second: float | None


def find_reading_rates(config: Config) -> ReadingRates:
    """Return the speed of one worker, by the latest parts of jobs that are done."""
    part = db.JobPartRow
    read = cast(cast(part.part, JSONB)["input_bytes"].astext, Float)
    latest = (
        select(read.label("read"), part.cpu_s, part.started, part.ended)
        .where(part.status == "done", part.is_last.is_(False))
        .order_by(part.ended.desc())
        .limit(RECENT_PARTS)
        .subquery()
    )
    busy = func.sum(func.extract("epoch", latest.c.ended - latest.c.started))
    with db.autocommit_session(config) as session:
        sums = select(func.sum(latest.c.read), busy, func.sum(latest.c.cpu_s))
        total, *times = session.execute(sums).one()
    return ReadingRates(*[float(total) / float(spent) if total and spent else None for spent in times])
