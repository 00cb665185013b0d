"""netCDF following the CF conventions, written chunk by chunk."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore

from odc_openeo.cube import GEOMETRY
from odc_openeo.formats.assets import cube_asset
from odc_openeo.formats.blocks import Region, stream
from odc_openeo.formats.cf import LAYOUT, check_cf, chunk_sizes, dataset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.storing import storing

MEDIA_TYPE: Final = "application/x-netcdf"


def check(data: Any) -> None:
    """Cubes of numbers."""
    check_cf(data, "netCDF")


def write(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """One netCDF file for the whole cube."""
    path = target.path("nc")
    if GEOMETRY in data.dims:
        data = target.compute(data)[0]
    found = dataset(data, options["layout"], "netCDF")
    lazy = [name for name in found.data_vars if found[name].chunks is not None]
    # NetCDF4DataStore defines what is lazy, and leaves its values to us.
    with storing():
        store = NetCDF4DataStore.open(str(path), mode="w", format="NETCDF4")
    try:
        with storing(RuntimeError):
            found.dump_to_store(store, encoding=_encoding(found, options))
        for name in lazy:
            stream(found[name], target.compute, partial(_keep, store.ds.variables[name]))
    finally:
        # The HDF5 library tells of missing room in no better way.
        with storing(RuntimeError):
            store.close()
    return [cube_asset(path, MEDIA_TYPE, data)]


def _keep(stored: Any, region: Region, values: np.ndarray) -> None:
    stored.set_auto_maskandscale(False)
    with storing(RuntimeError):
        stored[region] = values


def _encoding(found: xr.Dataset, options: Options) -> dict[str, dict[str, Any]]:
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in found.variables.items():
        encoding[str(name)] = dict(variable.encoding)
        if name in found.data_vars and variable.dims and variable.size and variable.dtype.kind in "biuf":
            encoding[str(name)] |= {"chunksizes": chunk_sizes(variable), **_compression(options)}
    return encoding


def _compression(options: Options) -> dict[str, Any]:
    if options["compression"] == "none":
        return {}
    return {"compression": options["compression"], "complevel": options["level"], "shuffle": True}


NETCDF: Final = Format(
    name="netCDF",
    title="Network Common Data Form (CF)",
    description=(
        "Cubes as one netCDF-4 file that follows the CF conventions. Each band is a variable with its own "
        "no-data "
        "value and a grid mapping 'spatial_ref' (WKT, and the transform for GDAL), or with layout 'cube' one "
        "variable has all dimensions. No dimension is dropped; times are UTC. Vector cubes get CF geometries."
    ),
    gis_data_types=["raster", "vector"],
    media_type=MEDIA_TYPE,
    extension="nc",
    write=write,
    check=check,
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
            "description": "How hard zlib compresses, from 1 (quick) to 9 (small).",
            "minimum": 1,
            "maximum": 9,
            "default": 1,
        },
    },
    links=[{"rel": "about", "href": "https://cfconventions.org", "title": "CF conventions"}],
)
