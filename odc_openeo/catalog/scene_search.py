"""Search the datasets of a product by area, interval and conditions on their metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from datacube.model import Range
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection

from odc_openeo.catalog.misplaced import LONGEST_OFFSET, is_misplaced
from odc_openeo.catalog.odc_internals import DATASET
from odc_openeo.catalog.scenes import DEFAULT_GRID, Scene, make_scene
from odc_openeo.catalog.search_columns import Source, SourceColumns
from odc_openeo.catalog.stac_documents import EO3_NAMES, Product
from odc_openeo.catalog.times import shift_moment
from odc_openeo.db import as_infrastructure_busy
from odc_openeo.errors import ProcessGraphComplexity, PropertiesUnsupported
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import list_turns, locate, locate_grid
from odc_openeo.spatial.reproject import project_near

EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

MARGIN = 1e-6
"""Degrees by which longitudes and latitudes in the index may be off."""

SMALL = 60.0
"""Degrees of longitude up to which the outlines of scenes are compared on their own map."""

FEW = 500
"""Datasets that are requested without counting them first."""


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
    index: Any,
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
    product = source.product
    names = {name: _resolve_property(product, name, property_names) for name in query.conditions}
    times = _limit_time(query, source)
    terms = {"product": product.name, **_time_terms(times), **_property_terms(product, query, names)}
    scenes: dict[str, Scene] = {}
    inside = _make_area_test(query.area)

    def add_matching(datasets: Iterable[Any]) -> None:
        for dataset in datasets:
            properties = dataset.metadata_doc.get("properties") or {}
            if str(dataset.id) not in scenes and _meets_conditions(query, properties, names):
                candidate = make_scene(dataset)
                if query.accepts_time(candidate) and inside(candidate):
                    scenes[candidate.id] = candidate

    for where in _area_terms(query.area, source.summary.lon):
        add_matching(_search_datasets(index, {**terms, **where}, limit))
    if query.area is not None and source.summary.misplaced:
        add_matching(_find_misplaced(index, connect, source, times, limit))
    return sorted(scenes.values(), key=lambda s: (s.time, s.id))


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


def _find_misplaced(
    index: Any,
    connect: Callable[[], AbstractContextManager[Connection]],
    source: Source,
    times: Interval,
    limit: int,
) -> list[Any]:
    """Find the datasets whose longitudes and latitudes in the index are wrong."""
    columns = SourceColumns(source)
    start, end = times
    statement = (
        columns.select_rows()
        .with_only_columns(DATASET.c.id, maintain_column_froms=True)
        .where(is_misplaced(source.summary.crs), columns.overlaps_interval(start, end))
        .limit(limit + 1)
    )
    with connect() as connection:
        ids = list(connection.scalars(statement))
    if len(ids) > limit:
        raise _make_too_many(f"more than {limit}", source.product.name, limit)
    with as_infrastructure_busy():
        return list(index.datasets.bulk_get(ids))


def _search_datasets(index: Any, terms: Mapping[str, Any], limit: int) -> list[Any]:
    first = min(limit, FEW)
    with as_infrastructure_busy():
        datasets = list(index.datasets.search(limit=first + 1, **terms))
        if len(datasets) <= first:
            return datasets
        # Counting is cheap; reading thousands of datasets only to refuse them is not.
        count = index.datasets.count(**terms)
        if count <= limit:
            return list(index.datasets.search(limit=limit + 1, **terms))
    raise _make_too_many(str(count), terms["product"], limit)


def _make_too_many(count: str, product: str, limit: int) -> ProcessGraphComplexity:
    return ProcessGraphComplexity(
        reason=f"{count} datasets of collection '{product}' lie in the given extents; at most "
        f"{limit} can be loaded at once. Choose a smaller spatial_extent or temporal_extent, or filter by "
        "properties."
    )


# --- Time ----------------------------------------------------------------------------------------


Interval = tuple[datetime | None, datetime | None]


def _limit_time(query: Query, source: Source) -> Interval:
    """An interval in which the index has all scenes that match: that of their validity or of their nominal
    times, whichever is shorter."""
    intervals = [(query.start, query.end), (query.first, query.last)]
    start, end = min(intervals, key=lambda interval: (interval[1] or EVER[1]) - (interval[0] or EVER[0]))
    if source.summary.has_offsets:
        start = None if start is None else shift_moment(start, -LONGEST_OFFSET)
        end = None if end is None else shift_moment(end, LONGEST_OFFSET)
    return start, end


def _time_terms(times: Interval) -> dict[str, Any]:
    start, end = times
    if start is None and end is None:
        return {}
    # The index treats the end of a time range as inclusive.
    return {"time": Range(start or EVER[0], end - timedelta(microseconds=1) if end is not None else EVER[1])}


# --- Area ----------------------------------------------------------------------------------------


def _area_terms(area: Geometry | None, longitudes: tuple[Any, Any]) -> Iterator[dict[str, Any]]:
    """Iterate over search terms for an area; ``longitudes`` are those of all datasets, as the index counts
    them."""
    if area is None:
        yield {}
        return
    located = locate(area)
    if located.is_empty or longitudes[0] is None:
        return
    west, south, east, north = located.bounds
    for turn in list_turns(west, east, longitudes[0] - MARGIN, longitudes[1] + MARGIN):
        yield {
            "lon": Range(west + turn - MARGIN, east + turn + MARGIN),
            "lat": Range(south - MARGIN, north + MARGIN),
        }


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


def _property_terms(product: Product, query: Query, names: Mapping[str, str]) -> dict[str, Any]:
    fields = {
        tuple(f.get("offset") or ()): (name, f.get("type", "string"))
        for name, f in product.search_fields.items()
    }
    terms: dict[str, Any] = {}
    for name, condition in query.conditions.items():
        field_name, type_ = fields.get(("properties", names[name]), (None, ""))
        term = _make_term(condition, type_)
        if field_name is not None and term is not None:
            terms[field_name] = term
    return terms


def _make_term(condition: Condition, type_: str) -> Any:
    if type_ in ("double", "float", "numeric", "integer"):
        low, high = condition.low, condition.high
        if low is None and high is None:
            return None
        # The index treats the end of a numeric range as exclusive.
        return Range(low, None if high is None else math.nextafter(high, math.inf))
    if type_ == "string" and isinstance(condition.equals, str):
        return condition.equals
    return None


def _meets_conditions(query: Query, properties: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    return all(condition.accepts(properties.get(names[name])) for name, condition in query.conditions.items())
