"""Which datasets of a product lie in an area and an interval and fulfil conditions on their metadata."""

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

from odc_openeo.catalog.scenes import DEFAULT_GRID, Scene, nominal_time, scene
from odc_openeo.catalog.stac import STAC_NAMES, Product
from odc_openeo.db import reachable
from odc_openeo.errors import ProcessGraphComplexity, PropertiesUnsupported

WGS84 = CRS("EPSG:4326")
EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

FEW = 500
"""Datasets that are asked for without counting them before."""

EO3_NAMES = {stac: eo3 for eo3, stac in STAC_NAMES.items()}


@dataclass(frozen=True)
class Condition:
    """A condition on a metadata property: ``accepts`` decides, the bounds only narrow the search in the
    index.

    ``low``/``high`` are inclusive; they and ``equals`` must let through every value that ``accepts`` takes.
    """

    accepts: Callable[[Any], bool]
    low: float | None = None
    high: float | None = None
    equals: str | float | None = None


@dataclass(frozen=True)
class Query:
    """What is searched: ``area`` in any reference system, ``start`` ≤ time < ``end``; None is no limit."""

    area: Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)


def search(index: Any, product: Product, known: frozenset[str], query: Query, limit: int) -> list[Scene]:
    """The active datasets that match, in order of time.

    ``known`` are the names of the properties that datasets of the product have.

    Raises:
        PropertiesUnsupported: a condition on a property that the product does not have.
        ProcessGraphComplexity: more than ``limit`` datasets.
    """
    wanted = {name: _own_name(product, name, known) for name in query.conditions}
    terms = {"product": product.name, **_time(query), **_properties(product, query, wanted)}
    found: dict[str, Scene] = {}
    inside = _area_test(query.area)
    for where in _longitudes(query.area):
        for dataset in _datasets(index, {**terms, **where}, limit):
            properties = dataset.metadata_doc.get("properties") or {}
            if _matches(query, properties, wanted, str(dataset.id)):
                candidate = scene(dataset)
                if inside(candidate):
                    found[candidate.id] = candidate
    return sorted(found.values(), key=lambda s: (s.time, s.id))


def matching(scenes: Iterable[Scene], query: Query) -> list[Scene]:
    """Those of the scenes that match, in order of time; a property that a scene lacks is null."""
    inside = _area_test(query.area)
    found = (
        s
        for s in scenes
        if _in_interval(query, s.time)
        and all(c.accepts(s.properties.get(name)) for name, c in query.conditions.items())
        and inside(s)
    )
    return sorted(found, key=lambda s: (s.time, s.id))


def _datasets(index: Any, terms: Mapping[str, Any], limit: int) -> list[Any]:
    first = min(limit, FEW)
    with reachable():
        datasets = list(index.datasets.search(limit=first + 1, **terms))
        if len(datasets) <= first:
            return datasets
        # Counting is cheap; making thousands of datasets only to refuse them is not.
        count = index.datasets.count(**terms)
        if count <= limit:
            return list(index.datasets.search(limit=limit + 1, **terms))
    raise ProcessGraphComplexity(
        reason=f"{count} datasets of collection '{terms['product']}' lie in the given extents; at most "
        f"{limit} can be loaded at once. Choose a smaller spatial_extent or temporal_extent, or filter by "
        "properties."
    )


# --- Time ----------------------------------------------------------------------------------------


def _time(query: Query) -> dict[str, Any]:
    if query.start is None and query.end is None:
        return {}
    # The index takes the end of a range for part of it.
    end = query.end - timedelta(microseconds=1) if query.end is not None else EVER[1]
    return {"time": Range(query.start or EVER[0], end)}


def _in_interval(query: Query, time: datetime) -> bool:
    return (query.start is None or query.start <= time) and (query.end is None or time < query.end)


# --- Area ----------------------------------------------------------------------------------------


def _longitudes(area: Geometry | None) -> Iterator[dict[str, Any]]:
    """Search terms for an area; scenes over the antimeridian are indexed with longitudes beyond 180."""
    if area is None:
        yield {}
        return
    west, south, east, north = area.to_crs(WGS84, resolution="auto").boundingbox
    shifts = [0, *([360] if west < 0 else []), *([-360] if east > 180 else [])]
    for shift in shifts:
        yield {"lon": Range(west + shift, east + shift), "lat": Range(south, north)}


def _area_test(area: Geometry | None) -> Callable[[Scene], bool]:
    """Whether a scene and the area share more than an edge."""
    if area is None:
        return lambda _: True
    degrees = area if area.crs.geographic else area.to_crs(WGS84, resolution="auto", check_and_fix=True)

    @cache
    def near(grid: GeoBox) -> Geometry:
        return area if area.crs == grid.crs else _near(degrees, grid)

    def inside(candidate: Scene) -> bool:
        wanted = near(candidate.grids[DEFAULT_GRID]).geom
        footprint = candidate.footprint.geom
        return bool(wanted.intersects(footprint) and not wanted.touches(footprint))

    return inside


def _near(area: Geometry, grid: GeoBox) -> Geometry:
    """What of an area in degrees is around a grid, in the grid's reference system.

    The rest of the world may have no place in that system; longitudes may be written either side of 180.
    """
    west, south, east, north = lonlat_bounds(grid.extent, mode="safe", resolution=None).bbox
    dx, dy = (east - west) * 0.5, (north - south) * 0.5
    around = shapely.box(west - dx, south - dy, east + dx, north + dy)
    parts = [translate(area.geom, shift).intersection(around) for shift in (-360, 0, 360)]
    found = Geometry(shapely.union_all(parts), area.crs)
    return found if found.is_empty else found.to_crs(grid.crs, resolution="auto", check_and_fix=True)


# --- Properties ----------------------------------------------------------------------------------


def _own_name(product: Product, name: str, known: frozenset[str]) -> str:
    """The property in the datasets' documents that is meant: by its own, its STAC or its search field's
    name."""
    declared: list[str] = list(product.search_fields.get(name, {}).get("offset") or ())
    if name in known:
        return EO3_NAMES[name] if name in EO3_NAMES and EO3_NAMES[name] in known else name
    if len(declared) == 2 and declared[0] == "properties":
        return str(declared[1])
    raise PropertiesUnsupported(
        f"Collection '{product.name}' has no metadata property '{name}'. It has: {', '.join(sorted(known))}."
    )


def _properties(product: Product, query: Query, wanted: Mapping[str, str]) -> dict[str, Any]:
    fields = {
        tuple(f.get("offset") or ()): (name, f.get("type", "string"))
        for name, f in product.search_fields.items()
    }
    terms: dict[str, Any] = {}
    for name, condition in query.conditions.items():
        field_name, type_ = fields.get(("properties", wanted[name]), (None, ""))
        term = _term(condition, type_)
        if field_name is not None and term is not None:
            terms[field_name] = term
    return terms


def _term(condition: Condition, type_: str) -> Any:
    if type_ in ("double", "float", "numeric", "integer"):
        low, high = condition.low, condition.high
        if low is None and high is None:
            return None
        # The index takes the end of a numeric range as excluded.
        return Range(low, None if high is None else math.nextafter(high, math.inf))
    if type_ == "string" and isinstance(condition.equals, str):
        return condition.equals
    return None


def _matches(query: Query, properties: Mapping[str, Any], wanted: Mapping[str, str], id_: str) -> bool:
    return _in_interval(query, nominal_time(properties, id_)) and all(
        condition.accepts(properties.get(wanted[name])) for name, condition in query.conditions.items()
    )
