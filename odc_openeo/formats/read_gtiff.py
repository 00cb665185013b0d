"""GeoTIFF files of users as raster cubes, lazily.

They are opened like all untrusted rasters, by `open_foreign_raster`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.errors import RasterioError

from odc_openeo.cube import BANDS, NODATA, SPATIAL_REF, X, Y
from odc_openeo.cube.packing import Packing, carry_all_packings, drop_packing, make_packing_coordinates
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.memory_failures import is_memory_failure
from odc_openeo.spatial.row_order import orient_grid, reverse_dimensions
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError, open_foreign_raster, read_grid

CHUNK: Final = 1024
MAX_CHUNKS: Final = 200_000
"""Most chunks of a file, of about a million values each, in one graph."""


def read_gtiff(paths: Sequence[Path]) -> xr.DataArray:
    """Read a cube with the dimensions ``bands``, ``y``, ``x`` from files that share a grid."""
    return join_rasters([_read_raster(path) for path in paths])


def join_rasters(rasters: Sequence[xr.DataArray]) -> xr.DataArray:
    """Join the bands of several rasters on one grid.

    Raises:
        IncompatibleDataCubes: they have bands in common, or differ in grid, dimensions, data type, no-data
            value or labels.
    """
    names = [name for raster in rasters for name in raster.coords[BANDS].values]
    if len(set(names)) < len(names):
        reason = "several files have the same band. Load them one by one and use merge_cubes."
        raise IncompatibleDataCubes(reason=reason)
    grids = {raster.odc.geobox for raster in rasters}
    kinds = {(raster.dims, raster.dtype, str(raster.attrs.get(NODATA))) for raster in rasters}
    if len(grids) > 1 or len(kinds) > 1:
        reason = "the files differ in grid, dimensions, data type or no-data value. Load them one by one."
        raise IncompatibleDataCubes(reason=reason)
    if len(rasters) == 1:
        return rasters[0]
    try:
        bare = [drop_packing(raster) for raster in rasters]
        joined = xr.concat(bare, BANDS, combine_attrs="override", join="exact")
    except ValueError as error:
        reason = "the files differ in labels, of dates for example. Load them one by one and use merge_cubes."
        raise IncompatibleDataCubes(reason=reason) from error
    return carry_all_packings(joined, rasters)


def _read_raster(path: Path) -> xr.DataArray:
    try:
        with open_foreign_raster(str(path), LocalFolder(path.parent)) as file:
            grid = read_grid(file)
            names = [name or f"band_{i}" for i, name in enumerate(file.descriptions, 1)]
            packings = [
                Packing.parse(*fields) for fields in zip(file.units, file.scales, file.offsets, strict=True)
            ]
            dtype, missing = np.dtype(file.dtypes[0]), file.nodata
            block_height, block_width = file.block_shapes[0]
            is_uniform = len(set(file.dtypes)) == 1 and len(set(names)) == len(names)
    except RasterRefusedError as error:
        raise FileContentInvalid(file=path.name, reason=str(error)) from error
    if not is_uniform or grid is None or not grid.axis_aligned:
        reason = "it needs a CRS, a grid along the axes of it, one data type and distinct band names."
        raise FileContentInvalid(file=path.name, reason=reason)
    sides = (max(CHUNK // block_height, 1) * block_height, max(CHUNK // block_width, 1) * block_width)
    check_chunks(path.name, (len(names), *grid.shape), (1, *sides))
    pixels = _make_lazy_pixels(path, (len(names), *grid.shape), sides, dtype, missing)
    return _make_cube(pixels, grid, names, missing, packings)


def check_chunks(name: str, shape: Sequence[int], chunks: Sequence[int]) -> None:
    """Raise FileContentInvalid if a file declares more pixels than can be planned, however few it holds."""
    count = math.prod(math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True))
    if count > MAX_CHUNKS:
        sizes = " x ".join(map(str, shape))
        reason = f"it declares {sizes} values, which are too many. Split it into smaller files."
        raise FileContentInvalid(file=name, reason=reason)


def _make_lazy_pixels(
    path: Path, shape: Any, sides: tuple[int, int], dtype: np.dtype, missing: Any
) -> da.Array:
    chunks = normalize_chunks((1, *sides), shape, dtype=dtype)
    status = path.stat()
    name = f"read-gtiff-{tokenize(str(path), status.st_mtime_ns, status.st_ino, status.st_size)}"
    meta = np.empty((0, 0, 0), dtype)
    return da.map_blocks(_read_block, str(path), missing, chunks=chunks, dtype=dtype, meta=meta, name=name)


def _read_block(path: str, missing: Any, block_info: Any = None) -> np.ndarray:
    (first, last), *window = block_info[None]["array-location"]
    try:
        with open_foreign_raster(path, LocalFolder(Path(path).parent)) as file:
            pixels = np.asarray(file.read(list(range(first + 1, last + 1)), window=tuple(window)))
    except (RasterRefusedError, RasterioError) as error:
        if is_memory_failure(error):
            raise MemoryError from None
        reason = "its pixels cannot be read: it is damaged, or has changed in the meantime."
        raise FileContentInvalid(file=Path(path).name, reason=reason) from error
    if pixels.dtype.kind == "f" and missing is not None:
        pixels[pixels == missing] = np.nan
    return pixels


def _make_cube(
    pixels: da.Array, grid: GeoBox, names: Sequence[str], missing: Any, packings: Sequence[Packing]
) -> xr.DataArray:
    grid, reversed_dimensions = orient_grid(grid)
    coords = {BANDS: list(names), **make_packing_coordinates(packings)}
    cube = reverse_dimensions(xr.DataArray(pixels, dims=(BANDS, Y, X), coords=coords), reversed_dimensions)
    if pixels.dtype.kind in "iu" and missing is not None:
        cube.attrs[NODATA] = pixels.dtype.type(missing)
    return cube.assign_coords(xr_coords(grid, dims=(Y, X), crs_coord_name=SPATIAL_REF))
