"""netCDF files of users as raster cubes, lazily: CF grids, and the files of this service itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence, Set
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

from odc_openeo.cube import ALIASES, BANDS, NODATA, PACKING, SPATIAL_REF, T, X, Y
from odc_openeo.cube.packing import Packing, make_packing_coordinates, read_packings
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.formats.cf_times import TimesRefusedError, decode_times, is_time
from odc_openeo.formats.netcdf_grid import (
    GridRefusedError,
    find_axis,
    is_geographic,
    is_position,
    measure_grid,
)
from odc_openeo.formats.netcdf_values import mark_missing
from odc_openeo.formats.read_gtiff import check_chunks, join_rasters
from odc_openeo.spatial.row_order import orient_grid, reverse_dimensions
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_cf_crs, parse_crs

HDF5: Final = b"\x89HDF\r\n\x1a\n"
CLASSIC: Final = (b"CDF\x01", b"CDF\x02")
CHUNK: Final = 1024
UNNAMED: Final = ("var", "value")
"""The variable of a cube that was written without bands, now and once: either name is taken for it."""
OPTIONS: Final[dict[str, Any]] = {
    "engine": "netcdf4",
    "mask_and_scale": False,
    "decode_times": False,
    "decode_coords": "all",
}
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
    renamed = {name: dimension for dimension in (T, Y, X) if (name := _find_dimension(dataset, dimension))}
    variables = _select_variables(path, dataset, renamed)
    _check_reference_systems(path, dataset)
    data = _stack_bands(path, variables, dataset)
    rows, columns = (next(n for n, d in renamed.items() if d == axis) for axis in (Y, X))
    try:
        crs, mapping = _find_reference_system(data, dataset.coords.get(columns))
        grid = measure_grid(dataset, (rows, columns), crs, mapping)
    except (GridRefusedError, RasterRefusedError, CrsRefusedError) as error:
        raise _invalid_file(path, str(error)) from error
    cube = data.drop_vars([n for n in data.coords if n not in (*data.dims, *PACKING)])
    cube = cube.rename({k: v for k, v in renamed.items() if k != v and k in cube.dims})
    cube = cube.transpose(*(d for d in (T, BANDS) if d in cube.dims), ..., Y, X)
    cube.encoding = {}
    grid, reversed_dimensions = orient_grid(grid)
    coords = xr_coords(grid, dims=(Y, X), crs_coord_name=SPATIAL_REF)
    return reverse_dimensions(cube.drop_vars([Y, X]), reversed_dimensions).assign_coords(coords)


def _find_dimension(dataset: xr.Dataset, dimension: str) -> str | None:
    """Find the file's name of a dimension; a time axis without times is like any other dimension."""
    name = find_axis(dataset, dimension)
    if name is None or dimension != T or name == T:
        return name
    return name if name in dataset.coords and dataset.coords[name].dtype.kind == "M" else None


def _select_variables(path: Path, dataset: xr.Dataset, renamed: Mapping[str, str]) -> list[xr.DataArray]:
    """The variables of numbers with a grid, other than the positions of the pixels themselves."""
    on_grid = [
        v
        for v in dataset.data_vars.values()
        if {X, Y} <= {renamed.get(str(d)) for d in v.dims} and not is_position(v)
    ]
    numeric = [v for v in on_grid if v.dtype.kind in "biuf"]
    if on_grid and not numeric:
        raise _invalid_file(path, "its variables are not numbers.")
    has_axes = all(d in dataset.coords for d, axis in renamed.items() if axis in (X, Y))
    if numeric and (has_axes or not _is_curvilinear(dataset)):
        return numeric
    raise _invalid_file(path, _explain_missing_grid(dataset))


def _is_curvilinear(dataset: xr.Dataset) -> bool:
    return any(v.ndim == 2 and is_position(v) for v in dataset.variables.values())


def _explain_missing_grid(dataset: xr.Dataset) -> str:
    if _is_curvilinear(dataset):
        return "its longitudes and latitudes are two-dimensional: its grid is curvilinear. Regrid it first."
    reason = "no variable in it has a grid: dimensions x and y, or longitude and latitude."
    if groups := dataset.encoding.get("groups"):
        reason += f" Those in its groups ({', '.join(groups)[:200]}) are not read: move them to the root."
    return reason


