"""Keyset pagination of lists by time and id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import RequestInvalid

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list; ``next`` is the place where the next page starts, None on the last page."""

    items: list[T]
    next: str | None = None


def parse_place(after: str) -> tuple[datetime, UUID]:
    """Parse a place in a list by time and id; RequestInvalid if it is not valid."""
    time, _, id_ = after.partition("_")
    try:
        return datetime.fromisoformat(time), UUID(id_)
    except ValueError as error:
        raise RequestInvalid(reason="the offset is not valid: follow the link 'next' of a page.") from error


def read_page(
    config: Config,
    query: Select[Any],
    limit: int | None,
    make_item: Callable[[Any], T],
    describe_place: Callable[[T], str],
) -> Page[T]:
    """Read a page of an ordered list; selects one row more than ``limit``, to detect a next page."""
    with db.session(config) as session:
        rows: Iterable[Any] = session.scalars(query if limit is None else query.limit(limit + 1))
        items = [make_item(row) for row in rows]
    page_items = items[:limit]
    return Page(page_items, describe_place(page_items[-1]) if len(items) > len(page_items) else None)
