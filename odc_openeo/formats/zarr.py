"""Zarr version 3 with consolidated metadata, written chunk by chunk; a folder, sent as a zip archive.

Besides CF, the grid is described by the GeoZarr conventions, with levels of a pyramid if they are asked for.
"""

from __future__ import annotations

from typing import Any, Final

import xarray as xr
import zarr

from odc_openeo.cube import GEOMETRY
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.cf import LAYOUT, check_cf, make_dataset
from odc_openeo.formats.cf_vectors import make_vector_dataset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.options import make_option_error
from odc_openeo.formats.pieces import SPLITTING
from odc_openeo.formats.zarr_levels import count_levels, create_levels, write_levels
from odc_openeo.formats.zarr_regions import choose_tilings, create_dataset_template, make_cube_attributes

MEDIA_TYPE: Final = "application/vnd.zarr; version=3"
LARGEST_SIDE: Final = 4096
"""Most pixels along a side of a chunk or shard, which are held in memory as a whole."""
SMALLEST_SIDE: Final = 16


def check_zarr(data: Any) -> None:
    """Raise `FormatUnsuitable` unless the data is a cube of numbers."""
    check_cf(data, "Zarr")


def check_zarr_options(data: Any, options: Options) -> None:
    """Check the options that depend on the cube.

    Raises:
        FormatUnsuitable: overviews of what is not a raster cube on an even grid.
        ProcessParameterInvalid: shards smaller than chunks.
    """
    if options["overviews"] != "NONE" and not make_cube_attributes(data):
        reason = "overviews need a raster cube on an even grid. Use the option 'overviews': 'NONE'."
        raise FormatUnsuitable(format="Zarr", reason=reason)
    chunk_size, shard_size = options["chunk_size"], options["shard_size"]
    if chunk_size and shard_size and shard_size < chunk_size:
        reason = f"{shard_size} pixels are less than the {chunk_size} of a chunk"
        raise make_option_error(f"option 'shard_size' of format Zarr: {reason}.")


def write_zarr(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one Zarr store for the whole cube."""
    path = target.path("zarr")
    if GEOMETRY in data.dims:
        data = target.compute(data)[0]
        cf_dataset = make_vector_dataset(data, "Zarr")
    else:
        cf_dataset = make_dataset(data, options["layout"], "Zarr")
    tilings = choose_tilings(cf_dataset, options)
    pyramid = data if options["overviews"] != "NONE" and isinstance(data, xr.DataArray) else None
    if pyramid is not None:
        create_levels(path, pyramid, options["layout"], tilings, _choose_resampling(pyramid, options))
    else:
        create_dataset_template(path, cf_dataset, tilings, make_cube_attributes(data))
    group = zarr.open_group(path, path="" if pyramid is None else "0", mode="r+", use_consolidated=False)
    for name in tilings:
        stream_batches(cf_dataset[name], target.compute, group[name].__setitem__)
    if pyramid is not None:
        write_levels(path, count_levels(pyramid), _choose_resampling(pyramid, options))
    return [make_cube_asset(path, MEDIA_TYPE, data)]


def _choose_resampling(data: xr.DataArray, options: Options) -> str:
    resampling = str(options["overview_resampling"])
    if resampling == "AUTO":
        resampling = "AVERAGE" if data.dtype.kind == "f" else "NEAREST"
    return resampling.lower()


def _describe_side(description: str, smallest: int) -> dict[str, Any]:
    return {
        "type": ["integer", "null"],
        "description": description,
        "minimum": smallest,
        "maximum": LARGEST_SIDE,
        "default": None,
    }


ZARR: Final = Format(
    name="Zarr",
    title="Zarr version 3",
    description=(
        "Cubes as a Zarr store (version 3, consolidated metadata) with the same variables as netCDF and the "
        "GeoZarr conventions 'spatial', 'proj' and, with overviews, 'multiscales'. It is a folder; if a "
        "single file is required, it is sent as a zip archive."
    ),
    gis_data_types=["raster", "vector"],
    media_type=MEDIA_TYPE,
    extension="zarr",
    write=write_zarr,
    check=check_zarr,
    check_options=check_zarr_options,
    parameters={
        "layout": LAYOUT,
        "chunk_size": _describe_side(
            "Pixels along x and y of a chunk, the least that readers fetch. By default even parts of what is "
            "computed at once, 1024 at most. Chunks have one date.",
            SMALLEST_SIDE,
        ),
        "shard_size": _describe_side(
            "Pixels along x and y of a shard, a file that holds several chunks; rounded up to whole chunks. "
            "0: each chunk is a file. By default there are shards if there were more than 4096 files.",
            0,
        ),
        "overviews": {
            "type": "string",
            "description": (
                "AUTO: the group '0' has the full resolution, '1', '2', … have half of that of the group "
                "before, until no side has more than 512 pixels. NONE: one resolution, without groups."
            ),
            "enum": ["AUTO", "NONE"],
            "default": "NONE",
        },
        "overview_resampling": {
            "type": "string",
            "description": "How overviews are made. AUTO: AVERAGE for floats, NEAREST for integers.",
            "enum": ["AUTO", "NEAREST", "AVERAGE"],
            "default": "AUTO",
        },
        **SPLITTING,
    },
    synonyms={
        "chunksize": "chunk_size",
        "blocksize": "chunk_size",
        "shards": "shard_size",
        "overview_method": "overview_resampling",
    },
    value_synonyms={"overviews": {"off": "NONE", "all": "AUTO", "on": "AUTO", "no": "NONE", "yes": "AUTO"}},
    links=[
        {"rel": "about", "href": "https://zarr.dev", "title": "Zarr"},
        {"rel": "about", "href": "https://github.com/zarr-conventions", "title": "GeoZarr conventions"},
    ],
)
