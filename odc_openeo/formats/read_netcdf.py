"""netCDF files of users as raster cubes, lazily: CF grids, and the files of this service itself."""

from __future__ import annotations

import contextlib
import os
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

from odc_openeo.cube import ALIASES, BANDS, NODATA, T, X, Y
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.formats.read_gtiff import check_chunks, join_rasters
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs

HDF5: Final = b"\x89HDF\r\n\x1a\n"
CLASSIC: Final = (b"CDF\x01", b"CDF\x02")
AXES: Final = {
    X: ("projection_x_coordinate", "longitude"),
    Y: ("projection_y_coordinate", "latitude"),
    T: ("time",),
}
"""Standard names of the coordinates of a raster cube's dimensions."""

NAMES: Final = {X: ("x", "lon", "longitude"), Y: ("y", "lat", "latitude"), T: ("t", "time")}
CHUNK: Final = 1024
UNNAMED: Final = ("var", "value")
"""The variable of a cube that was written without bands, now and once: either name is taken for it."""
REFERENCE_SYSTEMS: Final = (
    "crs_wkt",
    "spatial_ref",
    "proj4",
    "proj4_params",
    "proj4text",
    "epsg_code",
    "crs",
)
"""Attributes of grid mappings that hold a whole definition of a CRS."""

MAX_LABELS: Final = 10_000_000
"""Most labels of a dimension."""


def read_netcdf(paths: Sequence[Path]) -> xr.DataArray:
    """Read a cube whose bands are the variables with a grid of all files."""
    return join_rasters([_read_cube(path) for path in paths])


def _read_cube(path: Path) -> xr.DataArray:
    dataset = _read_dataset(path)
    renamed = {name: dimension for dimension in (T, Y, X) if (name := _find_axis(dataset, dimension))}
    variables = [v for v in dataset.data_vars.values() if {X, Y} <= {renamed.get(str(d), d) for d in v.dims}]
    if not variables:
        raise _invalid_file(
            path, "no variable in it has a grid: dimensions x and y, or longitude and latitude."
        )
    data = _stack_bands(path, variables).rename({k: v for k, v in renamed.items() if k != v})
    _check_reference_systems(path, dataset)
    crs = data.odc.crs or (4326 if _find_axis(dataset, X) in NAMES[X][1:] else None)
    data = data.transpose(*(d for d in (T, BANDS) if d in data.dims), ..., Y, X)
    if data.sizes[Y] > 1 and float(data[Y][0]) < float(data[Y][-1]):
        data = data.isel({Y: slice(None, None, -1)})
    grid = data.odc.assign_crs(crs).odc.geobox if crs else None
    if grid is None or not grid.axis_aligned:
        raise _invalid_file(path, "it needs a CRS (a CF grid mapping) and evenly spaced coordinates.")
    coords = dict(zip((Y, X), (c.values for n, c in xr_coords(grid).items() if n in grid.dims), strict=True))
    cube = data.drop_vars([n for n in data.coords if n not in data.dims])
    cube.encoding = {}
    return cube.assign_coords(coords).odc.assign_crs(grid.crs)


def _check_reference_systems(path: Path, dataset: xr.Dataset) -> None:
    """Refuse grid mappings that name files, before any of them is parsed."""
    for variable in dataset.variables.values():
        for name in REFERENCE_SYSTEMS:
            definition = variable.attrs.get(name)
            if isinstance(definition, str) and definition:
                try:
                    parse_crs(definition)
                except CrsRefusedError as error:
                    reason = f"its reference system is not valid, or names files ({name})."
                    raise _invalid_file(path, reason) from error


def _read_dataset(path: Path) -> xr.Dataset:
    """Read coordinates, and variables lazily: their pieces are read from the very file that was checked."""
    options: dict[str, Any] = {"engine": "netcdf4", "mask_and_scale": False, "decode_coords": "all"}
    with _expose_file(path) as handle:
        _check_file(path, handle)
        version = _get_version(handle)
        try:
            with xr.open_dataset(handle, cache=False, **options) as opened:
                coords = {name: coordinate.load() for name, coordinate in opened.coords.items()}
                variables = {n: _read_lazily(path, version, v) for n, v in opened.data_vars.items()}
                return opened.assign(variables).assign_coords(coords)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _invalid_file(path, "it is not a netCDF file, or a damaged one.") from error


@contextlib.contextmanager
def _expose_file(path: Path) -> Iterator[str]:
    """Give the file a name that refers to it even if another file replaces it at its path."""
    try:
        with LocalFolder(path.parent).expose(str(path)) as handle:
            yield handle
    except RasterRefusedError as error:
        raise _invalid_file(path, str(error)) from error


def _get_version(handle: str) -> tuple[int, ...]:
    status = os.stat(handle)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read_lazily(path: Path, version: tuple[int, ...], variable: xr.DataArray) -> xr.DataArray:
    sides = tuple(min(CHUNK, size) for size in variable.shape[-2:])
    chunks = (*(1,) * (variable.ndim - len(sides)), *sides)
    check_chunks(path.name, variable.shape, [max(chunk, 1) for chunk in chunks])
    values = da.map_blocks(
        partial(_read_block, path, version, str(variable.name)),
        chunks=normalize_chunks(chunks, variable.shape, dtype=variable.dtype),
        dtype=variable.dtype,
        meta=np.empty((0,) * variable.ndim, variable.dtype),
        name=f"read-netcdf-{tokenize(str(path), version, variable.name)}",
    )
    return variable.copy(data=values)


