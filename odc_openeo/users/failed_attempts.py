"""Counts failed attempts in PostgreSQL, so that limits hold across all processes of the service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta

from sqlalchemy import case, delete, select
from sqlalchemy.dialects.postgresql import insert

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import TooManyRequests


def check(config: Config, limits: Mapping[str, int], period_s: float) -> None:
    """Raise TooManyRequests if a key has reached its limit of failures within a period since the first."""
    now, period = db.now(), timedelta(seconds=period_s)
    recent = (db.Attempt.since >= now - period) & db.Attempt.key.in_(list(limits))
    with db.session(config) as session:
        attempts = session.scalars(select(db.Attempt).where(recent)).all()
    ends = [attempt.since + period for attempt in attempts if attempt.count >= limits[attempt.key]]
    if ends:
        raise TooManyRequests(seconds=max(1, math.ceil((max(ends) - now).total_seconds())))


def count(config: Config, keys: Iterable[str], period_s: float) -> None:
    """Count a failure for each key."""
    now = db.now()
    over = db.Attempt.since < now - timedelta(seconds=period_s)
    changes = {
        "count": case((over, 1), else_=db.Attempt.count + 1),
        "since": case((over, now), else_=db.Attempt.since),
    }
    with db.session(config) as session:
        # In sorted order, so that two requests cannot deadlock.
        for key in sorted(keys):
            row = insert(db.Attempt).values(key=key, count=1, since=now)
            session.execute(row.on_conflict_do_update(index_elements=["key"], set_=changes))


def forget(config: Config, key: str, period_s: float) -> None:
    """Forget the failures of a key, and all that have expired."""
    over = db.Attempt.since < db.now() - timedelta(seconds=period_s)
    gone = select(db.Attempt.key).where(over | (db.Attempt.key == key)).with_for_update(skip_locked=True)
    with db.session(config) as session:
        session.execute(delete(db.Attempt).where(db.Attempt.key.in_(gone)))
