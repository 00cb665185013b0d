"""Footprints of services: where, when and on which pixel grid they have data. No pixel is read for them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import shapely
from odc.geo.geobox import GeoBox
from odc.geo.geom import box
from shapely.geometry.base import BaseGeometry

from odc_openeo.catalog import Catalog
from odc_openeo.errors import CollectionNotFound, OpenEOError
from odc_openeo.services.evaluation import COARSEST_M, DEGREE_M, ServiceEvaluator, ServiceResult, walk_nodes
from odc_openeo.services.grids import CollectionGrid, find_native_grid
from odc_openeo.services.model import Service
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.boxes import Box, is_box
from odc_openeo.spatial.globe import cut_at_antimeridian, locate, locate_grid
from odc_openeo.spatial.rasterize import get_grid

SKETCH_PIXELS: Final = 256
MERCATOR_LATITUDE: Final = 85.05

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


@dataclass(frozen=True)
class Footprint:
    """Where a service has data (None if that is unknown), its dates, and the pixel grid of its data.

    ``coarsest_m`` is the size in metres of the largest pixels that are loaded. ``reason`` is the error of the
    evaluation, if it failed.
    """

    bounds: Bounds | None = None
    times: Sequence[str] = ()
    native: CollectionGrid | None = None
    coarsest_m: float = COARSEST_M
    reason: OpenEOError | None = None

    def touches(self, grid: GeoBox) -> bool:
        """Whether there may be data within a grid."""
        if self.bounds is None:
            return True
        around = 2 * self.coarsest_m / DEGREE_M
        west, south, east, north = self.bounds
        if east < west:
            return True
        shape = shapely.box(west, south, east, north).buffer(around)
        return bool(shape.intersects(_reproject_extent(grid)))


def _reproject_extent(grid: GeoBox) -> BaseGeometry:
    return cut_at_antimeridian(locate_grid(grid))


def compute_footprint(evaluator: ServiceEvaluator, service: Service, log: logging.Logger) -> Footprint:
    """Derive the footprint of a service from the catalogue and from its lazily evaluated process."""
    loads = [n for n in walk_nodes(service.draft.process) if n["process_id"] == "load_collection"]
    collections = [c for load in loads if (c := _find_collection(evaluator.catalog, load)) is not None]
    bounds = _find_bounds(collections)
    grids = [g for c, _ in collections if (g := find_native_grid(c["cube:dimensions"])) is not None]
    coarsest_m = max((_estimate_pixel_size(c) for c, _ in collections), default=COARSEST_M)
    expected = Footprint(bounds, (), grids[0] if grids else None, coarsest_m)
    try:
        result = evaluator.evaluate_service(service, log, find_sketch_grid(expected), None, coarsest_m)
    except OpenEOError as error:
        return Footprint(bounds, (), expected.native, coarsest_m, error.detach())
    return Footprint(bounds or _find_result_bounds(result), result.times, expected.native, coarsest_m)


def find_sketch_grid(footprint: Footprint) -> GeoBox | None:
    """Return a small grid over all data, None if it is unknown where they are."""
    if footprint.bounds is None or footprint.bounds[2] < footprint.bounds[0]:
        return None
    west, south, east, north = footprint.bounds
    limits = max(south, -MERCATOR_LATITUDE), min(north, MERCATOR_LATITUDE)
    area = box(west, limits[0], east, limits[1], "EPSG:4326").to_crs("EPSG:3857", resolution=1.0)
    size = max(area.boundingbox.span_x, area.boundingbox.span_y) / SKETCH_PIXELS
    return GeoBox.from_bbox(area.boundingbox, crs="EPSG:3857", resolution=max(size, 1e-3))


def _find_collection(catalog: Catalog, load: Mapping[str, Any]) -> tuple[dict[str, Any], Any] | None:
    """Return the collection and the extent that a node loads, None if only evaluation can tell them."""
    arguments = load["arguments"]
    if not isinstance(arguments.get("id"), str):
        return None
    with contextlib.suppress(CollectionNotFound):
        return catalog.get_collection(arguments["id"]), arguments.get("spatial_extent")
    return None


def _find_bounds(collections: Iterable[tuple[dict[str, Any], Any]]) -> Bounds | None:
    """Return the bounds of all data that are loaded, None if there are none."""
    parts = []
    for collection, extent in collections:
        west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
        if east < west:
            return -180.0, south, 180.0, north
        whole = shapely.box(west, south, east, north)
        filter_area = _find_filter_area(extent)
        parts.append(whole if filter_area is None else whole.intersection(filter_area))
    union = shapely.union_all(parts)
    return None if not parts or union.is_empty else union.bounds


def _find_filter_area(extent: Any) -> shapely.Geometry | None:
    """Return the extent that a node loads in degrees, None if it has none or only evaluation can tell it."""
    if not isinstance(extent, Mapping) or "from_parameter" in extent or "from_node" in extent:
        return None
    try:
        if is_box(extent):
            rectangle = Box.parse(extent, "load_collection", "spatial_extent").polygon
            return cut_at_antimeridian(locate(rectangle))
        frame = vector_cubes.read_geometries(extent, "load_collection", "spatial_extent")
        return shapely.box(*frame.to_crs(4326).total_bounds)
    except (OpenEOError, ValueError, TypeError, KeyError):
        # The evaluation reports what is wrong with it.
        return None


def _estimate_pixel_size(collection: Mapping[str, Any]) -> float:
    """Estimate the size in metres of the largest pixels of a collection."""
    dimension = collection["cube:dimensions"].get("x") or {}
    step = dimension.get("step")
    if not step:
        return COARSEST_M
    metres = abs(step) * (DEGREE_M if dimension.get("reference_system") == 4326 else 1)
    # The step is that of the smallest pixels; other bands may have larger ones.
    return float(max(metres * 10, 100)) if math.isfinite(metres) else COARSEST_M


def _find_result_bounds(result: ServiceResult) -> Bounds | None:
    with contextlib.suppress(OpenEOError):
        outline = _reproject_extent(get_grid(result.data, "save_result"))
        return None if outline.is_empty else outline.bounds
    return None
