"""Search the datasets of a product by area, interval and conditions on their metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import shapely
from datacube.model import Range
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, lonlat_bounds
from shapely.affinity import translate

from odc_openeo.catalog.scenes import DEFAULT_GRID, Scene, get_nominal_time, make_scene
from odc_openeo.catalog.stac_documents import EO3_NAMES, Product
from odc_openeo.db import as_infrastructure_busy
from odc_openeo.errors import ProcessGraphComplexity, PropertiesUnsupported

WGS84 = CRS("EPSG:4326")
EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

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
    """A search for scenes: ``area`` in any reference system, ``start`` ≤ time < ``end``; None is no limit."""

    area: Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)


def search_scenes(
    index: Any, product: Product, property_names: frozenset[str], query: Query, limit: int
) -> list[Scene]:
    """Search the active datasets of a product, in order of time.

    ``known`` are the names of the properties that datasets of the product have.

    Raises:
        PropertiesUnsupported: a condition on a property that the product does not have.
        ProcessGraphComplexity: more than ``limit`` datasets.
    """
    names = {name: _resolve_property(product, name, property_names) for name in query.conditions}
    terms = {"product": product.name, **_time_terms(query), **_property_terms(product, query, names)}
    scenes: dict[str, Scene] = {}
    inside = _make_area_test(query.area)
    for where in _area_terms(query.area):
        for dataset in _search_datasets(index, {**terms, **where}, limit):
            properties = dataset.metadata_doc.get("properties") or {}
            if _matches_query(query, properties, names, str(dataset.id)):
                candidate = make_scene(dataset)
                if inside(candidate):
                    scenes[candidate.id] = candidate
    return sorted(scenes.values(), key=lambda s: (s.time, s.id))


def filter_scenes(scenes: Iterable[Scene], query: Query) -> list[Scene]:
    """Return the scenes that match, in order of time; a property that a scene lacks is null."""
    inside = _make_area_test(query.area)
    matches = (
        s
        for s in scenes
        if _in_interval(query, s.time)
        and all(c.accepts(s.properties.get(name)) for name, c in query.conditions.items())
        and inside(s)
    )
    return sorted(matches, key=lambda s: (s.time, s.id))


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
    raise ProcessGraphComplexity(
        reason=f"{count} datasets of collection '{terms['product']}' lie in the given extents; at most "
        f"{limit} can be loaded at once. Choose a smaller spatial_extent or temporal_extent, or filter by "
        "properties."
    )


# --- Time ----------------------------------------------------------------------------------------


def _time_terms(query: Query) -> dict[str, Any]:
    if query.start is None and query.end is None:
        return {}
    # The index treats the end of a time range as inclusive.
    end = query.end - timedelta(microseconds=1) if query.end is not None else EVER[1]
    return {"time": Range(query.start or EVER[0], end)}


def _in_interval(query: Query, time: datetime) -> bool:
    return (query.start is None or query.start <= time) and (query.end is None or time < query.end)


# --- Area ----------------------------------------------------------------------------------------


def _area_terms(area: Geometry | None) -> Iterator[dict[str, Any]]:
    """Iterate over search terms for an area; longitudes of scenes over the antimeridian go beyond 180."""
    if area is None:
        yield {}
        return
    west, south, east, north = area.to_crs(WGS84, resolution="auto").boundingbox
    shifts = [0, *([360] if west < 0 else []), *([-360] if east > 180 else [])]
    for shift in shifts:
        yield {"lon": Range(west + shift, east + shift), "lat": Range(south, north)}


def _make_area_test(area: Geometry | None) -> Callable[[Scene], bool]:
    """Make the test whether a scene and the area share more than an edge."""
    if area is None:
        return lambda _: True
    degrees = area if area.crs.geographic else area.to_crs(WGS84, resolution="auto", check_and_fix=True)

    @cache
    def clip_to_grid(grid: GeoBox) -> Geometry:
        return area if area.crs == grid.crs else _clip_near(degrees, grid)

    def is_inside(candidate: Scene) -> bool:
        shape = clip_to_grid(candidate.grids[DEFAULT_GRID]).geom
        footprint = candidate.footprint.geom
        return bool(shape.intersects(footprint) and not shape.touches(footprint))

    return is_inside


def _clip_near(area: Geometry, grid: GeoBox) -> Geometry:
    """Clip an area in degrees to the surroundings of a grid, in the reference system of the grid.

    The rest of the world may be undefined in that system; longitudes may be on either side of 180.
    """
    west, south, east, north = lonlat_bounds(grid.extent, mode="safe", resolution=None).bbox
    dx, dy = (east - west) * 0.5, (north - south) * 0.5
    around = shapely.box(west - dx, south - dy, east + dx, north + dy)
    parts = [translate(area.geom, shift).intersection(around) for shift in (-360, 0, 360)]
    clipped = Geometry(shapely.union_all(parts), area.crs)
    return clipped if clipped.is_empty else clipped.to_crs(grid.crs, resolution="auto", check_and_fix=True)


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


def _matches_query(query: Query, properties: Mapping[str, Any], names: Mapping[str, str], id_: str) -> bool:
    return _in_interval(query, get_nominal_time(properties, id_)) and all(
        condition.accepts(properties.get(names[name])) for name, condition in query.conditions.items()
    )
