"""Searches for STAC Items in pages, each read from the index in order and without counting the rest.

Keyset pagination: a page is requested by the keys of the last item before it. Where items are ordered by
time, the index is queried in successive time windows, each four times as wide as the last unless it is
crowded, until the page is full: the cost does not grow with the number of datasets. Bounding boxes are
compared in the index, outlines in Python.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from sqlalchemy.types import Text

from odc_openeo.catalog import cql2
from odc_openeo.catalog.cql2 import Compiled
from odc_openeo.catalog.eo_documents import as_eo3
from odc_openeo.catalog.footprints import find_outline
from odc_openeo.catalog.index_driver import TIME
from odc_openeo.catalog.search_columns import TIMES, Source, SourceColumns
from odc_openeo.catalog.times import shift_moment
from odc_openeo.errors import RequestInvalid, RequestTimeout
from odc_openeo.untrusted.strict_json import parse_json

MOST_ROWS: Final = 1000
"""Rows read at once."""

WIDER: Final = 4
SHORTEST: Final = timedelta(seconds=1)
CROWD: Final = 2000
"""A window with more datasets than this is narrowed. Doubled with each window that does not fill the page."""

TIMEOUT_STATE: Final = "57014"


@dataclass(frozen=True)
class SortKey:
    """A property to sort by."""

    name: str
    descending: bool = False


NEWEST_FIRST: Final = (SortKey("datetime", True), SortKey("id"))


@dataclass(frozen=True)
class ItemQuery:
    """A search for items; None is no limit. ``area`` is in degrees, ``start`` and ``end`` are inclusive.

    ``filter`` is a tree as `cql2.parse_filter` returns it. Without ``sort``, items are ordered by collection,
    the newest first. ``token`` is that of the previous page.
    """

    limit: int
    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    area: BaseGeometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    filter: Any = None
    sort: tuple[SortKey, ...] = ()
    token: str | None = None


@dataclass(frozen=True, eq=False)
class SearchHit:
    """A dataset that matches a search: its product, its row in the index, its EO3 document, and its outline
    in degrees."""

    source: Source
    row: Any
    document: Mapping[str, Any]
    outline: BaseGeometry | None


@dataclass(frozen=True)
class ItemPage:
    """A page of items. ``token`` requests the next one; ``matched`` is None where the count is unknown."""

    hits: Sequence[SearchHit]
    token: str | None
    matched: int | None


def search_items(
    connection: Connection, sources: Sequence[Source], query: ItemQuery, timeout_s: float
) -> ItemPage:
    """Search a page of the items of these products, which are sorted by name.

    Raises:
        RequestInvalid: the filter, the order or the token is not valid.
        RequestTimeout: the search takes longer than the operator allows.
    """
    search = _Search(connection, sources, query, time.monotonic() + timeout_s, timeout_s)
    hits = list(islice(search.iter_accepted(), query.limit + 1))
    page = hits[: query.limit]
    more = len(hits) > query.limit
    return ItemPage(page, search.make_token(page[-1]) if more else None, search.count_matched(page, more))


class _Search:
    """One request: candidates from the index in order, the items accepted of these, and tokens."""

    def __init__(
        self,
        connection: Connection,
        sources: Sequence[Source],
        query: ItemQuery,
        deadline: float,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.query = query
        self.deadline = deadline
        self.timeout_s = timeout_s
        names = frozenset().union(*[{*s.properties, "id", "collection", *TIMES} for s in sources])
        self.columns = {s.product.name: SourceColumns(s, names) for s in sources}
        self.filters = {name: self._compile_filter(columns) for name, columns in self.columns.items()}
        self.keys = (*query.sort, SortKey("id")) if query.sort else NEWEST_FIRST
        self.types = [_sql_type(key, list(self.columns.values())) for key in self.keys]
        self.cursor = _Cursor.from_token(query.token, self.keys) if query.token is not None else None
        self.sources = [s for s in sources if self._may_have_some(s)]
        if query.area is not None:
            shapely.prepare(query.area)

    def _compile_filter(self, columns: SourceColumns) -> Compiled:
        if self.query.filter is None:
            return Compiled(true())
        return cql2.compile_filter(self.query.filter, columns)

    def _may_have_some(self, source: Source) -> bool:
        if source.summary.pending:
            return True
        first, last = source.summary.time
        early = last is not None and self.query.start is not None and last < self.query.start
        late = first is not None and self.query.end is not None and self.query.end < first
        return source.summary.count > 0 and not early and not late

    # --- The page ---

    def iter_accepted(self) -> Iterator[SearchHit]:
        """Iterate over the items of this and all following pages."""
        for row in self._iter_candidates():
            source = self.columns[row.product].source
            document = as_eo3(row.document, source.product.definition)
            hit = SearchHit(source, row, document, find_outline(document))
            if self._is_accepted(hit):
                yield hit

    def _is_accepted(self, hit: SearchHit) -> bool:
        area, shape = self.query.area, hit.outline
        if area is not None and (shape is None or not shapely.intersects(area, shape)):
            return False
        accepts = self.filters[hit.row.product].accepts
        if accepts is None:
            return True
        count = len(self.filters[hit.row.product].leaves)
        return accepts([getattr(hit.row, f"leaf{i}") for i in range(count)], shape) is True

    def make_token(self, last: SearchHit) -> str:
        """Make the token of the page after this item."""
        values = [getattr(last.row, f"key{i}") for i in range(len(self.keys))]
        return _Cursor(last.row.product, tuple(values)).to_token(self.keys)

    def count_matched(self, page: Sequence[SearchHit], more: bool) -> int | None:
        """Count all items where that is free, else return None."""
        query = self.query
        if not more and query.token is None:
            return len(page)
        if any(s.summary.pending for s in self.sources):
            return None
        limits = (query.ids, query.area, query.start, query.end, query.filter)
        return sum(s.summary.count for s in self.sources) if all(v is None for v in limits) else None

    # --- Candidates in order ---

    def _iter_candidates(self) -> Iterator[Any]:
        """Iterate over the rows after the cursor, by product unless sorted across products."""
        if self.query.sort:
            yield from self._iter_ordered(self.sources, self.cursor)
            return
        for source in self.sources:
            name = source.product.name
            if self.cursor is None or name > self.cursor.product:
                yield from self._iter_ordered([source], None)
            elif name == self.cursor.product:
                yield from self._iter_ordered([source], self.cursor)

    def _iter_ordered(self, sources: Sequence[Source], cursor: _Cursor | None) -> Iterator[Any]:
        if not sources:
            return
        has_times = all(s.bounds.time[0] and s.bounds.time[1] for s in sources)
        # Datasets are found by their ids at once.
        by_time = has_times and self.keys[0].name == "datetime" and self.query.ids is None
        is_split = by_time and not self._are_few(sources)
        windows = self._iter_windows(sources, cursor) if is_split else [(None, None)]
        for low, high in windows:
            yield from self._iter_window(sources, cursor, low, high)

    def _are_few(self, sources: Sequence[Source]) -> bool:
        """Return whether so few datasets are there, or in the area, that all may be sorted at once."""
        if any(source.summary.pending for source in sources):
            return False
        if sum(source.summary.count for source in sources) <= CROWD:
            return True
        # Of a single product only: each takes a statement.
        is_counted = self.query.area is not None and len(sources) == 1
        return is_counted and self._count_crowd(sources, None, None, CROWD) <= CROWD

    def _iter_windows(
        self, sources: Sequence[Source], cursor: _Cursor | None
    ) -> Iterator[tuple[datetime | None, datetime | None]]:
        """Iterate over half-open time windows, in the order of the items; None is open."""
        first = min(_as_utc(s.bounds.time[0]) for s in sources if s.bounds.time[0])
        last = max(_as_utc(s.bounds.time[1]) for s in sources if s.bounds.time[1])
        backwards, at = self.keys[0].descending, cursor.values[0] if cursor else None
        lowest, highest = self.query.start if not backwards else None, self.query.end if backwards else None
        edge = (
            min(t for t in (last, highest, at) if t)
            if backwards
            else max(t for t in (first, lowest, at) if t)
        )
        share = (self.query.limit + 1) * WIDER / sum(s.bounds.count for s in sources)
        width, most = max((last - first) * share, SHORTEST), CROWD
        limit = at + timedelta(microseconds=1) if at is not None and backwards else at
        while first < edge if backwards else edge < last:
            beyond = shift_moment(edge, -width if backwards else width)
            window = (beyond, limit) if backwards else (limit, beyond)
            crowd = self._count_crowd(sources, window[0], window[1], most) if width > SHORTEST else most
            if crowd > most:
                width = max(width / WIDER, SHORTEST)
                continue
            yield window
            limit, edge, width = beyond, beyond, width * WIDER
            # A filter that rejects nearly all of many is better served with more at a time. After a gap, they
            # would only be sorted in vain.
            most = most * 2 if crowd * WIDER > most else most
        yield (None, limit) if backwards else (limit, None)

    def _count_crowd(
        self, sources: Sequence[Source], low: datetime | None, high: datetime | None, most: int
    ) -> int:
        """Count the datasets in a window, of which no more than ``most`` should be sorted for a page.

        Counting stops beyond it.
        """
        count = 0
        for source in sources:
            columns = self.columns[source.product.name]
            inside = columns.select_documents().with_only_columns(
                columns.dataset.c.id, maintain_column_froms=True
            )
            inside = inside.where(*self._match_place_and_time(columns, low, high)).limit(most + 1 - count)
            count += self._execute(select(func.count()).select_from(inside.subquery()))[0][0]
            if count > most:
                break
        return count

    def _match_place_and_time(
        self, columns: SourceColumns, low: datetime | None, high: datetime | None
    ) -> list[ColumnElement[bool]]:
        """Return the conditions that the indexes of a product support: window, interval and bounding box."""
        moment, area = columns.time_column("datetime"), self.query.area
        return [
            columns.overlaps_interval(self.query.start, self.query.end),
            columns.overlaps_interval(low, high),
            *([moment >= low] if low is not None else []),
            *([moment < high] if high is not None else []),
            *([columns.bbox_intersects(area)] if area is not None else []),
        ]

    def _iter_window(
        self, sources: Sequence[Source], cursor: _Cursor | None, low: datetime | None, high: datetime | None
    ) -> Iterator[Any]:
        size = self.query.limit + 1
        while True:
            rows = self._read_rows(sources, cursor, low, high, size)
            yield from rows
            if len(rows) < size:
                return
            cursor = _Cursor(rows[-1].product, tuple(rows[-1][-len(self.keys) :]))
            size = min(size * WIDER, MOST_ROWS)

    def _read_rows(
        self,
        sources: Sequence[Source],
        cursor: _Cursor | None,
        low: datetime | None,
        high: datetime | None,
        size: int,
    ) -> list[Any]:
        parts = [
            self._select_part(self.columns[s.product.name], cursor, low, high, size).subquery()
            for s in sources
        ]
        every = union_all(*[select(part) for part in parts]).subquery()
        statement = select(every).order_by(*self._order_columns(every.c)).limit(size)
        return self._execute(statement)

    def _execute(self, statement: Select[Any]) -> list[Any]:
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise self._too_slow()
            self.connection.execute(text(f"SET LOCAL statement_timeout = {int(left * 1000) + 1}"))
            return list(self.connection.execute(statement))
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) == TIMEOUT_STATE:
                raise self._too_slow() from error
            raise

    def _too_slow(self) -> RequestTimeout:
        return RequestTimeout(
            f"The search took longer than {self.timeout_s:g} s. Name collections, an area or an interval, "
            "or order by datetime."
        )

    def _select_part(
        self,
        columns: SourceColumns,
        cursor: _Cursor | None,
        low: datetime | None,
        high: datetime | None,
        size: int,
    ) -> Any:
        """Select the first rows of one product in a window."""
        compiled, query = self.filters[columns.source.product.name], self.query
        keys = [cast(columns.sort_key(k.name), t) for k, t in zip(self.keys, self.types, strict=True)]
        leaves = [leaf.label(f"leaf{i}") for i, leaf in enumerate(compiled.leaves)]
        labelled = [key.label(f"key{i}") for i, key in enumerate(keys)]
        places = self._match_place_and_time(columns, low, high)
        statement = columns.select_rows(*leaves, *labelled).where(compiled.where, *places)
        if query.ids is not None:
            statement = statement.where(_match_ids(columns, query.ids))
        if cursor is not None:
            statement = statement.where(self._is_after_cursor(keys, cursor))
        order = [_order_column(key, k.descending) for key, k in zip(keys, self.keys, strict=True)]
        return statement.order_by(*order).limit(size)

    def _order_columns(self, columns: Any) -> list[Any]:
        return [_order_column(columns[f"key{i}"], key.descending) for i, key in enumerate(self.keys)]

    def _is_after_cursor(self, keys: Sequence[ColumnElement[Any]], cursor: _Cursor) -> ColumnElement[bool]:
        """Return the condition that a row comes after the cursor; nulls come last."""
        after: ColumnElement[bool] = false()
        triples = list(zip(keys, self.keys, self.types, cursor.values, strict=True))
        for column, key, type_, value in reversed(triples):
            bound = literal(value, type_)
            if value is None:
                after = and_(column.is_(None), after)
                continue
            beyond = column < bound if key.descending else column > bound
            after = or_(beyond, column.is_(None), and_(column == bound, after))
        return after


def _order_column(column: ColumnElement[Any], descending: bool) -> Any:
    return (column.desc() if descending else column.asc()).nulls_last()


def _sql_type(key: SortKey, columns: Sequence[SourceColumns]) -> Any:
    if key.name in TIMES:
        return TIME
    for source_columns in columns:
        source_columns.get_kind(key.name)
    return Text() if key.name in ("id", "collection") else JSONB(none_as_null=True)


def _match_ids(columns: SourceColumns, ids: Sequence[str]) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = columns.dataset.c.id.in_(
        [u for u in map(_find_uuid, ids) if u is not None]
    )
    return matches


def _find_uuid(value: str) -> UUID | None:
    try:
        parsed = UUID(value)
    except ValueError:
        return None
    return parsed if str(parsed) == value else None


def _as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


@dataclass(frozen=True)
class _Cursor:
    """The last item before a page: its product and its sort keys."""

    product: str
    values: tuple[Any, ...]

    def to_token(self, keys: Sequence[SortKey]) -> str:
        values = [v.isoformat() if isinstance(v, datetime) else v for v in self.values]
        plain = json.dumps([[k.name for k in keys], self.product, values], separators=(",", ":"))
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str, keys: Sequence[SortKey]) -> _Cursor:
        try:
            plain = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            names, product, values = parse_json(plain.decode())
            json.dumps(values, allow_nan=False)
            if names != [k.name for k in keys] or not isinstance(product, str) or len(values) != len(keys):
                raise ValueError("another order")
            return cls(product, tuple(_parse_key_value(k, v) for k, v in zip(keys, values, strict=True)))
        except (ValueError, TypeError, RequestInvalid) as error:
            raise RequestInvalid(
                "'token' does not belong to this search. Follow the links 'next' of a search unchanged."
            ) from error


def _parse_key_value(key: SortKey, value: Any) -> Any:
    if key.name in TIMES and value is not None:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return moment
    if key.name in ("id", "collection") and not isinstance(value, str):
        raise ValueError("not a string")
    return value
