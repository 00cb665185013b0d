"""Usage of users by day, kind of run and collections, for reports and budgets."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import Insert, insert

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError

Kind = Literal["job", "result", "service"]
Grouping = Literal["user", "collection", "month"]

MOST_COLLECTIONS: Final = 20
LONGEST_NAME: Final = 100
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Amounts:
    """Runs (tiles of services), CPU time and wall time in seconds, bytes of results."""

    runs: float = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    nbytes: float = 0

    def __add__(self, more: Amounts) -> Amounts:
        return Amounts(*(getattr(self, f.name) + getattr(more, f.name) for f in fields(self)))

    def divide(self, parts: int) -> Amounts:
        """Return the share of each of several parts; each has all of the runs."""
        return Amounts(self.runs, self.cpu_s / parts, self.seconds / parts, self.nbytes / parts)


def find_collections(process: Mapping[str, Any]) -> list[str]:
    """Find the collections that a process names in ``load_collection``, sorted."""
    names: set[str] = set()
    waiting: list[Any] = [process]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            arguments = value.get("arguments")
            if value.get("process_id") == "load_collection" and isinstance(arguments, dict):
                names.add(str(arguments.get("id"))[:LONGEST_NAME])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return sorted(names)[:MOST_COLLECTIONS]


def add_usage(config: Config, user: UUID, kind: Kind, collections: Iterable[str], amounts: Amounts) -> None:
    """Add to the usage of a user today. A failure is logged: no result is refused for it."""
    values = {
        "user_id": user,
        "kind": kind,
        "collections": tuple(sorted(collections)),
        "runs": int(amounts.runs),
        "cpu_s": amounts.cpu_s,
        "seconds": amounts.seconds,
        "nbytes": int(amounts.nbytes),
    }
    try:
        with db.connect_once(config) as connection:
            connection.execute(_make_addition(), values)
    except OpenEOError as error:
        log.warning("usage of user %s was not recorded: %s", user, error)


@cache
def _make_addition() -> Insert:
    """Make the statement that adds to the usage of today, or begins with it."""
    table = db.UsageRow
    names = ("user_id", "kind", "collections", "runs", "cpu_s", "seconds", "nbytes")
    today = func.timezone("UTC", func.now()).cast(table.day.type)
    row = insert(table).values(day=today, **{name: bindparam(name) for name in names})
    sums = {f.name: getattr(table, f.name) + getattr(row.excluded, f.name) for f in fields(Amounts)}
    keys = ["day", "user_id", "kind", "collections"]
    return row.on_conflict_do_update(index_elements=keys, set_=sums)


@contextlib.contextmanager
def measure_result(config: Config, user: str, process: Mapping[str, Any]) -> Iterator[None]:
    """Record the CPU time of this process, and the time, that a block takes for a synchronous request."""
    cpu, start = time.process_time(), time.monotonic()
    try:
        yield
    finally:
        amounts = Amounts(1, time.process_time() - cpu, time.monotonic() - start)
        with contextlib.suppress(ValueError):
            add_usage(config, UUID(user), "result", find_collections(process), amounts)


def count_cpu_seconds(config: Config, user: UUID) -> float:
    """Return the CPU seconds that a user has used in this month (UTC)."""
    month = func.date_trunc("month", func.timezone("UTC", func.now()))
    query = select(func.coalesce(func.sum(db.UsageRow.cpu_s), literal(0.0)))
    with db.autocommit_session(config) as session:
        return float(session.scalar(query.where(db.UsageRow.user_id == user, db.UsageRow.day >= month)) or 0)


def read_usage(
    config: Config, by: Grouping, since: date | None = None, until: date | None = None
) -> dict[str, Amounts]:
    """Return the usage by user (name and id), collection or month (``2026-06``), from and to a day.

    The CPU time, time and bytes of a run with several collections are divided evenly among them; what has
    none is under ``-``.
    """
    table = db.UsageRow
    query = select(table, db.User.name).outerjoin(db.User, db.User.id == table.user_id)
    query = query if since is None else query.where(table.day >= since)
    query = query if until is None else query.where(table.day <= until)
    totals: defaultdict[str, Amounts] = defaultdict(Amounts)
    with db.session(config) as session:
        for row, name in session.execute(query):
            keys = _list_keys(row, name, by)
            for key in keys:
                amounts = Amounts(row.runs, row.cpu_s, row.seconds, row.nbytes)
                totals[key] += amounts.divide(len(keys))
    return dict(sorted(totals.items()))


def _list_keys(row: db.UsageRow, name: str | None, by: Grouping) -> list[str]:
    if by == "user":
        return [f"{name or '(deleted)'} {row.user_id}"]
    return [f"{row.day:%Y-%m}"] if by == "month" else list(row.collections) or ["-"]
