"""Counts attempts in PostgreSQL, so that all processes of the service together keep the limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import TooManyRequests


def count(config: Config, limits: dict[str, int], period_s: float) -> None:
    """Count one more attempt for each key; TooManyRequests when one has more than its limit in the period."""
    now, period = db.now(), timedelta(seconds=period_s)
    with db.session(config) as session:
        # In one order, so that two requests cannot wait for each other.
        found = {key: _one_more(session, key, now, period) for key in sorted(limits)}
    ends = [since + period for key, (number, since) in found.items() if number > limits[key]]
    if ends:
        raise TooManyRequests(seconds=max(1, math.ceil((max(ends) - now).total_seconds())))


def _one_more(session: Session, key: str, now: datetime, period: timedelta) -> tuple[int, datetime]:
    row = insert(db.Attempt).values(key=key, count=1, since=now)
    over = db.Attempt.since < now - period
    changes = {
        "count": case((over, 1), else_=db.Attempt.count + 1),
        "since": case((over, now), else_=db.Attempt.since),
    }
    more = row.on_conflict_do_update(index_elements=["key"], set_=changes)
    changed = session.execute(more.returning(db.Attempt.count, db.Attempt.since)).one()
    return changed[0], changed[1]


def forget(config: Config, keys: Iterable[str], period_s: float, *, once: Iterable[str] = ()) -> None:
    """Forget all attempts of ``keys``, the last one of each of ``once``, and all that are over."""
    over = db.Attempt.since < db.now() - timedelta(seconds=period_s)
    gone = select(db.Attempt.key).where(over | db.Attempt.key.in_(list(keys)))
    with db.session(config) as session:
        free = gone.with_for_update(skip_locked=True)
        session.execute(delete(db.Attempt).where(db.Attempt.key.in_(free)))
        for key in sorted(once):
            less = case((db.Attempt.count > 0, db.Attempt.count - 1), else_=0)
            session.execute(update(db.Attempt).where(db.Attempt.key == key).values(count=less))
