"""Parse the arguments of loading processes, together with what the rest of their graph needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from odc_openeo.catalog import Condition, LoadHint, Query
from odc_openeo.cube.instants import parse_interval
from odc_openeo.errors import OpenEOError, ProcessParameterInvalid
from odc_openeo.load.chunking import Volume
from odc_openeo.load.subset import Subset
from odc_openeo.registry.demand import SLACK, Demand
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.boxes import FARTHEST_LONGITUDE, Box, is_box
from odc_openeo.spatial.globe import locate
from odc_openeo.spatial.new_grid import get_reference_system, make_grid
from odc_openeo.spatial.reference_system_names import name_crs
from odc_openeo.spatial.warp import pixel_scale

SHRINK: Final = 2
"""How many times coarser a grid must be to be read on: the first overview of a file usually is."""

ChooseGrid = Callable[[GeoBox], GeoBox | None]
"""From the native grid of the data to a coarser one to read on; None to stay on the native grid."""


@dataclass(frozen=True)
class LoadRequest:
    """The request of a load.

    ``query`` selects datasets by area, time and metadata. If the spatial extent is not a bounding box,
    ``geometries`` holds it: pixels outside of all of them become no-data. ``band_names`` are in the order of
    the result, None for all. ``subset`` is the part that the rest of the graph needs, ``choose_grid`` a
    coarser grid if that is all it needs (see ADR 6). ``hint`` is the grid for data in several reference
    systems, None for one of theirs. ``part`` is the part of this that will be computed, None for all.
    ``loaded`` has the loads of the graph before this one, which is added to them.
    """

    process_id: str = "load_collection"
    query: Query = field(default_factory=Query)
    geometries: Any = None
    band_names: Sequence[str] | None = None
    subset: Subset = field(default_factory=Subset)
    choose_grid: ChooseGrid | None = None
    limits: RunLimits = field(default_factory=RunLimits)
    loaded: list[Volume] = field(default_factory=list)
    hint: LoadHint | None = None
    part: Subset | None = None

    @property
    def area(self) -> Geometry | None:
        """Where to load, None for everywhere."""
        return self.query.area


def parse_request(
    process_id: str,
    env: Environment,
    spatial_extent: Any,
    temporal_extent: Sequence[str | None] | None,
    bands: Sequence[str] | None,
    properties: Mapping[str, Callable[..., Any]] | None = None,
) -> LoadRequest:
    """Parse the arguments of a loading process.

    Raises:
        ProcessParameterInvalid: the spatial extent is not a place on Earth, or has no valid CRS.
        TemporalExtentEmpty: the end is not later than the start.
    """
    start, end = _parse_times(temporal_extent, process_id)
    conditions = {
        name: parse_condition(accepts, name, process_id) for name, accepts in (properties or {}).items()
    }
    has_geometries = spatial_extent is not None and not is_box(spatial_extent)
    return LoadRequest(
        process_id,
        Query(_parse_area(spatial_extent, process_id), start, end, conditions),
        spatial_extent if has_geometries else None,
        bands,
        select_subset(env.demand, crop=not has_geometries),
        None if has_geometries else _make_grid_choice(env),
        env.limits,
        env.loads,
        part=None if env.part is None else select_part(env.part),
    )


# --- What the rest of the graph needs ------------------------------------------------------------


def select_times(demand: Demand) -> tuple[datetime | None, datetime | None]:
    """Start and end of what the rest of the graph needs, None where it has no limit."""
    if demand.interval is None:
        return None, None
    try:
        start, end = parse_interval(demand.interval, "filter_temporal", "extent")
    except OpenEOError:
        # The filter that this comes from will say what is wrong with it.
        return None, None
    return _to_datetime(start), _to_datetime(end)


def select_subset(demand: Demand, *, crop: bool) -> Subset:
    """The part of the cube that the rest of the graph needs; without ``crop`` it has no limits in space."""
    start, end = select_times(demand)
    names = None if demand.bands is None else frozenset(demand.bands)
    uncropped = Subset(names=names, start=start, end=end, view=demand.view)
    if demand.boxes is None or not crop or _needs_wide_margin(demand):
        return uncropped
    try:
        boxes = tuple(_check_box(box, demand.elsewhere is not None) for box in demand.boxes)
    except OpenEOError:
        # The process that this comes from will say what is wrong with it.
        return uncropped
    return replace(uncropped, boxes=boxes, margin=demand.margin)


def select_part(demand: Demand) -> Subset:
    """The part of the cube that will be computed if only a part of a job is."""
    if demand.boxes is None or not demand.in_part:
        return Subset()
    # A subset has one pixel more than its margin all around. Where no process looks beyond a pixel, windows
    # that begin at blocks of files must do so exactly: the same blocks would be read for several parts.
    return Subset(boxes=demand.boxes, margin=demand.margin or -1)


def _needs_wide_margin(demand: Demand) -> bool:
    """Whether more pixels around boxes are needed than its own, which may be smaller, would make up for."""
    return demand.elsewhere is not None and demand.elsewhere > SLACK


def _check_box(box: Box, turned: bool) -> Box:
    """A box of a demand and its limits, checked as a user's box is."""
    limits = tuple(_check_box(limit, turned) for limit in box.limits)
    checked = Box.parse(vars(box), "filter_bbox", "spatial_extent")
    _check_is_on_earth(checked.polygon, "filter_bbox")
    return replace(_enclose_turned(checked) if turned else checked, limits=limits)


