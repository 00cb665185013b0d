"""Where the properties of STAC Items are in the tables of the index, product by product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from datacube.drivers.postgres._schema import DATASET, DATASET_LOCATION
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

from odc_openeo.catalog.stac import STAC_NAMES, Product, property_schemas
from odc_openeo.catalog.summaries import Summary
from odc_openeo.errors import RequestInvalid

TIMES: Final = ("datetime", "start_datetime", "end_datetime")
COMMON: Final = ("id", "collection", *TIMES)
"""What every item has, beside its geometry and its properties."""

EO3_NAMES: Final = {stac: eo3 for eo3, stac in STAC_NAMES.items()}
JSON_TYPES: Final = {bool: ("boolean", Boolean), float: ("number", Double), str: ("string", Text)}
TIME: Final = TIMESTAMP(timezone=True)


@dataclass(frozen=True, eq=False)
class Source:
    """A product with what is needed to search its datasets: the fields of its metadata type."""

    product: Product
    summary: Summary
    number: int
    fields: Mapping[str, Any]

    @cached_property
    def properties(self) -> frozenset[str]:
        """Names of the properties that its items have."""
        return frozenset(property_schemas(self.product, self.summary))

    def knows(self, name: str) -> bool:
        """Whether items may be filtered and sorted by this property."""
        return name in COMMON or name in self.properties


class SourceColumns:
    """The `cql2.Columns` of one product; a property that only ``others`` know is null."""

    def __init__(self, source: Source, others: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.others = others

    def kind(self, name: str) -> str:
        """``time`` or ``value``."""
        if name not in self.others and not self.source.knows(name):
            raise RequestInvalid(
                f"There is no property '{name}'. There are: geometry, {', '.join(sorted(self.others))}."
            )
        return "time" if name in TIMES else "value"

    def time(self, name: str) -> ColumnElement[Any]:
        """A time, as timestamp."""
        start, end = self.interval()
        if name != "datetime":
            return start if name == "start_datetime" else end
        told = literal_column("agdc.dataset.metadata #>> '{properties,datetime}'", Text)
        return func.coalesce(func.agdc.common_timestamp(told), start, type_=TIME)

    def interval(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """First and last moment."""
        field = self.source.fields.get("time")
        if field is None:
            return cast(null(), TIME), cast(null(), TIME)
        return field.lower.alchemy_expression.element, field.greater.alchemy_expression.element

    def value(self, name: str, type_: type) -> ColumnElement[Any]:
        """A property as bool, float or str; null where it has another type."""
        self.kind(name)
        json_type, sql_type = JSON_TYPES[type_]
        if name in ("id", "collection"):
            plain = cast(DATASET.c.id, Text) if name == "id" else literal(self.source.product.name, Text)
            return plain if type_ is str else cast(null(), sql_type)
        found = self.json(name)
        return case(
            (func.jsonb_typeof(found) == json_type, cast(found.op("#>>")(literal_column("'{}'")), sql_type)),
            else_=None,
        )

    def is_null(self, name: str) -> ColumnElement[bool]:
        """Whether an item lacks the property."""
        if self.kind(name) == "time":
            return self.time(name).is_(None)
        if name in ("id", "collection"):
            return false()
        return self.json(name).is_(None)

    def json(self, name: str) -> ColumnElement[Any]:
        """A property as JSON, null where there is none."""
        eo3 = EO3_NAMES.get(name)
        own = eo3 if eo3 in self.source.properties else name
        column = DATASET.c.metadata.op("#>")(literal(["properties", own], ARRAY(Text)))
        return func.nullif(column, literal_column("'null'::jsonb"), type_=JSONB)

    def sort_key(self, name: str) -> ColumnElement[Any]:
        """What to order by."""
        if self.kind(name) == "time":
            return self.time(name)
        return self.value(name, str) if name in ("id", "collection") else self.json(name)

    def near(self, area: BaseGeometry) -> ColumnElement[bool]:
        """Whether the box around an item and that around a part of the area share a point.

        Scenes over the antimeridian are indexed with longitudes beyond 180.
        """
        lat, lon = self.source.fields.get("lat"), self.source.fields.get("lon")
        if lat is None or lon is None or self.source.summary.lon[0] is None:
            return false()
        low, high = self.source.summary.lon
        boxes = []
        for part in getattr(area, "geoms", (area,)):
            west, south, east, north = part.bounds
            boxes += [
                and_(_overlaps(lat, south, north), _overlaps(lon, west + shift, east + shift))
                for shift in (-360, 0, 360)
                if west + shift <= high and low <= east + shift
            ]
        return or_(false(), *boxes)

    def within(self, start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
        """Whether the interval of an item and this one, ends included, share a moment."""
        if start is None and end is None:
            return true()
        field = self.source.fields.get("time")
        if field is None:
            return false()
        wanted = func.tstzrange(cast(start, TIME), cast(end, TIME), "[]", type_=TSTZRANGE)
        return _plain(field).op("&&")(wanted)

    def rows(self, *more: ColumnElement[Any]) -> Select[Any]:
        """The active datasets: id, document, location, first and last moment, datetime, and more."""
        start, end = self.interval()
        return (
            select(
                DATASET.c.id,
                DATASET.c.metadata.label("document"),
                _LOCATION.label("location"),
                literal(self.source.product.name, Text).label("product"),
                start.label("start"),
                end.label("end"),
                self.time("datetime").label("moment"),
                *more,
            )
            # The number is written out, as the indexes of the product have it in their condition.
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


def _plain(field: Any) -> Any:
    return field.alchemy_expression.element


def _overlaps(field: Any, low: float, high: float) -> ColumnElement[bool]:
    # Boxes of the index are rounded: a pixel's edge must not fall between them and the area.
    low, high = low - 1e-9, high + 1e-9
    return _plain(field).op("&&")(func.agdc.float8range(low, high, "[]"))
