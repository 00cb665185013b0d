"""The floor: rows with rasterio's windows and numpy on two threads of one process, without dask and xarray.

Nothing here is lazy, checked or general: whoever writes it knows the grids, the types and the no-data values,
and that everything fits in memory. What remains is decoding, arithmetic and encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.shutil
import scipy.ndimage
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile
from rasterio.windows import Window

from benchmarks import graphs
from benchmarks.by_hand import compute_median, compute_polygon_means, read_warped
from benchmarks.scenes import BOX, EAST, FINE, HEIGHTS, TILE, WEST, Scenes
from odc_openeo.spatial.new_grid import make_grid

THREADS: Final = 2
STRIP: Final = 512
"""Rows that are computed at once: those of a block of the files."""
DATES: Final = 12


def box_to_cogs(cache: Path, target: Path) -> None:
    """1."""

    def copy_date(number: int) -> None:
        image = np.stack([_read_rows(cache, BOX, number, band) for band in FINE])
        _write_cog(image, BOX.grid, 0, target / f"{number:02}.tif")

    _run_all(copy_date, range(DATES))


def masked_median(cache: Path, target: Path) -> None:
    """2."""
    image = np.empty(BOX.grid.shape.yx, np.float32)

    def fill_strip(rows: slice) -> None:
        dates = [_read_masked_ndvi(cache, number, rows) for number in range(DATES)]
        image[rows] = compute_median(np.stack(dates, axis=-1), axis=-1)

    _run_all(fill_strip, _list_strips(BOX.grid))
    _write_cog(image[None], BOX.grid, np.nan, target / "0.tif", threads=THREADS)


def polygon_series(cache: Path, target: Path) -> None:
    """4."""
    areas = gpd.GeoDataFrame.from_features(graphs.make_polygons(), crs=4326).to_crs(TILE.grid.crs.epsg)
    shapes = list(areas.geometry)
    files = [str(TILE.get_band_file(cache, number, "B04")) for number in range(TILE.dates)]
    means = _run_all(lambda file: compute_polygon_means(file, shapes), files)
    np.save(target / "0.npy", np.array(means).T)


def merged_zones(cache: Path, target: Path) -> None:
    """5."""
    grid = make_grid(WEST.grid, (20, 20), CRS("EPSG:3035"))
    files = [str(zone.get_band_file(cache, n, "B04")) for n in range(WEST.dates) for zone in (WEST, EAST)]
    largest = np.fmax.reduce(_run_all(lambda file: read_warped(file, grid), files))
    _write_cog(largest[None], grid, np.nan, target / "0.tif", threads=THREADS)


def smoothed_slope(cache: Path, target: Path) -> None:
    """6."""
    height, width = HEIGHTS.grid.shape.yx
    image = np.empty((height, width))

    def fill_strip(rows: slice) -> None:
        first, last = max(rows.start - 3, 0), min(rows.stop + 3, height)
        heights = _read_rows(cache, HEIGHTS, 0, "height", slice(first, last))
        weights = np.array(graphs.KERNEL) * graphs.KERNEL_FACTOR
        smooth = scipy.ndimage.correlate(heights, weights, mode="nearest").astype(np.float64)
        top, bottom = first + (first > 0) * 2, last - (last < height) * 2
        wide = np.pad(
            smooth[top - first : bottom - first],
            ((int(first == 0), int(last == height)), (1, 1)),
            constant_values=np.nan,
        )
        image[rows] = _compute_slopes(wide)

    _run_all(fill_strip, _list_strips(HEIGHTS.grid))
    _write_cog(image[None], HEIGHTS.grid, np.nan, target / "0.tif", threads=THREADS)


def _compute_slopes(heights: np.ndarray) -> np.ndarray:
    right = heights[:, 2:] - heights[:, :-2]
    east = (right[:-2] + 2 * right[1:-1] + right[2:]) / 80
    down = heights[2:] - heights[:-2]
    south = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 80
    return np.rad2deg(np.arctan(np.hypot(east, south)))


def three_uses(cache: Path, target: Path) -> None:
    """7."""
    import numbagg

    image = np.empty((3, *BOX.grid.shape.yx), np.float32)

    def fill_strip(rows: slice) -> None:
        ndvi = np.stack([_read_ndvi(cache, number, rows) for number in range(DATES)])
        image[0, rows], image[1, rows] = np.fmin.reduce(ndvi), np.fmax.reduce(ndvi)
        image[2, rows] = numbagg.nanmean(ndvi, axis=0)

    _run_all(fill_strip, _list_strips(BOX.grid))
    _write_cog(image, BOX.grid, np.nan, target / "0.tif", threads=THREADS)


# --- Reading and writing -------------------------------------------------------------------------


def _run_all(function: Callable[[Any], Any], items: Sequence[Any] | Iterator[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def _list_strips(grid: GeoBox) -> list[slice]:
    return [slice(first, first + STRIP) for first in range(0, grid.shape.y, STRIP)]


def _read_rows(cache: Path, scenes: Scenes, number: int, band: str, rows: slice | None = None) -> np.ndarray:
    with rasterio.open(scenes.get_band_file(cache, number, band)) as file:
        if rows is None:
            return file.read(1)
        return file.read(1, window=Window(0, rows.start, file.width, rows.stop - rows.start))


def _read_ndvi(cache: Path, number: int, rows: slice) -> np.ndarray:
    red, nir = (_read_valid(cache, number, band, rows) for band in ("B04", "B08"))
    return (nir - red) / (nir + red)


def _read_valid(cache: Path, number: int, band: str, rows: slice) -> np.ndarray:
    pixels = _read_rows(cache, BOX, number, band, rows)
    numbers = pixels.astype(np.float32)
    numbers[pixels == 0] = np.nan
    return numbers


def _read_masked_ndvi(cache: Path, number: int, rows: slice) -> np.ndarray:
    ndvi = _read_ndvi(cache, number, rows)
    coarse = _read_rows(cache, BOX, number, "SCL", slice(rows.start // 2, rows.stop // 2))
    cloudy = np.isin(coarse, graphs.CLOUDS).repeat(2, axis=0).repeat(2, axis=1)
    ndvi[cloudy] = np.nan
    return ndvi


def _write_cog(image: np.ndarray, grid: GeoBox, nodata: float, path: Path, threads: int = 1) -> None:
    """Write pixels (bands, y, x) with the compression of the other ways."""
    count, height, width = image.shape
    profile = {"count": count, "height": height, "width": width, "dtype": image.dtype, "nodata": nodata}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", crs=str(grid.crs), transform=grid.transform, **profile) as plain:
            plain.write(image)
        options = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "NUM_THREADS": str(threads)}
        rasterio.shutil.copy(memory.name, path, driver="COG", **options)