def _find_reference_system(data: xr.DataArray, columns: xr.DataArray | None) -> tuple[Any, Mapping[str, Any]]:
    """The reference system of a variable, and the attributes of its grid mapping.

    Raises:
        GridRefusedError: there is none.
        CrsRefusedError: its definition is not valid.
    """
    name = str(data.encoding.get("grid_mapping", "")).split(":")[0].strip()
    mapping = data.coords[name].attrs if name in data.coords else {}
    if not mapping:
        mapping = next((c.attrs for c in data.coords.values() if "GeoTransform" in c.attrs), {})
    crs = data.odc.crs if ":" not in str(data.encoding.get("grid_mapping", "")) else None
    if crs is not None:
        return crs, mapping
    if mapping.get("grid_mapping_name"):
        return parse_cf_crs(mapping), mapping
    if columns is not None and is_geographic(columns):
        return 4326, mapping
    raise GridRefusedError("it needs a CRS: a CF grid mapping, or longitude and latitude as coordinates.")


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
    with _expose_file(path) as handle:
        _check_file(path, handle)
        version = _get_version(handle)
        try:
            with xr.open_dataset(handle, cache=False, **OPTIONS) as opened:
                coords = {name: _decode_coordinate(c.load()) for name, c in opened.coords.items()}
                horizontal = {find_axis(opened, Y), find_axis(opened, X)}
                variables = {
                    n: _read_lazily(path, version, v, horizontal) for n, v in opened.data_vars.items()
                }
                dataset = opened.assign(variables).assign_coords(coords)
        except TimesRefusedError as error:
            raise _invalid_file(path, str(error)) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _invalid_file(path, "it is not a netCDF file, or a damaged one.") from error
        dataset.encoding = {"groups": _list_groups(handle)}
        return dataset


def _decode_coordinate(coordinate: xr.DataArray) -> xr.DataArray:
    """Decode times, and numbers that are packed: coordinates of dimensions are not kept raw."""
    if coordinate.dims != (coordinate.name,):
        return coordinate
    if is_time(coordinate):
        return decode_times(coordinate)
    if not {"scale_factor", "add_offset"} & set(coordinate.attrs):
        return coordinate
    decoded = xr.conventions.decode_cf_variable(coordinate.name, coordinate.variable, decode_times=False)
    return xr.DataArray(decoded.load(), name=coordinate.name)


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


def _read_lazily(
    path: Path, version: tuple[int, ...], variable: xr.DataArray, horizontal: Set[str | None]
) -> xr.DataArray:
    dims = horizontal if horizontal <= set(variable.dims) else set(variable.dims[-2:])
    chunks = [min(CHUNK, n) if d in dims else 1 for d, n in variable.sizes.items()]
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


def _stack_bands(path: Path, variables: Sequence[xr.DataArray], dataset: xr.Dataset) -> xr.DataArray:
    if BANDS in variables[0].dims and len(variables) > 1:
        raise _invalid_file(path, "it has several variables with a dimension 'bands'.")
    packings = [Packing.parse(*map(v.attrs.get, ("units", "scale_factor", "add_offset"))) for v in variables]
    arrays = [mark_missing(variable) for variable in variables]
    first = arrays[0]
    kinds = {(v.dims, v.dtype, str(v.attrs.get(NODATA))) for v in arrays}
    if len(kinds) > 1:
        reason = f"the variables of '{path.name}' differ in dimensions, data type or no-data value."
        raise IncompatibleDataCubes(reason=reason)
    if BANDS in first.dims:
        # Packing that differs by band is in coordinates along them.
        data = first.assign_coords({BANDS: dataset[BANDS].values.astype(str)})
        declared = [d for d in read_packings(dataset, BANDS) if not d.is_empty]
        packings = [] if declared else packings * data.sizes[BANDS]
    else:
        names = [str(v.name) for v in arrays]
        data = xr.concat(
            arrays, xr.Variable(BANDS, np.array(names)), combine_attrs="override", coords="minimal"
        )
        if names[0] in UNNAMED and len(names) == 1:
            data.coords[BANDS].attrs[ALIASES] = {name: names[0] for name in UNNAMED if name != names[0]}
    data = data.assign_coords(make_packing_coordinates(packings)).rename(None)
    data.encoding = {k: v for k, v in variables[0].encoding.items() if k == "grid_mapping"}
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


def _list_groups(handle: str) -> list[str]:
    """List the groups of an HDF5 file, which are not read."""
    if not h5py.is_hdf5(handle):
        return []
    with h5py.File(handle, "r") as opened:
        return [name for name in opened if isinstance(opened[name], h5py.Group)]


def _iter_datasets(group: h5py.Group) -> Iterator[str]:
    """Yield the names of the variables and dimensions in the root group; other groups are not read."""
    for name in group:
        if isinstance(group[name], h5py.Dataset):
            yield name


def _invalid_file(path: Path, reason: str) -> FileContentInvalid:
    return FileContentInvalid(file=path.name, reason=reason)
