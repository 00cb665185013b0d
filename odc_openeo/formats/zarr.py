"""Zarr version 3 with consolidated metadata, written chunk by chunk; a folder, sent as a zip archive."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import xarray as xr
import zarr

from odc_openeo.cube import GEOMETRY
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.cf import LAYOUT, check_cf, choose_chunk_sizes, make_dataset
from odc_openeo.formats.cf_vectors import make_vector_dataset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.pieces import SPLITTING

MEDIA_TYPE: Final = "application/vnd.zarr; version=3"


def check_zarr(data: Any) -> None:
    """Raise `FormatUnsuitable` unless the data is a cube of numbers."""
    check_cf(data, "Zarr")


def write_zarr(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one Zarr store for the whole cube."""
    path = target.path("zarr")
    if GEOMETRY in data.dims:
        data = target.compute(data)[0]
        cf_dataset = make_vector_dataset(data, "Zarr")
    else:
        cf_dataset = make_dataset(data, options["layout"], "Zarr")
    lazy = [name for name in cf_dataset.data_vars if cf_dataset[name].chunks is not None]
    encoding = {str(name): make_zarr_encoding(cf_dataset[name]) for name in cf_dataset.data_vars}
    create_store(cf_dataset, path, encoding)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name in lazy:
        stream_batches(cf_dataset[name], target.compute, group[str(name)].__setitem__)
    return [make_cube_asset(path, MEDIA_TYPE, data)]


def create_store(cf_dataset: xr.Dataset, path: Path, encoding: Mapping[str, Any]) -> None:
    """Write a store without the values of lazy variables: dask's chunks need not fit those of the store."""
    with warnings.catch_warnings():
        # Consolidated metadata and string labels are not yet in the specification of version 3.
        warnings.filterwarnings("ignore", module="zarr")
        cf_dataset.to_zarr(
            path,
            mode="w-",
            zarr_format=3,
            consolidated=True,
            compute=False,
            encoding=dict(encoding),
            safe_chunks=False,
        )


def make_zarr_encoding(variable: xr.DataArray) -> dict[str, Any]:
    """Make the encoding of a variable: its chunks follow those of dask."""
    if not variable.dims or not variable.size or variable.dtype.kind not in "biuf":
        return dict(variable.encoding)
    return {**variable.encoding, "chunks": choose_chunk_sizes(variable)}


ZARR: Final = Format(
    name="Zarr",
    title="Zarr version 3",
    description=(
        "Cubes as a Zarr store (version 3, consolidated metadata) with the same variables as netCDF. It is a "
        "folder; if a single file is required, it is sent as a zip archive."
    ),
    gis_data_types=["raster", "vector"],
    media_type=MEDIA_TYPE,
    extension="zarr",
    write=write_zarr,
    check=check_zarr,
    parameters={"layout": LAYOUT, **SPLITTING},
    links=[{"rel": "about", "href": "https://zarr.dev", "title": "Zarr"}],
)
