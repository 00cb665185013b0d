"""The index driver ``postgis``: search fields are rows of tables of their own, one for each type.

Its spatial index is not used: it has the corners of a dataset, reprojected, but not what lies between them
(the edge of a large tile bulges beyond), and nothing of datasets around a pole. The search fields ``lon`` and
``lat`` have the box around the reprojected outline, as with the driver ``postgres``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    ColumnElement,
    FromClause,
    Select,
    Text,
    TextClause,
    and_,
    cast,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import NUMERIC, NUMRANGE
from sqlalchemy.types import Double

from odc_openeo.catalog import search_index
from odc_openeo.catalog.index_driver import TIME, Fields, IndexDriver, SearchBox, make_time_range, no_times
from odc_openeo.catalog.odc_postgis_internals import DATASET, NUMBERS, STRINGS, TIMES

_TIMES = TIMES.alias("times")
_ROWS = DATASET.outerjoin(_TIMES, and_(_TIMES.c.dataset_ref == DATASET.c.id, _TIMES.c.search_key == "time"))


class PostgisDriver(IndexDriver):
    """The schema ``odc``; a dataset has one location, in its own row."""

    name = "postgis"
    schema = "odc"
    dataset = DATASET
    product_table = "product"
    product_column = "product_ref"
    has_exact_times = True
    location: ClassVar[ColumnElement[Any]] = literal_column(
        "odc.dataset.uri_scheme || ':' || odc.dataset.uri_body", Text
    )

    @property
    def rows(self) -> FromClause:
        """The table of datasets with their times."""
        return _ROWS

    def get_times(self, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment of a dataset."""
        if "time" not in fields:
            return no_times()
        interval = _TIMES.c.search_val
        return func.lower(interval, type_=TIME), func.upper(interval, type_=TIME)

    def get_edges(self, name: str, fields: Fields) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return lowest and highest longitude or latitude of a dataset, from its document."""
        field = fields[name]
        return (
            cast(field.lower.alchemy_expression.element, Double),
            cast(field.greater.alchemy_expression.element, Double),
        )

    def overlaps_times(
        self, fields: Fields, start: datetime | None, end: datetime | None
    ) -> ColumnElement[bool]:
        """Return the condition that the interval of a dataset overlaps this one, ends included."""
        if "time" not in fields:
            return false()
        overlaps: ColumnElement[bool] = _TIMES.c.search_val.op("&&")(make_time_range(start, end))
        return overlaps

    def overlaps_boxes(self, fields: Fields, boxes: Sequence[SearchBox]) -> ColumnElement[bool]:
        """Return the condition that the bounding box of a dataset shares a point with one of these."""
        if not boxes:
            return false()
        return DATASET.c.id.in_(union_all(*[_select_in_box(box) for box in boxes]))

    def equals_string(self, field: Any, value: str) -> ColumnElement[bool]:
        """Return the condition that a search field has a value."""
        strings = STRINGS.alias()
        return DATASET.c.id.in_(
            select(strings.c.dataset_ref).where(
                strings.c.search_key == field.name, strings.c.search_val == value
            )
        )

    def is_between(self, field: Any, low: float | None, high: float | None) -> ColumnElement[bool]:
        """Return the condition that a search field is within bounds, both included."""
        numbers = NUMBERS.alias()
        return DATASET.c.id.in_(
            select(numbers.c.dataset_ref).where(
                numbers.c.search_key == field.name,
                _overlaps_range(numbers, _step(low, -math.inf), _step(high, math.inf)),
            )
        )


class IndexedPostgisDriver(PostgisDriver):
    """The driver where operators have added `search_index`: it finds the same datasets."""

    def is_of_product(self, number: int) -> TextClause:
        """Return the condition that a dataset is of a product."""
        return text(f"{super().is_of_product(number).text} AND {search_index.is_of_product(number)}")

    def overlaps_times(
        self, fields: Fields, start: datetime | None, end: datetime | None
    ) -> ColumnElement[bool]:
        """Return the condition that the interval of a dataset overlaps this one, ends included."""
        exact = super().overlaps_times(fields, start, end)
        if not _has_standard_offsets(fields, "time"):
            return exact
        return and_(exact, literal_column(search_index.overlaps_interval(start, end), Boolean))

    def overlaps_boxes(self, fields: Fields, boxes: Sequence[SearchBox]) -> ColumnElement[bool]:
        """Return the condition that the bounding box of a dataset shares a point with one of these."""
        if not _has_standard_offsets(fields, "lon", "lat"):
            return super().overlaps_boxes(fields, boxes)
        return or_(false(), *[self._overlaps_box(fields, box) for box in boxes])

    def _overlaps_box(self, fields: Fields, box: SearchBox) -> ColumnElement[bool]:
        near = literal_column(search_index.overlaps_box(box.lon, box.lat), Boolean)
        bounds = {"lon": box.lon, "lat": box.lat}
        edges = {name: self.get_edges(name, fields) for name in bounds}
        exact = [edges[n][0] <= high for n, (_, high) in bounds.items()]
        return and_(near, *exact, *[edges[n][1] >= low for n, (low, _) in bounds.items()])


def _has_standard_offsets(fields: Fields, *names: str) -> bool:
    """Return whether these search fields are where `search_index` reads them."""
    return all(
        name in fields
        and fields[name].lower.offset[0] == low
        and fields[name].greater.offset[0] == high
        and len(fields[name].lower.offset) == (2 if name == "time" else 1)
        for name in names
        for low, high in [search_index.STANDARD_OFFSETS[name]]
    )


def _select_in_box(box: SearchBox) -> Select[Any]:
    lat, lon = NUMBERS.alias(), NUMBERS.alias()
    return (
        select(lat.c.dataset_ref)
        .join(lon, lon.c.dataset_ref == lat.c.dataset_ref)
        .where(lat.c.search_key == "lat", _overlaps_range(lat, *box.lat))
        .where(lon.c.search_key == "lon", _overlaps_range(lon, *box.lon))
    )


def _overlaps_range(table: Any, low: float | None, high: float | None) -> ColumnElement[bool]:
    bounds = func.numrange(_as_numeric(low), _as_numeric(high), "[]", type_=NUMRANGE)
    overlaps: ColumnElement[bool] = table.c.search_val.op("&&")(bounds)
    return overlaps


def _as_numeric(value: float | None) -> Any:
    return null() if value is None else cast(float(value), NUMERIC)


def _step(value: float | None, towards: float) -> float | None:
    """The next number: those in the index are decimal, and may be rounded otherwise than ours."""
    return None if value is None else math.nextafter(value, towards)
