"""Zarr version 3 with consolidated metadata, written chunk by chunk; a folder, sent as one zip archive."""

from __future__ import annotations

import warnings
from typing import Any, Final

import xarray as xr
import zarr

from odc_openeo.cube import GEOMETRY
from odc_openeo.formats.assets import cube_asset
from odc_openeo.formats.blocks import stream
from odc_openeo.formats.cf import LAYOUT, check_cf, chunk_sizes, dataset
from odc_openeo.formats.model import Asset, Format, Options, Target

MEDIA_TYPE: Final = "application/vnd.zarr; version=3"


def check(data: Any) -> None:
    """Cubes of numbers."""
    check_cf(data, "Zarr")


def write(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """One Zarr store for the whole cube."""
    path = target.path("zarr")
    if GEOMETRY in data.dims:
        data = target.compute(data)[0]
    found = dataset(data, options["layout"], "Zarr")
    lazy = [name for name in found.data_vars if found[name].chunks is not None]
    encoding = {str(name): _encoding(found[name]) for name in found.data_vars}
    # Only metadata is wanted of what is lazy: dask's chunks need not fit those of the store.
    with warnings.catch_warnings():
        # Consolidated metadata and text labels are not yet in the specification of version 3.
        warnings.filterwarnings("ignore", module="zarr")
        found.to_zarr(
            path,
            mode="w-",
            zarr_format=3,
            consolidated=True,
            compute=False,
            encoding=encoding,
            safe_chunks=False,
        )
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name in lazy:
        stream(found[name], target.compute, group[str(name)].__setitem__)
    return [cube_asset(path, MEDIA_TYPE, data)]


def _encoding(variable: xr.DataArray) -> dict[str, Any]:
    if not variable.dims or not variable.size or variable.dtype.kind not in "biuf":
        return dict(variable.encoding)
    return {**variable.encoding, "chunks": chunk_sizes(variable)}


ZARR: Final = Format(
    name="Zarr",
    title="Zarr version 3",
    description=(
        "Cubes as a Zarr store (version 3, consolidated metadata) with the same variables as netCDF. It is a "
        "folder; where one file is wanted it comes as a zip archive."
    ),
    gis_data_types=["raster", "vector"],
    media_type=MEDIA_TYPE,
    extension="zarr",
    write=write,
    check=check,
    parameters={"layout": LAYOUT},
    links=[{"rel": "about", "href": "https://zarr.dev", "title": "Zarr"}],
)
