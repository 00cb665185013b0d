"""Results of back-ends as xarray objects: no-data are NaN, numbers are those that were calculated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr


def read_netcdf(path: Path) -> xr.Dataset:
    """A netCDF file in memory; scales that describe the raw numbers of a band are not applied."""
    with xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, decode_timedelta=False) as file:
        return file.load().map(mask_nodata, keep_attrs=True)


def mask_nodata(variable: xr.DataArray) -> xr.DataArray:
    """A variable with NaN where it has its fill value."""
    fill = variable.attrs.get("_FillValue", variable.attrs.get("missing_value"))
    if fill is None or variable.dtype.kind not in "iuf" or np.isnan(fill):
        return variable
    values = variable.values
    return variable.copy(data=np.where(values == fill, np.nan, values.astype(np.float64)))


def read_json(value: Any) -> xr.DataArray:
    """A number, or the JSON of a cube with one value."""
    while isinstance(value, dict | list):
        items = list(value.values()) if isinstance(value, dict) else value
        value = items[0] if items else None
    return xr.DataArray(np.nan if value is None else value)


def read_object(value: Any) -> Any:
    """The computed result of a local back-end."""
    if isinstance(value, xr.DataArray | xr.Dataset):
        return value.load()
    return xr.DataArray(np.asarray(value))
