"""Foreign Zarr arrays as rasters: GeoTIFFs in memory with the same pixels, to be read like all others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from odc.geo.geobox import GeoBox
from odc.geo.roi import roi_is_empty
from odc.loader.types import RasterLoadParams
from rasterio.io import DatasetReader, DatasetWriter, MemoryFile

from odc_openeo.load.rio_internals import plan_read
from odc_openeo.untrusted.raster_bands import find_usable_nodata
from odc_openeo.untrusted.rasters import RasterPlace, RasterRefusedError
from odc_openeo.untrusted.zarr_arrays import ForeignArray, open_array
from odc_openeo.untrusted.zarr_grids import find_grid, find_nodata, find_scale

BLOCK: Final = 512
MOST_PIXELS: Final = 2**34
"""Pixels of an array: more need too large an index of blocks."""
STORED: Final = {"bool": "uint8", "float16": "float32"}
"""Types that GeoTIFF lacks, and those that hold their values."""


@contextlib.contextmanager
def open_zarr_raster(href: str, place: RasterPlace) -> Iterator[DatasetReader]:
    """Open an array as a raster with its header, but without pixels.

    Raises:
        RasterRefusedError: it is not an array of numbers that is safe to read.
        OpenEOError: it cannot be had.
    """
    array, grid = _open_grid(href, place)
    with MemoryFile() as memory:
        _create_raster(memory, array, grid).close()
        with memory.open() as raster:
            yield raster


@contextlib.contextmanager
def open_zarr_window(
    href: str,
    place: RasterPlace,
    cfg: RasterLoadParams,
    geobox: GeoBox,
    choose: Callable[[DatasetReader], int | None],
) -> Iterator[tuple[DatasetReader, DatasetReader]]:
    """Open an array as a raster that has the pixels which a grid needs; both of the pair are the same.

    Raises the errors of `open_zarr_raster`.
    """
    array, grid = _open_grid(href, place)
    with MemoryFile() as memory:
        with _create_raster(memory, array, grid) as raster:
            choose(raster)
            rows, columns = plan_read(raster, cfg, geobox).roi_src
            if not roi_is_empty((rows, columns)):
                values = array.read_window(place, rows, columns)  # type: ignore[arg-type]
                window = ((rows.start, rows.stop), (columns.start, columns.stop))
                raster.write(values.astype(raster.dtypes[0], copy=False), 1, window=window)
        with memory.open() as raster:
            yield raster, raster


def _open_grid(href: str, place: RasterPlace) -> tuple[ForeignArray, GeoBox | None]:
    array = open_array(href, place)
    if np.prod(array.grid_shape, dtype=float) > MOST_PIXELS:
        raise RasterRefusedError(f"it has {array.grid_shape} pixels, which are too many.")
    return array, find_grid(array, place)  # type: ignore[arg-type]


def _create_raster(memory: MemoryFile, array: ForeignArray, grid: GeoBox | None) -> DatasetWriter:
    """Create a file without pixels, in which blocks need memory only where they are written."""
    rows, columns = array.grid_shape
    dtype = STORED.get(array.dtype.name, array.dtype.name)
    profile: dict[str, Any] = {} if grid is None else {"transform": grid.transform, "crs": str(grid.crs)}
    scale, offset, unit = find_scale(array)
    raster = memory.open(
        driver="GTiff",
        height=rows,
        width=columns,
        count=1,
        dtype=dtype,
        nodata=_find_usable_nodata(array, dtype),
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        sparse_ok=True,
        bigtiff="IF_SAFER",
        **profile,
    )
    raster.scales, raster.offsets = (scale,), (offset,)
    if unit is not None:
        raster.set_band_unit(1, unit)
    return raster


def _find_usable_nodata(array: ForeignArray, dtype: str) -> float | None:
    """Find the no-data value if pixels can have it."""
    nodata = find_nodata(array)
    if nodata is None or np.dtype(dtype).kind == "f":
        return nodata
    return None if not np.isfinite(nodata) else find_usable_nodata(nodata, dtype)