def _enclose_turned(box: Box) -> Box:
    """A box that holds the axis-aligned box around a rectangle on any grid, however turned or slanted."""
    width, height = box.east - box.west, box.north - box.south
    if CRS(box.crs).geographic:
        shrunk = max(0.01, math.cos(math.radians(max(abs(box.south), abs(box.north)))))
        width, height = width * shrunk, height / shrunk
    return Box(box.west - height, box.south - width, box.east + height, box.north + width, box.crs)


def _make_grid_choice(env: Environment) -> ChooseGrid | None:
    grid = env.demand.grid
    if grid is None:
        return None

    def choose_coarser_grid(native: GeoBox) -> GeoBox | None:
        try:
            crs = get_reference_system(native, grid.projection)
            target = env.grid or make_grid(native, grid.resolution, crs, grid.align)
        except OpenEOError:
            # The process that asks for it will say what is wrong.
            return None
        return target if min(pixel_scale(native, target)) >= SHRINK else None

    return choose_coarser_grid


# --- Extents -------------------------------------------------------------------------------------


def _parse_times(
    extent: Sequence[str | None] | None, process_id: str
) -> tuple[datetime | None, datetime | None]:
    if extent is None:
        return None, None
    start, end = parse_interval(extent, process_id, "temporal_extent")
    return _to_datetime(start), _to_datetime(end)


def _to_datetime(time: np.datetime64 | None) -> datetime | None:
    if time is None:
        return None
    return datetime.fromisoformat(str(time.astype("datetime64[us]"))).replace(tzinfo=UTC)


def _parse_area(extent: Any, process_id: str) -> Geometry | None:
    if extent is None:
        return None
    if is_box(extent):
        area = Box.parse(extent, process_id, "spatial_extent").polygon
    else:
        frame = vector_cubes.read_geometries(extent, process_id, "spatial_extent")
        union = shapely.union_all(frame.geometry.to_numpy())
        if union.is_empty:
            raise _invalid_extent(process_id, "all geometries are empty.")
        area = Geometry(union, CRS(frame.crs))
    _check_is_on_earth(area, process_id)
    return area


def _check_is_on_earth(area: Geometry, process_id: str) -> None:
    west, south, east, north = area.boundingbox.bbox
    if area.crs.geographic:
        if south < -90 or north > 90 or max(abs(west), abs(east)) > FARTHEST_LONGITUDE:
            raise _invalid_extent(
                process_id,
                f"longitudes {west:g} to {east:g} and latitudes {south:g} to {north:g} are not on Earth. If "
                "the coordinates are in another reference system, name it in 'crs'.",
            )
        return
    if locate(area).is_empty:
        raise _invalid_extent(process_id, f"it is outside of where {name_crs(area.crs)} is valid.")


def _invalid_extent(process_id: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process_id, parameter="spatial_extent", reason=reason)


# --- Conditions on properties --------------------------------------------------------------------


def parse_condition(predicate: Callable[..., Any], name: str, process_id: str) -> Condition:
    """A child process as a condition; where it is a simple comparison, with bounds for the index."""
    answers: dict[Any, bool] = {}

    def accepts(value: Any) -> bool:
        key = (type(value), value) if isinstance(value, str | int | float | None) else None
        if key is None or key not in answers:
            answer = predicate(value=value)
            if answer is not None and not isinstance(answer, bool | np.bool_):
                reason = f"the condition on '{name}' must return true or false, not {str(answer)[:60]}."
                raise ProcessParameterInvalid(process=process_id, parameter="properties", reason=reason)
            if key is None:
                return bool(answer)
            answers[key] = bool(answer)
        return answers[key]

    return Condition(accepts, **_find_bounds(predicate))


def _find_bounds(child: Callable[..., Any]) -> dict[str, Any]:
    """Bounds that the index may search by, no narrower than the condition; none if it is not a plain
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
