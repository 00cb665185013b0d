"""Load collections as data cubes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import xarray as xr

from odc_openeo.catalog import Catalog, Query, Scene, resolve_bands
from odc_openeo.errors import NoDataAvailable, ProcessGraphComplexity
from odc_openeo.load import load, parse_request
from odc_openeo.load.request import select_times
from odc_openeo.load.stac_items import load_items
from odc_openeo.processes.filters import INSTANT
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import ANY_JSON, BOUNDING_BOX, GEOMETRY, datacube_schema
from odc_openeo.user_data import collections

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


_PIXEL_ADVICE = "Data are loaded in the pixels of their files; use resample_spatial for others."
FOREIGN_ARGUMENTS = {"featureflags": None, "width": _PIXEL_ADVICE, "height": _PIXEL_ADVICE}


@process(categories=["cubes", "import"], in_view=True, raw_values_of=None, foreign=FOREIGN_ARGUMENTS)
def load_collection(
    id: CollectionId,
    spatial_extent: SpatialExtent,
    temporal_extent: TemporalExtent,
    bands: BandNames = None,
    properties: PropertyConditions = None,
    native_grid: bool = False,
    *,
    env: Environment,
) -> LoadedCube:
    """Load a collection as a data cube.

    The cube has the dimensions t, bands, y and x and the pixel grid of the files: no pixel is moved. Where
    the data is in several reference systems (zones), the cube is on the grid that the collection names for
    that, else in the reference system that covers most of the area; the rest is warped to it with nearest
    neighbour; bands with larger pixels are resampled to the smallest
    pixels in the same way. Values are as in the files: scale and offset are not applied. Scenes of the same
    time are one label along t.

    Args:
        id: The id of the collection or an alias of it; it may be one of your own (see `export_collection`).
        spatial_extent: Where to load. Of a bounding box, the pixels are loaded whose centre is in the
            smallest axis-aligned box around it in the reference system of the data. Of geometries likewise;
            pixels outside of all of them become no-data. Null loads everything, which is refused if that is
            too much.
        temporal_extent: When, as start and end (dates or date-times); the end does not belong to it. One of
            them may be null, which means no limit; null for both is written as null. Scenes that are valid
            for an interval are loaded if it overlaps; their label is their nominal time, also outside.
        bands: Which bands in which order, by name, common name or alias; all of them by default. Bands are
            labelled by their names, or by the alias of the operator that they are asked for.
        properties: Conditions on metadata of the scenes; those are loaded for which all return `true`.
        native_grid: Whether data in several reference systems is loaded on a grid of its files even if the
            collection names another grid for that.

    Returns:
        The data cube.

    Raises:
        NoDataAvailable: Nothing was found in the given extents.
        TemporalExtentEmpty: The end is not later than the start.
    """
    catalog: Catalog = env.catalog
    request = parse_request(NAME, env, spatial_extent, temporal_extent, bands, properties)
    own_items = _find_own_items(catalog, id, env)
    if own_items is not None:
        return load_items(own_items, request, env.log)
    product = catalog.get_product(id)
    requested = resolve_bands(product.bands, bands)
    scenes = _find_scenes(catalog, id, request.query, env)
    request = replace(request, hint=None if native_grid else product.load_hint)
    data = load(scenes, requested, request, groupby=product.groupby)
    env.log.info("load_collection: %d datasets of %s on %s", len(scenes), id, data.attrs["source"])
    return data


def _find_own_items(catalog: Catalog, id_: str, env: Environment) -> Any:
    """The Items of a collection of the user with their folder, None if the user has none of that name."""
    if env.user is None or (env.list_own_collections is not None and id_ not in env.list_own_collections()):
        return None
    return collections.find_items(catalog.config, UUID(env.user), id_)


def _find_scenes(catalog: Catalog, id_: str, query: Query, env: Environment) -> list[Scene]:
    """The scenes that match; if they are too many, those of the times that the rest of the graph needs."""
    limit = env.limits.load_scenes
    try:
        scenes = catalog.search_scenes(id_, query, limit)
    except ProcessGraphComplexity:
        start, end = select_times(env.demand)
        if start is None and end is None:
            raise
        # Filters of times go by the nominal time, which need not be in the extent.
        scenes = catalog.search_scenes(id_, replace(query, first=start, last=end), limit)
        if not scenes:
            raise
    if not scenes:
        raise NoDataAvailable(reason=_describe_extent(catalog, id_, query))
    return scenes


def _describe_extent(catalog: Catalog, id_: str, query: Query) -> str:
    extent = catalog.get_collection(id_)["extent"]
    (start, end), box = extent["temporal"]["interval"][0], extent["spatial"]["bbox"][0]
    if start is None and end is None:
        return f"collection '{id_}' has no datasets yet."
    conditions = " that meets the conditions in 'properties'" if query.conditions else ""
    return (
        f"collection '{id_}' has no dataset{conditions} at that place and time. It has data from {start} to "
        f"{end} and in the box {box} (degrees), though not everywhere in it at all times."
    )