def _read_block(path: Path, version: tuple[int, ...], name: str, block_info: Any = None) -> np.ndarray:
    """Read a piece of a variable; the file must be the one that was checked."""
    info = block_info[None]
    window = tuple(slice(start, stop) for start, stop in info["array-location"])
    with _expose_file(path) as handle:
        if _get_version(handle) != version:
            raise _invalid_file(path, "it was replaced while it was being read. Start again.")
        try:
            return _read_window(handle, name, window).astype(info["dtype"], copy=False)
        except (OSError, ValueError, KeyError, RuntimeError, IndexError, TypeError) as error:
            raise _invalid_file(path, "its values cannot be read: it is damaged.") from error


def _read_window(handle: str, name: str, window: tuple[slice, ...]) -> np.ndarray:
    with open(handle, "rb") as file:
        is_hdf5 = file.read(len(HDF5)) == HDF5
    if not is_hdf5:
        with netcdf_file(handle, mmap=True) as classic:
            return np.array(classic.variables[name][window])
    with h5py.File(handle, "r") as opened:
        # netCDF renames a variable that has the name of a dimension but is not its coordinate.
        stored = name if name in opened else f"_nc4_non_coord_{name}"
        return np.asarray(opened[stored][window])


def _find_axis(dataset: xr.Dataset, dimension: str) -> str | None:
    """Find the file's name of a dimension of raster cubes, by CF attributes or by usual names."""
    standard_names = [
        str(d) for d in dataset.dims if dataset.get(d, dataset).attrs.get("standard_name") in AXES[dimension]
    ]
    plain_names = [str(d) for d in dataset.dims if str(d).lower() in NAMES[dimension]]
    return next(iter([*standard_names, *plain_names]), None)


def _stack_bands(path: Path, variables: list[xr.DataArray]) -> xr.DataArray:
    first = variables[0]
    kinds = {(v.dims, v.dtype, str(v.attrs.get("_FillValue"))) for v in variables}
    if len(kinds) > 1:
        reason = f"the variables of '{path.name}' differ in dimensions, data type or no-data value."
        raise IncompatibleDataCubes(reason=reason)
    if first.dtype.kind not in "biuf":
        raise _invalid_file(path, "its variables are not numbers.")
    if BANDS in first.dims:
        if len(variables) > 1:
            raise _invalid_file(path, "it has several variables with a dimension 'bands'.")
        data = first.assign_coords({BANDS: first[BANDS].values.astype(str)})
    else:
        names = [str(v.name) for v in variables]
        data = xr.concat(variables, xr.Variable(BANDS, np.array(names)), combine_attrs="drop")
        if names[0] in UNNAMED and len(names) == 1:
            data.coords[BANDS].attrs[ALIASES] = {name: names[0] for name in UNNAMED if name != names[0]}
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


def _check_file(path: Path, handle: str) -> None:
    """Refuse files that are not netCDF, and HDF5 files that take data from other files of this machine."""
    with open(handle, "rb") as file:
        start = file.read(len(HDF5))
    if start == HDF5:
        _check_links(path, handle)
    elif start.startswith(CLASSIC):
        _check_dimensions(path, handle)
    else:
        raise _invalid_file(path, "it is not a netCDF file (netCDF-4, or classic with 32 or 64-bit offsets).")


def _check_links(path: Path, handle: str) -> None:
    try:
        with h5py.File(handle, "r") as opened:
            if not _is_self_contained(opened):
                raise _invalid_file(path, "it refers to other files.")
            _check_sizes(path, {name: max(opened[name].shape, default=0) for name in _iter_datasets(opened)})
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _invalid_file(path, "it is a damaged netCDF file.") from error


def _check_dimensions(path: Path, handle: str) -> None:
    """Refuse too long dimensions in files of the classic format, whose header scipy can read."""
    try:
        with netcdf_file(handle, mmap=True) as opened:
            sizes = {name: size or 0 for name, size in opened.dimensions.items()}
    except (ValueError, TypeError, OSError, LookupError, OverflowError) as error:
        raise _invalid_file(path, "it is a damaged netCDF file.") from error
    _check_sizes(path, sizes)


def _check_sizes(path: Path, sizes: Mapping[str, int]) -> None:
    """Refuse too long dimensions: all labels are read, even those that the file does not hold."""
    for name, size in sizes.items():
        if size > MAX_LABELS:
            reason = f"its dimension '{name}' has {size} labels; the limit is {MAX_LABELS}."
            raise _invalid_file(path, reason)


def _is_self_contained(group: h5py.Group) -> bool:
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            return False
        member = group[name]
        if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
            return False
        if isinstance(member, h5py.Group) and not _is_self_contained(member):
            return False
    return True


def _iter_datasets(group: h5py.Group) -> Iterator[str]:
    """Yield the names of the variables and dimensions in the root group; other groups are not read."""
    for name in group:
        if isinstance(group[name], h5py.Dataset):
            yield name


def _invalid_file(path: Path, reason: str) -> FileContentInvalid:
    return FileContentInvalid(file=path.name, reason=reason)
