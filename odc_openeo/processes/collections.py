"""Load collections as data cubes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import xarray as xr

from odc_openeo import load, own_collections
from odc_openeo.catalog import Catalog, Query, Scene, resolve
from odc_openeo.errors import NoDataAvailable, ProcessGraphComplexity
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes import extents
from odc_openeo.processes.filters import INSTANT
from odc_openeo.processes.geometry_filters import filter_spatial
from odc_openeo.processes.items import load_items
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


@process(categories=["cubes", "import"], in_view=True)
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
        id: The id of the collection, which may be one of your own (see `export_collection`).
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
    query = _query(spatial_extent, temporal_extent, properties)
    own = own_collections.items(catalog.config, UUID(env.user), id) if env.user else None
    if own is not None:
        return load_items(own, query, spatial_extent, bands, NAME, env)
    product = catalog.product(id)
    wanted = resolve(product.bands, bands)
    scenes = _search(catalog, id, query, env)
    is_box = extents.is_box(spatial_extent)
    loaded = load.load(
        scenes,
        wanted,
        query.area,
        centres=is_box,
        groupby=product.groupby,
        limits=extents.limits(env.settings),
        loaded=env.loads,
        only=extents.only(env.demand, boxes=spatial_extent is None or is_box),
        onto=extents.onto(env) if spatial_extent is None or is_box else None,
    )
    env.log.info("load_collection: %d datasets of %s on %s", len(scenes), id, loaded.attrs["source"])
    if spatial_extent is None or is_box:
        return loaded
    return filter_spatial(data=loaded, geometries=spatial_extent)


def _query(spatial_extent: Any, temporal_extent: Any, properties: Mapping[str, Any] | None) -> Query:
    start, end = extents.times(temporal_extent, NAME)
    conditions = {
        name: extents.condition(accepts, name, NAME) for name, accepts in (properties or {}).items()
    }
    return Query(extents.area(spatial_extent, NAME), start, end, conditions)


def _search(catalog: Catalog, id_: str, query: Query, env: Environment) -> list[Scene]:
    """The scenes that match; if they are too many, those of the times that the rest of the graph needs."""
    limit = env.settings.get("load_max_scenes", 10_000)
    try:
        scenes = catalog.search(id_, query, limit)
    except ProcessGraphComplexity:
        start, end = extents.needed_times(env.demand)
        if start is None and end is None:
            raise
        starts = [t for t in (query.start, start) if t is not None]
        ends = [t for t in (query.end, end) if t is not None]
        narrow = replace(query, start=max(starts, default=None), end=min(ends, default=None))
        scenes = catalog.search(id_, narrow, limit)
    if not scenes:
        raise NoDataAvailable(reason=_nothing_found(catalog, id_, query))
    return scenes


def _nothing_found(catalog: Catalog, id_: str, query: Query) -> str:
    extent = catalog.collection(id_)["extent"]
    (start, end), box_ = extent["temporal"]["interval"][0], extent["spatial"]["bbox"][0]
    found = f"collection '{id_}' has no dataset there. It has data from {start} to {end}, in the box {box_}"
    more = " (degrees); or none meets the conditions in 'properties'." if query.conditions else " (degrees)."
    return found + more
