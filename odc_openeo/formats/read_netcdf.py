"""netCDF files of users as raster cubes, lazily: CF grids, and what this service writes itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask.array as da
import h5py
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from odc.geo.xr import xr_coords
from scipy.io import netcdf_file

from odc_openeo.cube import BANDS, NODATA, T, X, Y
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.formats.read_gtiff import check_chunks, one_cube
from odc_openeo.user_crs import CrsRefusedError, parse_crs

HDF5: Final = b"\x89HDF\r\n\x1a\n"
CLASSIC: Final = (b"CDF\x01", b"CDF\x02")
CLASSIC_64: Final = b"CDF\x05"
AXES: Final = {
    X: ("projection_x_coordinate", "longitude"),
    Y: ("projection_y_coordinate", "latitude"),
    T: ("time",),
}
"""Standard names of the coordinates of a raster cube's dimensions."""

NAMES: Final = {X: ("x", "lon", "longitude"), Y: ("y", "lat", "latitude"), T: ("t", "time")}
CHUNK: Final = 1024
REFERENCE_SYSTEMS: Final = (
    "crs_wkt",
    "spatial_ref",
    "proj4",
    "proj4_params",
    "proj4text",
    "epsg_code",
    "crs",
)
"""Attributes of grid mappings that hold a whole definition."""

MOST_LABELS: Final = 10_000_000
"""Labels of a dimension."""


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
    _check_reference_systems(path, found)
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


def _check_reference_systems(path: Path, found: xr.Dataset) -> None:
    """Refuse grid mappings that name files, before any of them is parsed."""
    for variable in found.variables.values():
        for name in REFERENCE_SYSTEMS:
            definition = variable.attrs.get(name)
            if isinstance(definition, str) and definition:
                try:
                    parse_crs(definition)
                except CrsRefusedError as error:
                    reason = f"its reference system is not a valid one, or names files ({name})."
                    raise _bad(path, reason) from error


def _opened(path: Path) -> xr.Dataset:
    try:
        found = xr.open_dataset(
            path, engine="netcdf4", mask_and_scale=False, decode_coords="all", cache=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _bad(path, "it is not a netCDF file, or a damaged one.") from error
    return found.assign({name: _read_lazily(path, variable) for name, variable in found.data_vars.items()})


def _read_lazily(path: Path, variable: xr.DataArray) -> xr.DataArray:
    sides = tuple(min(CHUNK, size) for size in variable.shape[-2:])
    chunks = (*(1,) * (variable.ndim - len(sides)), *sides)
    check_chunks(path.name, variable.shape, [max(chunk, 1) for chunk in chunks])
    status = path.stat()
    token = tokenize(str(path), variable.name, status.st_mtime_ns, status.st_ino, status.st_size)
    values = da.map_blocks(
        partial(_read_block, path.name, variable.variable),
        chunks=normalize_chunks(chunks, variable.shape, dtype=variable.dtype),
        dtype=variable.dtype,
        meta=np.empty((0,) * variable.ndim, variable.dtype),
        name=f"read-netcdf-{token}",
    )
    return variable.copy(data=values)


def _read_block(file: str, variable: xr.Variable, block_info: Any = None) -> np.ndarray:
    """A piece of a variable; xarray opens the file, one thread at a time, as its library wants it."""
    window = tuple(slice(start, stop) for start, stop in block_info[None]["array-location"])
    try:
        return np.asarray(variable[window].values)
    except (OSError, ValueError, KeyError, RuntimeError, IndexError) as error:
        reason = "its values cannot be read: it is damaged, or has changed meanwhile."
        raise FileContentInvalid(file=file, reason=reason) from error


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
    if start == HDF5:
        _check_links(path)
    elif start.startswith(CLASSIC):
        _check_dimensions(path)
    elif not start.startswith(CLASSIC_64):
        raise _bad(path, "it is not a netCDF file.")


def _check_links(path: Path) -> None:
    try:
        with h5py.File(path, "r") as opened:
            if not _alone(opened):
                raise _bad(path, "it refers to other files.")
            _check_sizes(path, {name: max(opened[name].shape, default=0) for name in _datasets_of(opened)})
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _bad(path, "it is a damaged netCDF file.") from error


def _check_dimensions(path: Path) -> None:
    """Refuse dimensions that are too long in files of the classic format, whose header scipy can read."""
    try:
        with netcdf_file(path, mmap=False) as opened:
            sizes = {name: size or 0 for name, size in opened.dimensions.items()}
    except (ValueError, TypeError, OSError, LookupError, OverflowError) as error:
        raise _bad(path, "it is a damaged netCDF file.") from error
    _check_sizes(path, sizes)


def _check_sizes(path: Path, sizes: Mapping[str, int]) -> None:
    """Refuse dimensions that are too long: labels are read whole, also if the file holds none of them."""
    for name, size in sizes.items():
        if size > MOST_LABELS:
            reason = f"its dimension '{name}' has {size} labels, and {MOST_LABELS} are possible."
            raise _bad(path, reason)


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


def _datasets_of(group: h5py.Group) -> Iterator[str]:
    """The names of the variables and dimensions at the top of a file: groups below are not read."""
    for name in group:
        if isinstance(group[name], h5py.Dataset):
            yield name


def _bad(path: Path, reason: str) -> FileContentInvalid:
    return FileContentInvalid(file=path.name, reason=reason)
