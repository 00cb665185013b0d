"""What is known of a service before any tile is made: where it has data, when, and on which pixels."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from odc_openeo import geometry
from odc_openeo.catalog import Catalog
from odc_openeo.errors import CollectionNotFound, OpenEOError
from odc_openeo.rasterize import grid_of
from odc_openeo.services.evaluation import COARSEST_M, DEGREE_M, Result, ServiceEvaluator, nodes
from odc_openeo.services.grids import NativeGrid, native_of
from odc_openeo.services.model import Service
from odc_openeo.user_crs import CrsRefusedError, parse_crs

SKETCH_PIXELS: Final = 256
MERCATOR_LATITUDE: Final = 85.05

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


@dataclass(frozen=True)
class Outline:
    """Where a service has data (None if that is not known), its dates, its bands, the pixels of its data.

    ``coarsest_m`` is the size in metres of the largest pixels that are loaded. ``reason`` says why nothing
    is known.
    """

    bounds: Bounds | None = None
    times: Sequence[str] = ()
    native: NativeGrid | None = None
    coarsest_m: float = COARSEST_M
    reason: OpenEOError | None = None

    def touches(self, grid: GeoBox) -> bool:
        """Whether there may be data on a grid."""
        if self.bounds is None:
            return True
        around = 2 * self.coarsest_m / DEGREE_M
        west, south, east, north = self.bounds
        if east < west:
            return True
        shape = box(west, south, east, north, "EPSG:4326").buffer(around)
        return bool(shape.intersects(_degrees(grid)))


def _degrees(grid: GeoBox) -> Geometry:
    resolution = max(grid.shape) * abs(grid.resolution.x) / 16
    return grid.extent.to_crs("EPSG:4326", resolution=resolution)


def outline(evaluator: ServiceEvaluator, service: Service, log: logging.Logger) -> Outline:
    """Look at a service: the catalogue and the evaluated process tell, no pixel is read."""
    loads = [n for n in nodes(service.draft.process) if n["process_id"] == "load_collection"]
    found = [c for load in loads if (c := _collection(evaluator.catalog, load)) is not None]
    whole = _bounds(found)
    grids = [g for c, _ in found if (g := native_of(c["cube:dimensions"])) is not None]
    coarsest = max((_metres(c) for c, _ in found), default=COARSEST_M)
    known = Outline(whole, (), grids[0] if grids else None, coarsest)
    try:
        result = evaluator.evaluate_service(service, log, sketch_grid(known), None, coarsest)
    except OpenEOError as error:
        return Outline(whole, (), known.native, coarsest, error.detach())
    return Outline(whole or _extent_of(result), result.times, known.native, coarsest)


def sketch_grid(known: Outline) -> GeoBox | None:
    """A small grid over all data, None if it is not known where they are."""
    if known.bounds is None or known.bounds[2] < known.bounds[0]:
        return None
    west, south, east, north = known.bounds
    limits = max(south, -MERCATOR_LATITUDE), min(north, MERCATOR_LATITUDE)
    area = box(west, limits[0], east, limits[1], "EPSG:4326").to_crs("EPSG:3857", resolution=1.0)
    size = max(area.boundingbox.span_x, area.boundingbox.span_y) / SKETCH_PIXELS
    return GeoBox.from_bbox(area.boundingbox, crs="EPSG:3857", resolution=max(size, 1e-3))


def _collection(catalog: Catalog, load: Mapping[str, Any]) -> tuple[dict[str, Any], Any] | None:
    """The collection that a node loads and the extent it names, None if only evaluating tells."""
    arguments = load["arguments"]
    if not isinstance(arguments.get("id"), str):
        return None
    with contextlib.suppress(CollectionNotFound):
        return catalog.collection(arguments["id"]), arguments.get("spatial_extent")
    return None


def _bounds(found: Iterable[tuple[dict[str, Any], Any]]) -> Bounds | None:
    """Around all that is loaded."""
    parts = []
    for collection, extent in found:
        west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
        if east < west:
            return -180.0, south, 180.0, north
        whole = shapely.box(west, south, east, north)
        wanted = _wanted(extent)
        parts.append(whole if wanted is None else whole.intersection(wanted))
    union = shapely.union_all(parts)
    return None if not parts or union.is_empty else union.bounds


def _wanted(extent: Any) -> shapely.Geometry | None:
    """The extent that a node names in degrees, None if it names none or only evaluating tells."""
    if not isinstance(extent, Mapping) or "from_parameter" in extent or "from_node" in extent:
        return None
    try:
        if "west" in extent:
            corners = BoundingBox(*(float(extent[e]) for e in ("west", "south", "east", "north")))
            shape = box(*corners.bbox, CRS(parse_crs(extent.get("crs") or 4326)))
            return shape.to_crs("EPSG:4326", resolution="auto").geom
        frame = geometry.read(extent, "load_collection", "spatial_extent")
        return shapely.box(*frame.to_crs(4326).total_bounds)
    except (OpenEOError, CrsRefusedError, ValueError, TypeError, KeyError):
        # Evaluating it will say what is wrong with it.
        return None


def _metres(collection: Mapping[str, Any]) -> float:
    """The size of the pixels of a collection, about."""
    found = collection["cube:dimensions"].get("x") or {}
    step = found.get("step")
    if not step:
        return COARSEST_M
    metres = abs(step) * (DEGREE_M if found.get("reference_system") == 4326 else 1)
    # Bands may have larger pixels than the smallest, which this is.
    return float(max(metres * 10, 100)) if math.isfinite(metres) else COARSEST_M


def _extent_of(result: Result) -> Bounds | None:
    with contextlib.suppress(OpenEOError):
        return _degrees(grid_of(result.data, "save_result")).boundingbox.bbox
    return None
