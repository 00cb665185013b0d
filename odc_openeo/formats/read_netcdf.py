"""netCDF files of users as raster cubes, lazily: CF grids, and what this service writes itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
from odc.geo.xr import xr_coords

from odc_openeo.cube import BANDS, NODATA, T, X, Y
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.formats.read_gtiff import one_cube

HDF5: Final = b"\x89HDF\r\n\x1a\n"
CLASSIC: Final = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
AXES: Final = {
    X: ("projection_x_coordinate", "longitude"),
    Y: ("projection_y_coordinate", "latitude"),
    T: ("time",),
}
"""Standard names of the coordinates of a raster cube's dimensions."""

NAMES: Final = {X: ("x", "lon", "longitude"), Y: ("y", "lat", "latitude"), T: ("t", "time")}
CHUNK: Final = 1024


def read_netcdf(paths: Sequence[Path]) -> xr.DataArray:
    """A cube of the variables of all files that have a grid; they are its bands."""
    return one_cube([_cube(path) for path in paths])


def _cube(path: Path) -> xr.DataArray:
    _check_file(path)
    found = _opened(path)
    renamed = {name: dimension for dimension in (T, Y, X) if (name := _axis(found, dimension))}
    variables = [v for v in found.data_vars.values() if {X, Y} <= {renamed.get(str(d), d) for d in v.dims}]
    if not variables:
        raise _bad(path, "no variable in it has a grid: dimensions x and y, or longitude and latitude.")
    data = _bands(path, variables).rename({k: v for k, v in renamed.items() if k != v})
    crs = data.odc.crs or (4326 if _axis(found, X) in NAMES[X][1:] else None)
    data = data.transpose(*(d for d in (T, BANDS) if d in data.dims), ..., Y, X)
    if data.sizes[Y] > 1 and float(data[Y][0]) < float(data[Y][-1]):
        data = data.isel({Y: slice(None, None, -1)})
    grid = data.odc.assign_crs(crs).odc.geobox if crs else None
    if grid is None or not grid.axis_aligned:
        raise _bad(path, "it needs a CRS (a CF grid mapping) and evenly spaced coordinates.")
    coords = dict(zip((Y, X), (c.values for n, c in xr_coords(grid).items() if n in grid.dims), strict=True))
    kept = data.drop_vars([n for n in data.coords if n not in data.dims])
    kept.encoding = {}
    return kept.assign_coords(coords).odc.assign_crs(grid.crs)


def _opened(path: Path) -> xr.Dataset:
    try:
        found = xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, decode_coords="all", chunks={})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _bad(path, "it is no netCDF file, or a damaged one.") from error
    small = {d: min(CHUNK, n) for d, n in found.sizes.items() if n > CHUNK}
    return found.chunk(small) if small else found


def _axis(found: xr.Dataset, dimension: str) -> str | None:
    """The name in the file of a dimension of raster cubes, told by CF attributes or by names."""
    told = [str(d) for d in found.dims if found.get(d, found).attrs.get("standard_name") in AXES[dimension]]
    named = [str(d) for d in found.dims if str(d).lower() in NAMES[dimension]]
    return next(iter([*told, *named]), None)


def _bands(path: Path, variables: list[xr.DataArray]) -> xr.DataArray:
    first = variables[0]
    alike = {(v.dims, v.dtype, str(v.attrs.get("_FillValue"))) for v in variables}
    if len(alike) > 1:
        reason = f"the variables of '{path.name}' differ in dimensions, data type or no-data value."
        raise IncompatibleDataCubes(reason=reason)
    if first.dtype.kind not in "biuf":
        raise _bad(path, "its variables are no numbers.")
    if BANDS in first.dims:
        if len(variables) > 1:
            raise _bad(path, "it has several variables with a dimension 'bands'.")
        data = first.assign_coords({BANDS: first[BANDS].values.astype(str)})
    else:
        labels = np.array([str(v.name) for v in variables])
        data = xr.concat(variables, xr.Variable(BANDS, labels), combine_attrs="drop")
    return _with_nodata(data.rename(None), first.attrs.get("_FillValue"))


def _with_nodata(data: xr.DataArray, missing: Any) -> xr.DataArray:
    data.attrs = {}
    if missing is None:
        return data
    if data.dtype.kind == "f":
        return data if np.isnan(missing) else data.where(data != missing)
    data.attrs[NODATA] = data.dtype.type(missing)
    return data


# --- Safety --------------------------------------------------------------------------------------


def _check_file(path: Path) -> None:
    """Refuse what is no netCDF, and HDF5 files that take data from other files of this machine."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(CLASSIC):
        return
    if start != HDF5:
        raise _bad(path, "it is no netCDF file.")
    try:
        with h5py.File(path, "r") as opened:
            if not _alone(opened):
                raise _bad(path, "it refers to other files.")
    except (OSError, RuntimeError, KeyError) as error:
        raise _bad(path, "it is a damaged netCDF file.") from error


def _alone(group: h5py.Group) -> bool:
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            return False
        member = group[name]
        if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
            return False
        if isinstance(member, h5py.Group) and not _alone(member):
            return False
    return True


def _bad(path: Path, reason: str) -> FileContentInvalid:
    return FileContentInvalid(file=path.name, reason=reason)
