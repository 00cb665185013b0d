"""Cubes from STAC outside of the index, and from the results of batch jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import jobs
from odc_openeo.catalog import Query, Scene
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, JobNotFinished, JobNotFound
from odc_openeo.jobs import result_stac, results
from odc_openeo.jobs.result_stac import Results
from odc_openeo.load import parse_request, stac_crawler
from odc_openeo.load.public_objects import make_signer, replace_bucket_urls
from odc_openeo.load.stac_items import LocatedItems, load_items
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.processes.load_collection import (
    FOREIGN_ARGUMENTS,
    BandNames,
    PropertyConditions,
    TemporalExtent,
)
from odc_openeo.processes.load_uploads import Url
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import BOUNDING_BOX, GEOMETRY, Cube, datacube_schema
from odc_openeo.storage import get_storage
from odc_openeo.storage.buckets import read_bucket_rules
from odc_openeo.storage.signed_links import compute_expiry
from odc_openeo.untrusted import safe_http
from odc_openeo.user_data import workspaces
from odc_openeo.user_data.object_copies import find_raster_folder

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


@process(
    categories=["cubes", "import"],
    experimental=True,
    pure=False,
    in_view=True,
    raw_values_of=None,
    foreign=FOREIGN_ARGUMENTS,
)
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
    JPEG 2000 files and arrays in Zarr stores are read, by http and https, only where needed. The cube has
    the dimensions t, bands, y and x and the grid of the files as with `load_collection`. Scale and offset are
    not applied.

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
    request = parse_request("load_stac", env, spatial_extent, temporal_extent, bands, properties)
    return load_items(_find_items(url, request.query, env), request, env.log)


@process(
    categories=["cubes", "import"],
    experimental=True,
    pure=False,
    in_view=True,
    raw_values_of=None,
    foreign=FOREIGN_ARGUMENTS,
)
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
    request = parse_request("load_result", env, spatial_extent, temporal_extent, bands)
    is_address = re.match(r"https?://", id) is not None
    located = (
        _find_items(id, request.query, env)
        if is_address
        else _read_result_items(_get_results(env, id), _get_config(env))
    )
    return load_items(located, request, env.log)


# --- Where Items are -----------------------------------------------------------------------------


def _get_config(env: Environment) -> Config:
    if env.catalog is None:
        raise FeatureUnsupported(feature="loading without a catalogue")
    config: Config = env.catalog.config
    return config


def _find_items(url: str, query: Query, env: Environment) -> LocatedItems:
    config, limit = _get_config(env), env.limits.load_scenes
    published = _find_local_results(url, config, env)
    if published is not None:
        return _read_result_items(published, config)
    address = re.match(re.escape(config.root_url) + r".*?/workspaces/([^/]+)/files/", url)
    if env.user and address:
        workspace = workspaces.get_workspace(config, UUID(env.user), address[1])
        return workspaces.find_items(config, workspace, address[0], url, query, limit)
    env.require_run()
    policy = safe_http.Policy.from_config(config)
    items = stac_crawler.find_items(lambda href: safe_http.fetch_json(policy, href), url, query, limit)
    rules = read_bucket_rules(config.buckets)
    return replace_bucket_urls(items, rules), safe_http.RemoteFiles(policy, make_signer(rules))


def _find_local_results(url: str, config: Config, env: Environment) -> Results | None:
    """The results that an address of this very service leads to, None for other addresses."""
    path = config.own_path(url) or ""
    if match := re.search(r"/jobs/([^/]+)/results/?$", path):
        return _get_results(env, match[1])
    if match := re.search(r"/results/([0-9a-f-]{36})/(\d+)/([0-9a-f]+)/", path):
        return results.open_link(config, UUID(match[1]), int(match[2]), match[3])
    return None


def _get_results(env: Environment, id_: str) -> Results:
    if env.user is None:
        env.require_run()
        raise JobNotFound(identifier=id_)
    config = _get_config(env)
    job = jobs.get_job(config, UUID(env.user), id_)
    published = results.find_results(config, job)
    if published is None or not published.complete:
        env.require_run()
        raise JobNotFinished(state=job.status)
    return published


@dataclass(frozen=True)
class ResultFile:
    """A GeoTIFF of results: its name, time, grid and the names of its bands."""

    name: str
    time: np.datetime64
    grid: GeoBox
    bands: tuple[str, ...]


def list_result_files(id_: str, env: Environment) -> list[ResultFile]:
    """The GeoTIFFs of a job of the user that are alone at their time.

    Raises:
        JobNotFound, JobNotFinished: there are no results.
    """
    items, place = _read_result_items(_get_results(env, id_), _get_config(env))
    bands, scenes = read_items(items, place, process_id="load_result")
    return [
        _describe_file(scene, [band.name for band in bands])
        for scene in scenes
        if len(_list_paths(scene)) == 1
    ]


def _list_paths(scene: Scene) -> set[str]:
    return {file.href for file in scene.files.values()}


def _describe_file(scene: Scene, names: Sequence[str]) -> ResultFile:
    (path,) = _list_paths(scene)
    present = sorted((n for n in names if n in scene.files), key=lambda name: scene.files[name].band)
    grid = scene.grids[scene.files[present[0]].grid]
    return ResultFile(
        Path(path).name, np.datetime64(scene.time.replace(tzinfo=None), "ns"), grid, tuple(present)
    )


def _read_result_items(published: Results, config: Config) -> LocatedItems:
    folder = find_raster_folder(config, get_storage(config), published.folder)
    if folder is None:
        raise FeatureUnsupported(feature="loading results from this kind of storage")

    def locate(name: str) -> str:
        return str(folder.root / name)

    expires = compute_expiry(config)
    items = [
        result_stac.find_item(published, id_, locate, expires) for id_ in result_stac.group_items(published)
    ]
    return [item for item in items if item is not None], folder
