"""netCDF following the CF conventions, written chunk by chunk."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore

from odc_openeo.cube import GEOMETRY
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.blocks import Region, stream_batches
from odc_openeo.formats.cf import LAYOUT, check_cf, choose_chunk_sizes, make_dataset
from odc_openeo.formats.cf_vectors import make_vector_dataset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.options import MERGE
from odc_openeo.formats.pieces import SPLITTING
from odc_openeo.formats.write_errors import as_storage_failure

MEDIA_TYPE: Final = "application/x-netcdf"


def check_netcdf(data: Any) -> None:
    """Raise `FormatUnsuitable` unless the data is a cube of numbers."""
    check_cf(data, "netCDF")


def write_netcdf(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one netCDF file for the whole cube."""
    path = target.path("nc")
    if GEOMETRY in data.dims:
        data = target.compute(data)[0]
        cf_dataset = make_vector_dataset(data, "netCDF")
    else:
        cf_dataset = make_dataset(data, options["layout"], "netCDF")
    lazy = [name for name in cf_dataset.data_vars if cf_dataset[name].chunks is not None]
    # NetCDF4DataStore only defines lazy variables; their values are written below.
    with as_storage_failure():
        store = NetCDF4DataStore.open(str(path), mode="w", format="NETCDF4")
    try:
        with as_storage_failure(RuntimeError):
            cf_dataset.dump_to_store(store, encoding=_make_encoding(cf_dataset, options))
        for name in lazy:
            stream_batches(cf_dataset[name], target.compute, partial(_write_region, store.ds.variables[name]))
    finally:
        # The HDF5 library reports a full disk only as a RuntimeError.
        with as_storage_failure(RuntimeError):
            store.close()
    return [make_cube_asset(path, MEDIA_TYPE, data)]


def _write_region(stored: Any, region: Region, values: np.ndarray) -> None:
    stored.set_auto_maskandscale(False)
    with as_storage_failure(RuntimeError):
        stored[region] = values


def _make_encoding(dataset: xr.Dataset, options: Options) -> dict[str, dict[str, Any]]:
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        encoding[str(name)] = dict(variable.encoding)
        if name in dataset.data_vars and variable.dims and variable.size and variable.dtype.kind in "biuf":
            encoding[str(name)] |= {
                "chunksizes": choose_chunk_sizes(variable),
                **_make_compression_options(options),
            }
    return encoding


def _make_compression_options(options: Options) -> dict[str, Any]:
    if options["compression"] == "none":
        return {}
    return {"compression": options["compression"], "complevel": options["level"], "shuffle": True}


NETCDF: Final = Format(
    name="netCDF",
    title="Network Common Data Form (CF)",
    description=(
        "Cubes as one netCDF-4 file that follows the CF conventions. Each band is a variable with its own "
        "no-data value and a grid mapping 'spatial_ref' (WKT, and the transform for GDAL), or with layout "
        "'cube' one variable has all dimensions. No dimension is dropped; times are UTC. Vector cubes get CF "
        "geometries."
    ),
    gis_data_types=["raster", "vector"],
    media_type=MEDIA_TYPE,
    extension="nc",
    write=write_netcdf,
    check=check_netcdf,
    parameters={
        "layout": LAYOUT,
        "compression": {
            "type": "string",
            "description": "The compression of the variables.",
            "enum": ["zlib", "none"],
            "default": "zlib",
        },
        "level": {
            "type": "integer",
            "description": "The compression level of zlib, from 1 (fast) to 9 (small).",
            "minimum": 1,
            "maximum": 9,
            "default": 1,
        },
        "merge": MERGE,
        **SPLITTING,
    },
    synonyms={
        "complevel": "level",
        "zlevel": "level",
        "compression_level": "level",
        "compress": "compression",
    },
    value_synonyms={"compression": {"deflate": "zlib", "gzip": "zlib", "off": "none"}},
    links=[{"rel": "about", "href": "https://cfconventions.org", "title": "CF conventions"}],
)
