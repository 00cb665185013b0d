"""Search the datasets of a product by area, interval and conditions on their metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from sqlalchemy import ColumnElement, Connection, func, select

from odc_openeo.catalog.eo_documents import as_eo3
from odc_openeo.catalog.index_driver import SearchBox
from odc_openeo.catalog.scenes import DEFAULT_GRID, Scene, make_scene
from odc_openeo.catalog.search_columns import Source, SourceColumns
from odc_openeo.catalog.stac_documents import EO3_NAMES, Product
from odc_openeo.catalog.times import shift_moment
from odc_openeo.errors import ProcessGraphComplexity, PropertiesUnsupported
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import list_turns, locate, locate_grid
from odc_openeo.spatial.reproject import project_near

EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

MARGIN = 1e-6
"""Degrees by which longitudes and latitudes in the index may be off."""

SMALL = 60.0
"""Degrees of longitude up to which the outlines of scenes are compared on their own map."""

MOMENT = timedelta(microseconds=1)

NUMERIC = ("double", "float", "numeric", "integer")
"""Types of search fields with a single number."""

FEW = 500
"""Datasets that are requested without counting them first."""

MOST_COUNTED = 100_000
"""Datasets up to which those that match are counted, to say how many too many there are."""


@dataclass(frozen=True)
class Condition:
    """A condition on a metadata property: ``accepts`` decides, the bounds only narrow the search in the
    index.

    ``low``/``high`` are inclusive; they and ``equals`` must match every value that ``accepts`` accepts.
    """

    accepts: Callable[[Any], bool]
    low: float | None = None
    high: float | None = None
    equals: str | float | None = None


@dataclass(frozen=True)
class Query:
    """A search for scenes: ``area`` in any reference system, valid at any time from ``start`` on and before
    ``end``, with the nominal time ``first`` ≤ time < ``last``; None is no limit."""

    area: Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None

    def accepts_time(self, candidate: Scene) -> bool:
        """Return whether a scene is valid in the interval and has a nominal time in that of those."""
        is_early = self.first is not None and candidate.time < self.first
        is_late = self.last is not None and self.last <= candidate.time
        return not is_early and not is_late and candidate.is_within(self.start, self.end)


def search_scenes(
    connect: Callable[[], AbstractContextManager[Connection]],
    source: Source,
    property_names: frozenset[str],
    query: Query,
    limit: int,
) -> list[Scene]:
    """Search the active datasets of a product, in order of time.

    ``property_names`` are the names of the properties that datasets of the product have; ``connect`` opens a
    connection to the index.

    Raises:
        PropertiesUnsupported: a condition on a property that the product does not have.
        ProcessGraphComplexity: more than ``limit`` datasets.
    """
    names = {name: _resolve_property(source.product, name, property_names) for name in query.conditions}
    conditions = _make_conditions(source, query, names)
    with connect() as connection:
        rows = _read_rows(connection, source, conditions, limit)
    inside = _make_area_test(query.area)
    scenes = []
    for row in rows:
        document = as_eo3(row.document, source.product.definition)
        if _meets_conditions(query, document.get("properties") or {}, names):
            candidate = make_scene(row, document)
            if query.accepts_time(candidate) and inside(candidate):
                scenes.append(candidate)
    return sorted(scenes, key=lambda s: (s.time, s.id))


def filter_scenes(scenes: Iterable[Scene], query: Query) -> list[Scene]:
    """Return the scenes that match, in order of time; a property that a scene lacks is null."""
    inside = _make_area_test(query.area)
    matches = (
        s
        for s in scenes
        if query.accepts_time(s)
        and all(c.accepts(s.properties.get(name)) for name, c in query.conditions.items())
        and inside(s)
    )
    return sorted(matches, key=lambda s: (s.time, s.id))


def _make_conditions(source: Source, query: Query, names: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Make the conditions that the indexes of the database support; all matching scenes meet them."""
    columns = SourceColumns(source)
    conditions = [columns.overlaps_interval(*_limit_time(query, source))]
    if query.area is not None:
        conditions.append(columns.overlaps_boxes(_list_boxes(query.area, source.bounds.lon)))
    return [*conditions, *_property_conditions(source, query, names)]


def _read_rows(
    connection: Connection, source: Source, conditions: Sequence[ColumnElement[bool]], limit: int
) -> list[Any]:
    statement = SourceColumns(source).select_documents().where(*conditions)
    first = min(limit, FEW)
    rows = list(connection.execute(statement.limit(first + 1)))
    if len(rows) <= first:
        return rows
    # Counting is cheap; reading thousands of datasets only to refuse them is not.
    most = max(limit, MOST_COUNTED)
    number = SourceColumns(source).dataset.c.id
    every = statement.with_only_columns(number, maintain_column_froms=True).limit(most + 1).subquery()
    count = connection.execute(select(func.count()).select_from(every)).scalar_one()
    if count <= limit:
        return list(connection.execute(statement.limit(limit + 1)))
    described = f"{count}" if count <= most else f"More than {most}"
    raise _make_too_many(described, source.product.name, limit)


