"""Raw values of netCDF files, whose scale and offset xarray would apply."""

from __future__ import annotations

from pathlib import Path

import xarray as xr


def load_raw(path: Path) -> xr.Dataset:
    """Load a file as xarray decodes it, but without applying scales and offsets."""
    data = xr.load_dataset(path, engine="netcdf4", decode_cf=False)
    for variable in data.variables.values():
        for name in ("scale_factor", "add_offset"):
            variable.attrs.pop(name, None)
    return xr.decode_cf(data)
