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
from odc_openeo.cube.common_types import PixelKind, choose_common_type
from odc_openeo.cube.packing import Packing, carry_all_packings, drop_packing, make_packing_coordinates
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.spatial.row_order import orient_grid, reverse_dimensions
from odc_openeo.untrusted.raster_bands import (
    BandHeader,
    is_complex,
    list_data_bands,
    make_unique_names,
    read_band_headers,
    read_window,
)
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
            bands = read_band_headers(file)
            packings = [
                Packing.parse(*fields) for fields in zip(file.units, file.scales, file.offsets, strict=True)
            ]
            block_height, block_width = file.block_shapes[0]
    except RasterRefusedError as error:
        raise FileContentInvalid(file=path.name, reason=str(error)) from error
    if any(is_complex(band.dtype) for band in bands):
        raise FileContentInvalid(file=path.name, reason="its pixels are complex numbers.")
    if grid is None or not grid.axis_aligned:
        reason = "it needs a CRS and a grid along the axes of it."
        raise FileContentInvalid(file=path.name, reason=reason)
    positions = list_data_bands(bands)
    names = list(make_unique_names([bands[i].description or f"band_{i + 1}" for i in positions]))
    dtype, missing = _choose_type([bands[i] for i in positions], len(positions) < len(bands))
    sides = (max(CHUNK // block_height, 1) * block_height, max(CHUNK // block_width, 1) * block_width)
    check_chunks(path.name, (len(names), *grid.shape), (1, *sides))
    pixels = _make_lazy_pixels(path, (len(names), *grid.shape), sides, dtype, missing, positions)
    return _make_cube(pixels, grid, names, missing, [packings[i] for i in positions])


def _choose_type(bands: Sequence[BandHeader], uses_alpha: bool) -> tuple[np.dtype, float | None]:
    """The type and the no-data value that hold the pixels of all bands of a file."""
    masks = ("mask", "alpha") if uses_alpha else ("mask",)
    kinds = [PixelKind(b.dtype, None if b.mask in masks else b.nodata, b.mask in masks) for b in bands]
    dtype, nodata = choose_common_type(kinds)
    return np.dtype(dtype), nodata


def check_chunks(name: str, shape: Sequence[int], chunks: Sequence[int]) -> None:
    """Raise FileContentInvalid if a file declares more pixels than can be planned, however few it holds."""
    count = math.prod(math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True))
    if count > MAX_CHUNKS:
        sizes = " x ".join(map(str, shape))
        reason = f"it declares {sizes} values, which are too many. Split it into smaller files."
        raise FileContentInvalid(file=name, reason=reason)


def _make_lazy_pixels(
    path: Path,
    shape: Any,
    sides: tuple[int, int],
    dtype: np.dtype,
    missing: Any,
    positions: Sequence[int],
) -> da.Array:
    chunks = normalize_chunks((1, *sides), shape, dtype=dtype)
    status = path.stat()
    name = f"read-gtiff-{tokenize(str(path), status.st_mtime_ns, status.st_ino, status.st_size)}"
    meta = np.empty((0, 0, 0), dtype)
    arguments = (str(path), missing, dtype, tuple(positions))
    return da.map_blocks(_read_block, *arguments, chunks=chunks, dtype=dtype, meta=meta, name=name)


def _read_block(
    path: str, missing: Any, dtype: np.dtype, positions: Sequence[int], block_info: Any = None
) -> np.ndarray:
    (first, last), *window = block_info[None]["array-location"]
    try:
        with open_foreign_raster(path, LocalFolder(Path(path).parent)) as file:
            uses_alpha = len(positions) < file.count
            layers = [
                read_window(file, positions[i] + 1, tuple(window), uses_alpha=uses_alpha)
                for i in range(first, last)
            ]
    except (RasterRefusedError, RasterioError) as error:
        if is_memory_failure(error):
            raise MemoryError from None
        reason = "its pixels cannot be read: it is damaged, or has changed in the meantime."
        raise FileContentInvalid(file=Path(path).name, reason=reason) from error
    fill = np.nan if dtype.kind == "f" else missing
    if fill is None:
        return np.stack([values for values, _ in layers]).astype(dtype, copy=False)
    return np.stack([np.where(valid, values.astype(dtype), dtype.type(fill)) for values, valid in layers])


def _make_cube(
    pixels: da.Array, grid: GeoBox, names: Sequence[str], missing: Any, packings: Sequence[Packing]
) -> xr.DataArray:
    grid, reversed_dimensions = orient_grid(grid)
    coords = {BANDS: list(names), **make_packing_coordinates(packings)}
    cube = reverse_dimensions(xr.DataArray(pixels, dims=(BANDS, Y, X), coords=coords), reversed_dimensions)
    if pixels.dtype.kind in "iu" and missing is not None:
        cube.attrs[NODATA] = pixels.dtype.type(missing)
    return cube.assign_coords(xr_coords(grid, dims=(Y, X), crs_coord_name=SPATIAL_REF))
