"""The columns of the index that hold the properties of STAC Items, product by product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from shapely.geometry.base import BaseGeometry
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, TSTZRANGE
from sqlalchemy.types import Boolean, Double

from odc_openeo.catalog.misplaced import FIRST_TIME, LAST_TIME, LONGEST_OFFSET, instant_sql, is_misplaced
from odc_openeo.catalog.odc_internals import DATASET, DATASET_LOCATION
from odc_openeo.catalog.stac_documents import EO3_NAMES, Product, make_property_schemas
from odc_openeo.catalog.summaries import Summary
from odc_openeo.catalog.times import shift_moment
from odc_openeo.errors import RequestInvalid
from odc_openeo.spatial.globe import list_touching_turns

TIMES: Final = ("datetime", "start_datetime", "end_datetime")
COMMON: Final = ("id", "collection", *TIMES)
"""Fields that every item has, apart from its geometry and its properties."""

JSON_TYPES: Final = {bool: ("boolean", Boolean), float: ("number", Double), str: ("string", Text)}
TIME: Final = TIMESTAMP(timezone=True)


@dataclass(frozen=True, eq=False)
class Source:
    """A product with the fields of its metadata type, which searches use."""

    product: Product
    summary: Summary
    number: int
    fields: Mapping[str, Any]

    @cached_property
    def properties(self) -> frozenset[str]:
        """Names of the properties that its items have."""
        return frozenset(make_property_schemas(self.product, self.summary))

    def has_property(self, name: str) -> bool:
        """Return whether items can be filtered and sorted by this property."""
        return name in COMMON or name in self.properties


class SourceColumns:
    """The `cql2.Columns` of one product; any of ``property_names`` that it lacks is null."""

    def __init__(self, source: Source, property_names: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.property_names = property_names

    def get_kind(self, name: str) -> str:
        """Return ``time`` or ``value``."""
        if name not in self.property_names and not self.source.has_property(name):
            raise RequestInvalid(
                f"There is no property '{name}'. "
                f"The properties are: geometry, {', '.join(sorted(self.property_names))}."
            )
        return "time" if name in TIMES else "value"

    def time_column(self, name: str) -> ColumnElement[Any]:
        """Return a time as timestamp."""
        start, end = self.interval_columns()
        if name != "datetime":
            return start if name == "start_datetime" else end
        if self.source.summary.has_offsets:
            return func.coalesce(literal_column(f"({instant_sql('datetime')})", TIME), start, type_=TIME)
        declared = literal_column("agdc.dataset.metadata #>> '{properties,datetime}'", Text)
        return func.coalesce(func.agdc.common_timestamp(declared), start, type_=TIME)

    def interval_columns(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment."""
        field = self.source.fields.get("time")
        if field is None:
            return cast(null(), TIME), cast(null(), TIME)
        if self.source.summary.has_offsets:
            return literal_column(FIRST_TIME, TIME), literal_column(LAST_TIME, TIME)
        return field.lower.alchemy_expression.element, field.greater.alchemy_expression.element

    def value_column(self, name: str, type_: type) -> ColumnElement[Any]:
        """Return a property as bool, float or str; null where it has another type."""
        self.get_kind(name)
        json_type, sql_type = JSON_TYPES[type_]
        if name in ("id", "collection"):
            plain = cast(DATASET.c.id, Text) if name == "id" else literal(self.source.product.name, Text)
            return plain if type_ is str else cast(null(), sql_type)
        column = self.json_column(name)
        return case(
            (
                func.jsonb_typeof(column) == json_type,
                cast(column.op("#>>")(literal_column("'{}'")), sql_type),
            ),
            else_=None,
        )

    def is_null(self, name: str) -> ColumnElement[bool]:
        """Return the condition that an item lacks the property."""
        if self.get_kind(name) == "time":
            return self.time_column(name).is_(None)
        if name in ("id", "collection"):
            return false()
        return self.json_column(name).is_(None)

    def json_column(self, name: str) -> ColumnElement[Any]:
        """Return a property as JSON, null where there is none."""
        eo3 = EO3_NAMES.get(name)
        property_name = eo3 if eo3 in self.source.properties else name
        column = DATASET.c.metadata.op("#>")(literal(["properties", property_name], ARRAY(Text)))
        return func.nullif(column, literal_column("'null'::jsonb"), type_=JSONB)

    def sort_key(self, name: str) -> ColumnElement[Any]:
        """Return the expression to sort by."""
        if self.get_kind(name) == "time":
            return self.time_column(name)
        return self.value_column(name, str) if name in ("id", "collection") else self.json_column(name)

    def bbox_intersects(self, area: BaseGeometry) -> ColumnElement[bool]:
        """Return the condition that the bounding boxes of an item and of a part of the area share a point.

        Scenes over the antimeridian are indexed with longitudes beyond 180.
        """
        lat, lon = self.source.fields.get("lat"), self.source.fields.get("lon")
        summary = self.source.summary
        boxes = [is_misplaced(summary.crs)] if summary.misplaced else []
        if lat is None or lon is None or summary.lon[0] is None:
            return or_(false(), *boxes)
        low, high = summary.lon
        for part in getattr(area, "geoms", (area,)):
            west, south, east, north = part.bounds
            boxes += [
                and_(_overlaps_range(lat, south, north), _overlaps_range(lon, west + turn, east + turn))
                for turn in list_touching_turns(west, east, low, high)
            ]
        return or_(false(), *boxes)

    def overlaps_interval(self, start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
        """Return the condition that the interval of an item overlaps this one, ends included."""
        if start is None and end is None:
            return true()
        field = self.source.fields.get("time")
        if field is None:
            return false()
        if not self.source.summary.has_offsets:
            return _overlaps_times(_range_column(field), start, end)
        wide = (
            None if start is None else shift_moment(start, -LONGEST_OFFSET),
            None if end is None else shift_moment(end, LONGEST_OFFSET),
        )
        exact = func.tstzrange(*self.interval_columns(), "[]", type_=TSTZRANGE)
        # The index first: what it has is fast, but by up to an offset from UTC wrong.
        return and_(_overlaps_times(_range_column(field), *wide), _overlaps_times(exact, start, end))

    def select_rows(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Select the active datasets: id, document, location, first and last moment, datetime, and more."""
        start, end = self.interval_columns()
        return (
            select(
                DATASET.c.id,
                DATASET.c.metadata.label("document"),
                _LOCATION.label("location"),
                literal(self.source.product.name, Text).label("product"),
                start.label("start"),
                end.label("end"),
                self.time_column("datetime").label("moment"),
                *more,
            )
            # A literal number, because the partial indexes of the product have it in their condition.
            .where(text(f"agdc.dataset.dataset_type_ref = {int(self.source.number)}"))
            .where(DATASET.c.archived.is_(None))
        )


_LOCATION = (
    select(func.concat(DATASET_LOCATION.c.uri_scheme, ":", DATASET_LOCATION.c.uri_body))
    .where(DATASET_LOCATION.c.dataset_ref == DATASET.c.id, DATASET_LOCATION.c.archived.is_(None))
    .order_by(DATASET_LOCATION.c.added.desc(), DATASET_LOCATION.c.id.desc())
    .limit(1)
    .scalar_subquery()
)


def _range_column(field: Any) -> Any:
    return field.alchemy_expression.element


def _overlaps_times(interval: Any, start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
    other = func.tstzrange(cast(start, TIME), cast(end, TIME), "[]", type_=TSTZRANGE)
    overlaps: ColumnElement[bool] = interval.op("&&")(other)
    return overlaps


def _overlaps_range(field: Any, low: float, high: float) -> ColumnElement[bool]:
    # Boxes in the index are rounded: the margin keeps a shared edge from being missed.
    low, high = low - 1e-9, high + 1e-9
    return _range_column(field).op("&&")(func.agdc.float8range(low, high, "[]"))
