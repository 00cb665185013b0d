"""What loading processes are limited to: areas, times, conditions on metadata, and what a graph needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from odc_openeo import geometry, load
from odc_openeo.catalog import Condition
from odc_openeo.demand import SLACK, Box, Demand
from odc_openeo.errors import OpenEOError, ProcessParameterInvalid
from odc_openeo.process import Environment
from odc_openeo.processes.filters import check_box
from odc_openeo.processes.instants import interval
from odc_openeo.processes.resampling import new_grid, reference_system
from odc_openeo.warp import scale

SHRINK: Final = 2
"""How many times coarser a grid must be to be read on: the first overview of a file usually is."""


def limits(settings: Mapping[str, Any]) -> load.Limits:
    """How large a loaded cube may be, by the settings of a run."""
    standard = load.Limits()
    return load.Limits(
        settings.get("load_max_bytes", standard.bytes),
        settings.get("load_max_chunks", standard.chunks),
        settings.get("sketch_above"),
    )


def needed_times(demand: Demand) -> tuple[datetime | None, datetime | None]:
    """Start and end of what the rest of the graph needs."""
    if demand.interval is None:
        return None, None
    try:
        start, end = interval(demand.interval, "filter_temporal", "extent")
    except OpenEOError:
        # The filter that this comes from will say what is wrong with it.
        return None, None
    return _datetime(start), _datetime(end)


def only(demand: Demand, boxes: bool) -> load.Only:
    """What the rest of the graph needs of the cube."""
    start, end = needed_times(demand)
    names = None if demand.bands is None else frozenset(demand.bands)
    found = load.Only(names=names, start=start, end=end, view=demand.view)
    if demand.boxes is None or not boxes or _too_far(demand):
        return found
    try:
        needed = tuple(_rectangles(box, demand.elsewhere is not None) for box in demand.boxes)
    except OpenEOError:
        # The process that this comes from will say what is wrong with it.
        return found
    return replace(found, boxes=needed, margin=demand.margin)


def _too_far(demand: Demand) -> bool:
    """Whether more pixels around boxes are needed than its own, which may be smaller, would make up for."""
    return demand.elsewhere is not None and demand.elsewhere > SLACK


def _rectangles(box: Box, turned: bool) -> tuple[BoundingBox, ...]:
    """The rectangle of a box and those that limit it."""
    every = [asdict(one) for one in (box, *box.limits)]
    found = (_box(one, "filter_bbox").boundingbox for one in every)
    return tuple(_turned(one) if turned else one for one in found)


def _turned(rectangle: BoundingBox) -> BoundingBox:
    """What holds the upright box around a rectangle, whichever way up is, and however slanted a grid."""
    west, south, east, north = rectangle.bbox
    width, height = east - west, north - south
    if rectangle.crs.geographic:
        shrunk = max(0.01, math.cos(math.radians(max(abs(south), abs(north)))))
        width, height = width * shrunk, height / shrunk
    return BoundingBox(west - height, south - width, east + height, north + width, rectangle.crs)


def onto(env: Environment) -> Callable[[GeoBox], GeoBox | None] | None:
    """The grid to read on instead of that of the files, if that is all that is needed: see ADR 6."""
    wanted = env.demand.grid
    if wanted is None:
        return None

    def coarser(native: GeoBox) -> GeoBox | None:
        try:
            crs = reference_system(native, wanted.projection)
            target = env.grid or new_grid(native, wanted.resolution, crs, wanted.align)
        except OpenEOError:
            # The process that asks for it will say what is wrong.
            return None
        return target if min(scale(native, target)) >= SHRINK else None

    return coarser


def times(extent: Sequence[str | None] | None, process_id: str) -> tuple[datetime | None, datetime | None]:
    """Start and end of a temporal extent, None where it has no limit; the errors of `interval`."""
    if extent is None:
        return None, None
    start, end = interval(extent, process_id, "temporal_extent")
    return _datetime(start), _datetime(end)


def _datetime(time: np.datetime64 | None) -> datetime | None:
    return (
        None
        if time is None
        else datetime.fromisoformat(str(time.astype("datetime64[us]"))).replace(tzinfo=UTC)
    )


# --- Spatial extent ------------------------------------------------------------------------------


def is_box(extent: Any) -> bool:
    """Whether a spatial extent is a bounding box."""
    return isinstance(extent, Mapping) and "west" in extent


def area(extent: Any, process_id: str) -> Geometry | None:
    """The area of a spatial extent, None if it has no limit; ProcessParameterInvalid if it is nowhere."""
    if extent is None:
        return None
    if is_box(extent):
        return _box(extent, process_id)
    frame = geometry.read(extent, process_id, "spatial_extent")
    union = shapely.union_all(frame.geometry.to_numpy())
    if union.is_empty:
        raise _invalid(process_id, "all geometries are empty.")
    return _checked(Geometry(union, CRS(frame.crs)), process_id)


def _box(extent: Mapping[str, Any], process_id: str) -> Geometry:
    found = check_box(extent, process_id, "spatial_extent")
    return _checked(box(*found.bbox, found.crs), process_id)


def _checked(area: Geometry, process_id: str) -> Geometry:
    """The area itself if it has a place on Earth."""
    west, south, east, north = area.boundingbox.bbox
    if area.crs.geographic:
        if south < -90 or north > 90 or west < -360 or east > 360 or east - west > 360:
            raise _invalid(
                process_id,
                f"longitudes {west:g} to {east:g} and latitudes {south:g} to {north:g} are not on Earth. If "
                "the coordinates are in another reference system, name it in 'crs'.",
            )
        return area
    degrees = area.to_crs("EPSG:4326", resolution="auto").boundingbox.bbox
    if not all(math.isfinite(d) for d in degrees):
        raise _invalid(process_id, f"it is outside of where {area.crs} is valid.")
    return area


def _invalid(process_id: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process_id, parameter="spatial_extent", reason=reason)


# --- Conditions on properties --------------------------------------------------------------------


def condition(child: Callable[..., Any], name: str, process_id: str) -> Condition:
    """A child process as a condition; where it is a simple comparison, with bounds for the index."""
    answers: dict[Any, bool] = {}

    def accepts(value: Any) -> bool:
        key = (type(value), value) if isinstance(value, str | int | float | None) else None
        if key is None or key not in answers:
            answer = child(value=value)
            if answer is not None and not isinstance(answer, bool | np.bool_):
                reason = f"the condition on '{name}' must return true or false, not {str(answer)[:60]}."
                raise ProcessParameterInvalid(process=process_id, parameter="properties", reason=reason)
            if key is None:
                return bool(answer)
            answers[key] = bool(answer)
        return answers[key]

    return Condition(accepts, **_bounds(child))


def _bounds(child: Callable[..., Any]) -> dict[str, Any]:
    """What the index may search for, no narrower than the condition; nothing if it is not a plain
    comparison."""
    graph = getattr(child, "graph", None)
    if graph is None or len(graph.nodes) != 1:
        return {}
    (node,) = graph.nodes.values()
    arguments = node.arguments
    if node.definition is not None or arguments.get("x") != {"from_parameter": "value"}:
        return {}
    match node.process_id, arguments:
        case (("lt" | "lte"), {"y": int() | float() as y}):
            return {"high": y}
        case (("gt" | "gte"), {"y": int() | float() as y}):
            return {"low": y}
        case "between", {"min": int() | float() as low, "max": int() | float() as high}:
            return {"low": low, "high": high}
        case "eq", {"y": str() as y} if arguments.get("case_sensitive", True) is True:
            return {"equals": y}
        case "eq", {"y": int() | float() as y}:
            delta = arguments.get("delta") or 0
            return {"low": y - abs(delta), "high": y + abs(delta)} if isinstance(delta, int | float) else {}
    return {}
