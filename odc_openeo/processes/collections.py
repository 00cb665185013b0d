"""Load collections as data cubes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import shapely
import xarray as xr
from odc.geo import CRS
from odc.geo.geom import Geometry, box

from odc_openeo import geometry, load
from odc_openeo.catalog import Catalog, Condition, Query, Scene, resolve
from odc_openeo.demand import Demand
from odc_openeo.errors import NoDataAvailable, OpenEOError, ProcessGraphComplexity, ProcessParameterInvalid
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes.filters import INSTANT, check_box
from odc_openeo.processes.geometry_filters import filter_spatial
from odc_openeo.processes.instants import interval
from odc_openeo.processes.schemas import ANY_JSON, BOUNDING_BOX, GEOMETRY, datacube_schema

NAME = "load_collection"

CollectionId = Annotated[
    str, Schema({"type": "string", "subtype": "collection-id", "pattern": r"^[\w\-\.~/]+$"})
]
SpatialExtent = Annotated[
    Mapping[str, Any] | xr.Dataset | xr.DataArray | None,
    Schema(
        [
            {"title": "Bounding Box", **BOUNDING_BOX},
            {
                "title": "GeoJSON",
                "description": "What is outside becomes no-data. Better loaded with load_geojson.",
                "type": "object",
                "subtype": "geojson",
                "deprecated": True,
            },
            {
                "title": "Vector data cube",
                "description": "Pixels outside of the geometries become no-data.",
                **datacube_schema(GEOMETRY),
            },
            {"title": "No filter", "description": "The whole collection.", "type": "null"},
        ]
    ),
]
TemporalExtent = Annotated[
    Sequence[str | None] | None,
    Schema(
        [
            {
                "type": "array",
                "subtype": "temporal-interval",
                "uniqueItems": True,
                "minItems": 2,
                "maxItems": 2,
                "items": INSTANT,
                "examples": [
                    ["2015-01-01T00:00:00Z", "2016-01-01T00:00:00Z"],
                    ["2015-01-01", "2016-01-01"],
                ],
            },
            {"title": "No filter", "description": "All dates.", "type": "null"},
        ]
    ),
]
BandNames = Annotated[
    Sequence[str] | None,
    Schema(
        [
            {"type": "array", "minItems": 1, "items": {"type": "string", "subtype": "band-name"}},
            {"title": "No filter", "description": "All bands.", "type": "null"},
        ]
    ),
]
PROPERTY_CONDITION = {
    "type": "object",
    "subtype": "process-graph",
    "parameters": [{"name": "value", "description": "The value of the property.", "schema": ANY_JSON}],
    "returns": {"description": "`true` if the data is to be loaded.", "schema": {"type": "boolean"}},
}
PropertyConditions = Annotated[
    Mapping[str, Callable[..., Any]] | None,
    Schema(
        [
            {
                "type": "object",
                "subtype": "metadata-filter",
                "title": "Filters",
                "description": "Conditions by the name of the property.",
                "additionalProperties": PROPERTY_CONDITION,
            },
            {"title": "No filter", "description": "No condition.", "type": "null"},
        ]
    ),
]
LoadedCube = Annotated[xr.DataArray, Schema(datacube_schema())]


@process(categories=["cubes", "import"])
def load_collection(
    id: CollectionId,
    spatial_extent: SpatialExtent,
    temporal_extent: TemporalExtent,
    bands: BandNames = None,
    properties: PropertyConditions = None,
    *,
    env: Environment,
) -> LoadedCube:
    """Load a collection as a data cube.

    The cube has the dimensions t, bands, y and x and the pixel grid of the files: no pixel is moved. Where
    the data is in several reference systems (zones), the cube is in the one that covers most of the area,
    the rest is warped to it with nearest neighbour; bands with larger pixels are resampled to the smallest
    pixels in the same way. Values are as in the files: scale and offset are not applied. Scenes of the same
    time are one label along t.

    Args:
        id: The id of the collection.
        spatial_extent: Where to load. Of a bounding box the pixels are loaded whose centre is in the smallest
            upright box around it in the reference system of the data; of geometries the same, and what is
            outside of all of them becomes no-data. Null loads everything, which is refused if it is too much.
        temporal_extent: When, as start and end (dates or date-times); the end does not belong to it. One of
            them may be null, which means no limit; null for both is written as null.
        bands: Which bands in which order, by name, common name or alias; all of them by default.
        properties: Conditions on metadata of the scenes; those are loaded for which all return `true`.

    Returns:
        The data cube.

    Raises:
        NoDataAvailable: Nothing was found in the given extents.
        TemporalExtentEmpty: The end is not later than the start.
    """
    catalog: Catalog = env.catalog
    product = catalog.product(id)
    wanted = resolve(product.bands, bands)
    area = _area(spatial_extent)
    start, end = (
        (None, None) if temporal_extent is None else interval(temporal_extent, NAME, "temporal_extent")
    )
    conditions = {name: _condition(accepts, name) for name, accepts in (properties or {}).items()}
    query = Query(area, _datetime(start), _datetime(end), conditions)
    scenes = _search(catalog, id, query, env)
    is_box = _is_box(spatial_extent)
    loaded = load.load(
        scenes,
        wanted,
        area,
        centres=is_box,
        groupby=product.groupby,
        limits=_limits(env.settings),
        only=_only(env.demand, boxes=spatial_extent is None or is_box),
    )
    env.log.info("load_collection: %d datasets of %s on %s", len(scenes), id, loaded.attrs["source"])
    if spatial_extent is None or is_box:
        return loaded
    return filter_spatial(data=loaded, geometries=spatial_extent)


def _limits(settings: Mapping[str, Any]) -> load.Limits:
    standard = load.Limits()
    return load.Limits(
        settings.get("load_max_bytes", standard.bytes), settings.get("load_max_chunks", standard.chunks)
    )


def _search(catalog: Catalog, id_: str, query: Query, env: Environment) -> list[Scene]:
    """The scenes that match; if they are too many, those of the times that the rest of the graph needs."""
    limit = env.settings.get("load_max_scenes", 10_000)
    try:
        scenes = catalog.search(id_, query, limit)
    except ProcessGraphComplexity:
        start, end = _needed_times(env.demand)
        if start is None and end is None:
            raise
        starts = [t for t in (query.start, start) if t is not None]
        ends = [t for t in (query.end, end) if t is not None]
        narrow = replace(query, start=max(starts, default=None), end=min(ends, default=None))
        scenes = catalog.search(id_, narrow, limit)
    if not scenes:
        raise NoDataAvailable(reason=_nothing_found(catalog, id_, query))
    return scenes


def _needed_times(demand: Demand) -> tuple[datetime | None, datetime | None]:
    if demand.interval is None:
        return None, None
    try:
        start, end = interval(demand.interval, NAME, "temporal_extent")
    except OpenEOError:
        # The filter that this comes from will say what is wrong with it.
        return None, None
    return _datetime(start), _datetime(end)


def _only(demand: Demand, boxes: bool) -> load.Only:
    """What the rest of the graph needs of the cube."""
    start, end = _needed_times(demand)
    names = None if demand.bands is None else frozenset(demand.bands)
    only = load.Only(names=names, start=start, end=end)
    if demand.boxes is None or not boxes:
        return only
    try:
        areas = [_box(asdict(b)).to_crs("EPSG:4326", resolution="auto") for b in demand.boxes]
    except OpenEOError:
        return only
    union = shapely.union_all([a.geom for a in areas])
    return replace(only, area=Geometry(union, "EPSG:4326"), margin=demand.margin)


def _datetime(time: np.datetime64 | None) -> datetime | None:
    return (
        None
        if time is None
        else datetime.fromisoformat(str(time.astype("datetime64[us]"))).replace(tzinfo=UTC)
    )


def _nothing_found(catalog: Catalog, id_: str, query: Query) -> str:
    extent = catalog.collection(id_)["extent"]
    (start, end), box_ = extent["temporal"]["interval"][0], extent["spatial"]["bbox"][0]
    found = f"collection '{id_}' has no dataset there. It has data from {start} to {end}, in the box {box_}"
    more = " (degrees); or none meets the conditions in 'properties'." if query.conditions else " (degrees)."
    return found + more


# --- Spatial extent ------------------------------------------------------------------------------


def _is_box(extent: Any) -> bool:
    return isinstance(extent, Mapping) and "west" in extent


def _area(extent: Any) -> Geometry | None:
    if extent is None:
        return None
    if _is_box(extent):
        return _box(extent)
    frame = geometry.read(extent, NAME, "spatial_extent")
    union = shapely.union_all(frame.geometry.to_numpy())
    if union.is_empty:
        raise _invalid("all geometries are empty.")
    return _checked(Geometry(union, CRS(frame.crs)))


def _box(extent: Mapping[str, Any]) -> Geometry:
    found = check_box(extent, NAME, "spatial_extent")
    return _checked(box(*found.bbox, found.crs))


def _checked(area: Geometry) -> Geometry:
    """The area itself if it has a place on Earth."""
    west, south, east, north = area.boundingbox.bbox
    if area.crs.geographic:
        if south < -90 or north > 90 or west < -360 or east > 360 or east - west > 360:
            raise _invalid(
                f"longitudes {west:g} to {east:g} and latitudes {south:g} to {north:g} are not on Earth. If "
                "the coordinates are in another reference system, name it in 'crs'."
            )
        return area
    degrees = area.to_crs("EPSG:4326", resolution="auto").boundingbox.bbox
    if not all(math.isfinite(d) for d in degrees):
        raise _invalid(f"it is outside of where {area.crs} is valid.")
    return area


def _invalid(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=NAME, parameter="spatial_extent", reason=reason)


# --- Conditions on properties --------------------------------------------------------------------


def _condition(child: Callable[..., Any], name: str) -> Condition:
    """A child process as a condition; where it is a simple comparison, with bounds for the index."""
    answers: dict[Any, bool] = {}

    def accepts(value: Any) -> bool:
        key = (type(value), value) if isinstance(value, str | int | float | None) else None
        if key is None or key not in answers:
            answer = child(value=value)
            if answer is not None and not isinstance(answer, bool | np.bool_):
                reason = f"the condition on '{name}' must return true or false, not {str(answer)[:60]}."
                raise ProcessParameterInvalid(process=NAME, parameter="properties", reason=reason)
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
    if arguments.get("x") != {"from_parameter": "value"}:
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