def _make_too_many(count: str, product: str, limit: int) -> ProcessGraphComplexity:
    return ProcessGraphComplexity(
        reason=f"{count} datasets of collection '{product}' lie in the given extents; at most "
        f"{limit} can be loaded at once. Choose a smaller spatial_extent or temporal_extent, or filter by "
        "properties."
    )


# --- Time ----------------------------------------------------------------------------------------


Interval = tuple[datetime | None, datetime | None]


def _limit_time(query: Query, source: Source) -> Interval:
    """An interval, ends included, in which the index has all scenes that match: that of their validity or of
    their nominal times, whichever is shorter."""
    intervals = [(query.start, query.end), (query.first, query.last)]
    start, end = min(intervals, key=lambda interval: (interval[1] or EVER[1]) - (interval[0] or EVER[0]))
    return start, None if end is None else shift_moment(end, -MOMENT)


# --- Area ----------------------------------------------------------------------------------------


def _list_boxes(area: Geometry, longitudes: tuple[Any, Any]) -> list[SearchBox]:
    """List the boxes around an area; ``longitudes`` are those of all datasets, as the index counts them."""
    located = locate(area)
    if located.is_empty or longitudes[0] is None:
        return []
    west, south, east, north = located.bounds
    return [
        SearchBox(west + turn - MARGIN, south - MARGIN, east + turn + MARGIN, north + MARGIN)
        for turn in list_turns(west, east, longitudes[0] - MARGIN, longitudes[1] + MARGIN)
    ]


def _make_area_test(area: Geometry | None) -> Callable[[Scene], bool]:
    """Make the test whether a scene and the area share more than an edge."""
    if area is None:
        return lambda _: True
    degrees = locate(area)

    @cache
    def clip_to_grid(grid: GeoBox) -> BaseGeometry:
        return area.geom if area.crs == grid.crs else project_near(area, grid)

    def is_inside(candidate: Scene) -> bool:
        grid, footprint = candidate.grids[DEFAULT_GRID], candidate.footprint
        if footprint.crs == grid.crs and _is_small(grid):
            return _share_area(clip_to_grid(grid), footprint.geom)
        outline = locate(footprint)
        outline = locate_grid(grid) if outline.is_empty else outline
        if degrees.is_empty or outline.is_empty:
            return False
        low, _, high, _ = degrees.bounds
        turns = list_turns(low, high, outline.bounds[0], outline.bounds[2])
        return any(_share_area(translate(degrees, turn), outline) for turn in turns)

    return is_inside


def _is_small(grid: GeoBox) -> bool:
    """Return whether the map of a grid certainly has a single place for each point of a scene."""
    if has_degrees(str(grid.crs)):
        return False
    outline = locate_grid(grid)
    return not outline.is_empty and bool(outline.bounds[2] - outline.bounds[0] < SMALL)


def _share_area(one: BaseGeometry, other: BaseGeometry) -> bool:
    return bool(one.intersects(other) and not one.touches(other))


# --- Properties ----------------------------------------------------------------------------------


def _resolve_property(product: Product, name: str, property_names: frozenset[str]) -> str:
    """Resolve a name (of the property, in STAC, or of a search field) to the property in the datasets'
    documents."""
    declared: list[str] = list(product.search_fields.get(name, {}).get("offset") or ())
    if name in property_names:
        return EO3_NAMES[name] if name in EO3_NAMES and EO3_NAMES[name] in property_names else name
    if len(declared) == 2 and declared[0] == "properties":
        return str(declared[1])
    raise PropertiesUnsupported(
        f"Collection '{product.name}' has no metadata property '{name}'. "
        f"It has: {', '.join(sorted(property_names))}."
    )


def _property_conditions(
    source: Source, query: Query, names: Mapping[str, str]
) -> Iterator[ColumnElement[bool]]:
    """Iterate over conditions on the search fields that hold the properties."""
    fields = {
        tuple(f.get("offset") or ()): (source.fields.get(name), f.get("type", "string"))
        for name, f in source.product.search_fields.items()
    }
    for name, condition in query.conditions.items():
        field, type_ = fields.get(("properties", names[name]), (None, ""))
        if field is None:
            continue
        if type_ in NUMERIC and (condition.low is not None or condition.high is not None):
            yield source.driver.is_between(field, condition.low, condition.high)
        elif type_ == "string" and isinstance(condition.equals, str):
            yield source.driver.equals_string(field, condition.equals)


def _meets_conditions(query: Query, properties: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    return all(condition.accepts(properties.get(names[name])) for name, condition in query.conditions.items())
