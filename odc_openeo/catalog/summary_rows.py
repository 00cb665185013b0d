"""Summaries and the state of the index as rows of our own table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.catalog.product_summary import FLAGS, INTERVALS, SETS, Summary
from odc_openeo.db import CollectionSummary

INDEX_STATE: Final = ""
"""Name of the row that says up to which state of the index all other rows are complete. No product can
have this name."""

SUMMARIES_LOCK: Final = 0x6F646373
"""Advisory lock that lets one process at a time bring the summaries up to date; migrations have another."""

OVERLAP: Final = timedelta(minutes=10)
"""How far to look back before the last update: times in the index are those of the start of a transaction,
which may commit later than others that started after it."""

FORM: Final = 3
"""Changes whenever summaries are made in another way: those that are stored are then made anew."""

NEVER: Final = datetime(1900, 1, 1, tzinfo=UTC)

DETAILS: Final = ("lon", "x", "y", *SETS, "grids", "properties", "months", *FLAGS, "pending", "settled")
MOMENTS: Final = ("horizon", "looked")


@dataclass(frozen=True)
class IndexState:
    """Up to which state of the index the summaries are complete; kept in a row of its own.

    ``marker`` is the state that was looked at last, ``clock`` the moment of the last complete look (None:
    never). ``recount`` and ``behind`` leave work to the background: to find where datasets were deleted, and
    to read more changes than a request may.
    """

    marker: str | None = None
    clock: datetime | None = None
    deleted: int | None = None
    written: int | None = None
    recount: bool = False
    behind: bool = False

    @property
    def is_unfinished(self) -> bool:
        """Whether work is left to the background."""
        return self.recount or self.behind

    @property
    def since(self) -> datetime:
        """The moment from which on changes may not have been seen."""
        return NEVER if self.clock is None else self.clock - OVERLAP


def read_state(row: CollectionSummary | None) -> IndexState:
    """Return the state that a row holds; that of summaries made in another way is none."""
    if row is None or row.details.get("form") != FORM:
        return IndexState()
    return IndexState(
        row.last_change,
        datetime.fromisoformat(row.details["clock"]),
        row.details["deleted"],
        row.details.get("written"),
        bool(row.details.get("recount")),
        bool(row.details.get("behind")),
    )


def make_state_row(state: IndexState) -> dict[str, Any]:
    """Return the values of the row of a state."""
    clock = state.clock or NEVER
    details = {"clock": clock.isoformat(), "deleted": state.deleted, "written": state.written, "form": FORM}
    flags = {"recount": state.recount, "behind": state.behind}
    empty = make_row(Summary(INDEX_STATE, last_change=state.marker))
    return {**empty, "details": details | flags}


def lock_summaries(session: Session) -> tuple[dict[str, Summary], IndexState]:
    """Read all summaries by product and the state of the index; no other process changes them meanwhile."""
    session.execute(select(func.pg_advisory_xact_lock(SUMMARIES_LOCK)))
    rows = {row.product: row for row in session.scalars(select(CollectionSummary))}
    state = read_state(rows.pop(INDEX_STATE, None))
    return ({} if state.clock is None else {name: parse_row(row) for name, row in rows.items()}), state


def parse_row(row: CollectionSummary) -> Summary:
    """Return the summary that a row holds."""
    details: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.details.items()
        if key in DETAILS
    }
    moments: dict[str, Any] = {
        name: datetime.fromisoformat(value)
        for name in MOMENTS
        if (value := row.details.get(name)) is not None
    }
    grids = {band: tuple(size) for band, size in details.pop("grids", {}).items()}
    return Summary(
        row.product,
        **details,
        **moments,
        grids=grids,
        lat=(row.south, row.north),
        time=(row.start, row.end),
        count=row.count,
        last_change=row.last_change,
    )


def make_row(summary: Summary) -> dict[str, Any]:
    """Return the values of the row of a summary; intervals that are not finite are left out."""
    summary = _drop_infinite(summary)
    west, _, east, _ = summary.bbox or (None, None, None, None)
    return {
        "product": summary.product,
        "west": west,
        "south": summary.lat[0],
        "east": east,
        "north": summary.lat[1],
        "start": summary.time[0],
        "end": summary.time[1],
        "count": summary.count,
        "last_change": summary.last_change,
        "details": {
            **{name: getattr(summary, name) for name in DETAILS},
            **{
                name: moment and moment.isoformat() for name in MOMENTS for moment in [getattr(summary, name)]
            },
        },
        "updated": db.now(),
    }


def _drop_infinite(summary: Summary) -> Summary:
    """The summary without intervals that are not finite."""

    def is_finite(values: Iterable[Any]) -> bool:
        return all(math.isfinite(v) for v in values if isinstance(v, float))

    unknown = {n: (None, None) for n in INTERVALS if not is_finite(getattr(summary, n))}
    grids = {band: sizes for band, sizes in summary.grids.items() if is_finite(sizes)}
    return replace(summary, grids=grids, **cast(Any, unknown))


def upsert_rows(session: Session, rows: list[dict[str, Any]]) -> None:
    """Insert or replace rows."""
    if not rows:
        return
    statement = insert(CollectionSummary)
    changes = {key: statement.excluded[key] for key in rows[0] if key != "product"}
    session.execute(statement.on_conflict_do_update(index_elements=["product"], set_=changes), rows)
