"""Icechunk: Zarr version 3 in a repository, in which each result, part or export is one commit."""

from __future__ import annotations

from typing import Any, Final

import xarray as xr
import zarr

from odc_openeo.cube import GEOMETRY
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.cf import LAYOUT, check_cf, make_dataset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.repositories import commit_session, create_repository, translate_repository_failures
from odc_openeo.formats.zarr import LARGEST_SIDE, SMALLEST_SIDE
from odc_openeo.formats.zarr_regions import choose_tilings, create_dataset_template, make_cube_attributes
from odc_openeo.storage.repository_places import open_folder_place

MEDIA_TYPE: Final = "application/vnd.zarr+icechunk"

WITHOUT_SHARDS: Final = {"shard_size": 0}
"""Icechunk finds chunks by its manifests, and needs no shards."""


def check_icechunk(data: Any) -> None:
    """Raise `FormatUnsuitable` unless the data is a cube of numbers without geometries."""
    check_cf(data, "Icechunk")
    if isinstance(data, xr.Dataset) or GEOMETRY in data.dims:
        raise FormatUnsuitable(format="Icechunk", reason="it is a vector cube. Use Zarr, netCDF or Parquet.")


def write_icechunk(data: xr.DataArray, target: Target, options: Options) -> list[Asset]:
    """Write a repository with the whole cube as one commit."""
    path = target.path("icechunk")
    cf_dataset = make_dataset(data, options["layout"], "Icechunk")
    tilings = choose_tilings(cf_dataset, {**options, **WITHOUT_SHARDS})
    repository = create_repository(open_folder_place(path))
    session = repository.writable_session("main")
    with translate_repository_failures():
        attributes = make_cube_attributes(data)
        create_dataset_template(session.store, cf_dataset, tilings, attributes, consolidated=False)
        group = zarr.open_group(session.store, mode="r+")
        for name in tilings:
            stream_batches(cf_dataset[name], target.compute, group[name].__setitem__)
    commit_session(session, "The result of a process graph", {})
    return [make_cube_asset(path, MEDIA_TYPE, data)]


ICECHUNK: Final = Format(
    name="Icechunk",
    title="Icechunk repository",
    description=(
        "Raster cubes as an Icechunk repository: the same variables as Zarr, in commits. It is a folder; if "
        "a single file is required, it is sent as a zip archive. Exported with export_workspace and 'merge', "
        "its dates are appended to the cube that is there."
    ),
    gis_data_types=["raster"],
    media_type=MEDIA_TYPE,
    extension="icechunk",
    write=write_icechunk,
    check=check_icechunk,
    parameters={
        "layout": LAYOUT,
        "chunk_size": {
            "type": ["integer", "null"],
            "description": (
                "Pixels along x and y of a chunk, the least that readers fetch. By default even parts of "
                "what is computed at once, 1024 at most. Chunks have one date."
            ),
            "minimum": SMALLEST_SIDE,
            "maximum": LARGEST_SIDE,
            "default": None,
        },
        "existing_dates": {
            "type": "string",
            "description": (
                "If dates are appended to a cube that has some of them: REFUSE ends the job with an error, "
                "REPLACE writes them again. The dates that the same job has written are always replaced."
            ),
            "enum": ["REFUSE", "REPLACE"],
            "default": "REFUSE",
        },
    },
    synonyms={"chunksize": "chunk_size", "blocksize": "chunk_size"},
    links=[{"rel": "about", "href": "https://icechunk.io", "title": "Icechunk"}],
)
