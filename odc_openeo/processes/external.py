"""Cubes from STAC outside of the index, and from the results of batch jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import xarray as xr

from odc_openeo import jobs, outgoing, results, workspaces
from odc_openeo.catalog import Query
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, JobNotFinished, JobNotFound
from odc_openeo.foreign_rasters import LocalFolder
from odc_openeo.load import crawl
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes import extents
from odc_openeo.processes.collections import BandNames, PropertyConditions, TemporalExtent
from odc_openeo.processes.items import Found, load_items
from odc_openeo.processes.schemas import BOUNDING_BOX, GEOMETRY, Cube, datacube_schema
from odc_openeo.processes.uploads import Url
from odc_openeo.storage import storage

SpatialExtent = Annotated[
    Mapping[str, Any] | xr.Dataset | xr.DataArray | None,
    Schema(
        [
            {"title": "Bounding Box", **BOUNDING_BOX},
            {
                "title": "GeoJSON",
                "description": "Pixels outside of the polygons become no-data.",
                "type": "object",
                "subtype": "geojson",
            },
            {
                "title": "Vector data cube",
                "description": "Pixels outside of the geometries become no-data.",
                **datacube_schema(GEOMETRY),
            },
            {"title": "No filter", "description": "Everything.", "type": "null"},
        ]
    ),
]
JobId = Annotated[str, Schema({"type": "string", "subtype": "job-id"})]


@process(categories=["cubes", "import"], experimental=True, pure=False, in_view=True)
def load_stac(
    url: Url,
    spatial_extent: SpatialExtent = None,
    temporal_extent: TemporalExtent = None,
    bands: BandNames = None,
    properties: PropertyConditions = None,
    *,
    env: Environment,
) -> Cube:
    """Load rasters that STAC describes as a data cube.

    The address is that of an Item, of a Collection or Catalog in files, of a collection of a STAC API, or
    of the results of a batch job: here your own by ``/jobs/{id}/results``, or any by a signed link; or of
    what you have exported to a workspace: ``/workspaces/{id}/files/{path}/collection.json``. GeoTIFF and
    JPEG 2000 files are read, by http and https, only where needed. The cube has the dimensions t, bands,
    y and x and the grid of the files as with `load_collection`. Scale and offset are not applied.

    Args:
        url: The address, with whatever is needed to read it (tokens and the like).
        spatial_extent: Where to load. Of a bounding box the pixels are loaded whose centre is in it; what is
            outside of geometries becomes no-data. Null loads everything.
        temporal_extent: When, as start and end (dates or date-times); the end does not belong to it. One of
            them may be null, which means no limit; null for both is written as null.
        bands: Which bands in which order, by name, common name or name of the asset; all by default.
        properties: Conditions on metadata of the Items; those are loaded for which all return `true`.

    Returns:
        The data cube.

    Raises:
        NoDataAvailable: Nothing was found in the given extents.
        TemporalExtentEmpty: The end is not later than the start.
        PropertiesUnsupported: The address does not lead to anything with properties.
    """
    start, end = extents.times(temporal_extent, "load_stac")
    conditions = {
        name: extents.condition(accepts, name, "load_stac") for name, accepts in (properties or {}).items()
    }
    query = Query(extents.area(spatial_extent, "load_stac"), start, end, conditions)
    return load_items(_find(url, query, env), query, spatial_extent, bands, "load_stac", env)


@process(categories=["cubes", "import"], experimental=True, pure=False, in_view=True)
def load_result(
    id: JobId,
    spatial_extent: SpatialExtent = None,
    temporal_extent: TemporalExtent = None,
    bands: BandNames = None,
    *,
    env: Environment,
) -> Cube:
    """Load the results of a batch job as a data cube.

    Results that were saved as GTiff can be loaded; see `load_stac`.

    Args:
        id: The id of one of your batch jobs, or the address of results of any job (see `load_stac`).
        spatial_extent: Where to load; null loads everything.
        temporal_extent: When, as start and end; null loads everything.
        bands: Which bands in which order; all by default.

    Returns:
        The data cube.

    Raises:
        NoDataAvailable: Nothing was found in the given extents.
    """
    start, end = extents.times(temporal_extent, "load_result")
    query = Query(extents.area(spatial_extent, "load_result"), start, end)
    by_address = re.match(r"https?://", id) is not None
    found = _find(id, query, env) if by_address else _own_items(_own(env, id), _config(env))
    return load_items(found, query, spatial_extent, bands, "load_result", env)


# --- Where Items are -----------------------------------------------------------------------------


def _config(env: Environment) -> Config:
    if env.catalog is None:
        raise FeatureUnsupported(feature="loading without a catalogue")
    config: Config = env.catalog.config
    return config


def _find(url: str, query: Query, env: Environment) -> Found:
    config, limit = _config(env), env.settings.get("load_max_scenes", 10_000)
    own = _of_this_service(url, config, env)
    if own is not None:
        return _own_items(own, config)
    if env.user and (found := re.match(re.escape(config.root_url) + r".*?/workspaces/([^/]+)/files/", url)):
        workspace = workspaces.get(config, UUID(env.user), found[1])
        return workspaces.find_items(config, workspace, found[0], url, query, limit)
    policy = outgoing.Policy.of(config)
    items = crawl.find_items(lambda each: outgoing.fetch_json(policy, each), url, query, limit)
    return items, outgoing.RemoteFiles(policy)


def _of_this_service(url: str, config: Config, env: Environment) -> results.Results | None:
    """The results that an address of this very service leads to, None for other addresses."""
    path = config.own_path(url) or ""
    if found := re.search(r"/jobs/([^/]+)/results/?$", path):
        return _own(env, found[1])
    if found := re.search(r"/results/([0-9a-f-]{36})/(\d+)/([0-9a-f]+)/", path):
        return results.open_link(config, UUID(found[1]), int(found[2]), found[3])
    return None


def _own(env: Environment, id_: str) -> results.Results:
    if env.user is None:
        raise JobNotFound(identifier=id_)
    config = _config(env)
    job = jobs.get(config, UUID(env.user), id_)
    found = results.find(config, job)
    if found is None or not found.complete:
        raise JobNotFinished(state=job.status)
    return found


def _own_items(found: results.Results, config: Config) -> Found:
    folder = storage(config).local(found.folder)
    if folder is None:
        raise FeatureUnsupported(feature="loading results, as its storage is no folder")

    def path(name: str) -> str:
        return str(folder / name)

    expires = results.expiry(config)
    items = [results.item(found, id_, path, expires) for id_ in results.items(found)]
    return [item for item in items if item is not None], LocalFolder(folder)
