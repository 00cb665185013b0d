"""The columns of the index that hold the properties of STAC Items, product by product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSTZRANGE
from sqlalchemy.types import Boolean, Double

from odc_openeo.catalog.eo_documents import EO_PATHS
from odc_openeo.catalog.index_driver import TIME, IndexDriver, SearchBox, make_time_range
from odc_openeo.catalog.misplaced import (
    FIRST_TIME,
    LAST_TIME,
    LONGEST_OFFSET,
    instant_sql,
    is_misplaced,
    utc_sql,
)
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.catalog.stac_documents import EO3_NAMES, Product, make_property_schemas
from odc_openeo.catalog.times import shift_moment
from odc_openeo.errors import RequestInvalid
from odc_openeo.spatial.globe import list_touching_turns

TIMES: Final = ("datetime", "start_datetime", "end_datetime")
COMMON: Final = ("id", "collection", *TIMES)
"""Fields that every item has, apart from its geometry and its properties."""

JSON_TYPES: Final = {bool: ("boolean", Boolean), float: ("number", Double), str: ("string", Text)}


@dataclass(frozen=True, eq=False)
class Source:
    """A product with the fields of its metadata type, which searches use."""

    product: Product
    summary: Summary
    number: int
    fields: Mapping[str, Any]
    driver: IndexDriver

    @cached_property
    def properties(self) -> frozenset[str]:
        """Names of the properties that its items have."""
        return frozenset(make_property_schemas(self.product, self.summary))

    @cached_property
    def bounds(self) -> Summary:
        """The summary with extents that hold all datasets, also while they are not known exactly."""
        return self.summary.widen_unknown()

    @property
    def has_wrong_times(self) -> bool:
        """Whether the index has times without their offset from UTC."""
        return self.bounds.has_offsets and not self.driver.has_exact_times

    def has_property(self, name: str) -> bool:
        """Return whether items can be filtered and sorted by this property."""
        return name in COMMON or name in self.properties


class SourceColumns:
    """The `cql2.Columns` of one product; any of ``property_names`` that it lacks is null."""

    def __init__(self, source: Source, property_names: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.driver = source.driver
        self.dataset = source.driver.dataset
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
        read = instant_sql if self.source.bounds.has_offsets else utc_sql
        return func.coalesce(literal_column(f"({read('datetime')})", TIME), start, type_=TIME)

    def interval_columns(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment."""
        if self.source.has_wrong_times:
            return literal_column(FIRST_TIME, TIME), literal_column(LAST_TIME, TIME)
        return self.driver.get_times(self.source.fields)

    def value_column(self, name: str, type_: type) -> ColumnElement[Any]:
        """Return a property as bool, float or str; null where it has another type."""
        self.get_kind(name)
        json_type, sql_type = JSON_TYPES[type_]
        if name in ("id", "collection"):
            plain = cast(self.dataset.c.id, Text) if name == "id" else literal(self.source.product.name, Text)
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
        column = self.dataset.c.metadata.op("#>")(literal(["properties", property_name], ARRAY(Text)))
        if property_name in EO_PATHS:
            older = self.dataset.c.metadata.op("#>")(literal(list(EO_PATHS[property_name]), ARRAY(Text)))
            column = func.coalesce(column, older)
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
        low, high = self.source.bounds.lon
        if low is None:
            return self.overlaps_boxes(())
        return self.overlaps_boxes(
            SearchBox(west + turn, south, east + turn, north)
            for part in getattr(area, "geoms", (area,))
            for west, south, east, north in [part.bounds]
            for turn in list_touching_turns(west, east, low, high)
        )

    def overlaps_boxes(self, boxes: Iterable[SearchBox]) -> ColumnElement[bool]:
        """Return the condition that an item is in one of the boxes, as far as the index has its place."""
        source = self.source
        has_place = "lat" in source.fields and "lon" in source.fields
        inside = self.driver.overlaps_boxes(source.fields, list(boxes)) if has_place else false()
        return or_(inside, is_misplaced(source.summary.crs)) if source.summary.misplaced else inside

    def overlaps_interval(self, start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
        """Return the condition that the interval of an item overlaps this one, ends included."""
        if start is None and end is None:
            return true()
        if start is not None and end is not None and end < start:
            return false()
        fields = self.source.fields
        if not self.source.has_wrong_times:
            return self.driver.overlaps_times(fields, start, end)
        wide = (
            None if start is None else shift_moment(start, -LONGEST_OFFSET),
            None if end is None else shift_moment(end, LONGEST_OFFSET),
        )
        exact = func.tstzrange(*self.interval_columns(), "[]", type_=TSTZRANGE)
        # The index first: what it has is fast, but by up to an offset from UTC wrong.
        overlaps = exact.op("&&")(make_time_range(start, end))
        return and_(self.driver.overlaps_times(fields, *wide), overlaps)

    def select_documents(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Select the active datasets: id, document, location, product, and more."""
        return (
            select(
                self.dataset.c.id,
                self.dataset.c.metadata.label("document"),
                self.driver.location.label("location"),
                literal(self.source.product.name, Text).label("product"),
                *more,
            )
            .select_from(self.driver.rows)
            .where(self.driver.is_of_product(self.source.number))
            .where(self.dataset.c.archived.is_(None))
        )

    def select_rows(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Select the active datasets with their times: first and last moment, datetime, and more."""
        start, end = self.interval_columns()
        moment = self.time_column("datetime").label("moment")
        return self.select_documents(start.label("start"), end.label("end"), moment, *more)
