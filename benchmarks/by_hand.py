"""The rows written by hand with odc-stac, xarray and dask, with chunks chosen for this machine.

These chunks were the fastest on two cores: whole dates, or as few blocks as fit in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import odc.stac
import rasterio
import rasterio.features
import rioxarray  # noqa: F401  (registers the accessor ``rio``)
import scipy.ndimage
import xarray as xr
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pystac import Asset, Item
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks import graphs
from benchmarks.scenes import BOX, EAST, FINE, HEIGHTS, TILE, WEST, YEARS, Scenes
from odc_openeo.spatial.new_grid import make_grid


def make_items(cache: Path, scenes: Scenes, dates: int | None = None) -> list[Item]:
    """Make STAC Items of the scenes, as a catalogue would return them."""
    outline = scenes.grid.extent.to_crs("EPSG:4326")
    code = scenes.grid.crs.epsg
    items = []
    for number, time in enumerate(scenes.list_times()[:dates]):
        item = Item(
            f"{scenes.product}-{time:%Y%m%d}",
            outline.json,
            list(outline.boundingbox.bbox),
            time,
            {"proj:epsg": code, "proj:code": f"EPSG:{code}"},
            stac_extensions=[
                "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
                "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            ],
        )
        for band, dtype in scenes.bands.items():
            grid = scenes.get_band_grid(band)
            fields = {"proj:shape": list(grid.shape.yx), "proj:transform": list(grid.affine[:6])}
            fields["raster:bands"] = [{"nodata": scenes.nodata, "data_type": dtype}]
            href = str(scenes.get_band_file(cache, number, band))
            item.add_asset(band, Asset(href, media_type="image/tiff", roles=["data"], extra_fields=fields))
        items.append(item)
    return items


def load_bands(
    cache: Path,
    scenes: Scenes,
    bands: Sequence[str],
    chunks: dict[str, int],
    dates: int | None = None,
    grid: GeoBox | None = None,
) -> xr.Dataset:
    """Load lazily, on the native grid by default."""
    items = make_items(cache, scenes, dates)
    return odc.stac.load(
        items, bands=list(bands), chunks=chunks, resampling="nearest", geobox=grid or scenes.grid
    )


def box_to_cogs(cache: Path, target: Path) -> None:
    """1."""
    cube = load_bands(cache, BOX, FINE, {"x": 2048, "y": 2048}, 12).to_dataarray("band")
    write_images([cube.isel(time=n) for n in range(12)], cube.odc.crs, target)


def write_images(images: Sequence[xr.DataArray], crs: Any, target: Path) -> None:
    """Compute images together on the cluster, and write them as COGs with GDAL, two at a time."""

    def save(number: int, image: xr.DataArray) -> None:
        plain = image.drop_attrs().rio.write_crs(crs)
        plain.rio.to_raster(target / f"{number:02}.tif", driver="COG", compress="DEFLATE", predictor="YES")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(save, itertools.count(), dask.compute(*images)))


def masked_ndvi(cube: xr.Dataset) -> xr.DataArray:
    """NDVI without clouds."""
    red, nir = (cube[name].where(cube[name] != 0).astype("float32") for name in ("B04", "B08"))
    return ((nir - red) / (nir + red)).where(~cube["SCL"].isin(list(graphs.CLOUDS)))


def masked_median(cache: Path, target: Path, dates: int = 12, grid: GeoBox | None = None) -> None:
    """2."""
    cube = load_bands(cache, BOX, ["B04", "B08", "SCL"], {"x": 2048, "y": 1024}, dates, grid)
    cube = cube.chunk({"time": -1, "y": 512, "x": 2048})
    write_images([reduce_to_medians(masked_ndvi(cube))], cube.odc.crs, target)


def compute_median(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Compute medians with numbagg, as an expert would, because numpy's ``nanmedian`` is slow."""
    # `make bench` installs it; tests import this module without.
    import numbagg

    medians: np.ndarray = numbagg.nanmedian(pixels, axis=axis)
    return medians


def reduce_to_medians(cube: xr.DataArray) -> xr.DataArray:
    """The median of all dates."""
    return xr.apply_ufunc(
        compute_median,
        cube,
        input_core_dims=[["time"]],
        kwargs={"axis": -1},
        dask="parallelized",
        output_dtypes=[cube.dtype],
    )


def monthly_means(cache: Path, target: Path) -> None:
    """3."""
    cube = load_bands(cache, BOX, ["B04", "B08", "SCL"], {"x": 2048, "y": 1024})
    means = masked_ndvi(cube).resample(time="MS").mean()
    filled = means.chunk({"time": -1}).interpolate_na("time", use_coordinate=True)
    write_images([filled.isel(time=n) for n in range(filled.sizes["time"])], cube.odc.crs, target)


def polygon_series(cache: Path, target: Path) -> None:
    """4. A window per polygon, read on the workers, instead of loading the tile."""
    areas = gpd.GeoDataFrame.from_features(graphs.make_polygons(), crs=4326).to_crs(TILE.grid.crs.epsg)
    shapes = list(areas.geometry)
    files = [str(TILE.get_band_file(cache, n, "B04")) for n in range(TILE.dates)]
    means = dask.compute(*[dask.delayed(compute_polygon_means)(file, shapes) for file in files])
    np.save(target / "0.npy", np.array(means).T)


def compute_polygon_means(path: str, shapes: Sequence[Any]) -> list[float]:
    """Compute the mean of the pixels of each polygon, with a window for each."""
    with rasterio.open(path) as file:
        return [_polygon_mean(file, shape) for shape in shapes]


def _polygon_mean(file: Any, shape: Any) -> float:
    window = rasterio.features.geometry_window(file, [shape])
    inside = rasterio.features.geometry_mask(
        [shape], (window.height, window.width), file.window_transform(window), invert=True
    )
    return float(file.read(1, window=window)[inside].mean())


def merged_zones(cache: Path, target: Path) -> None:
    """5. Warped from the files by GDAL, as exactly as ours."""
    # The same pixels as ours, so that values can be compared.
    grid = make_grid(WEST.grid, (20, 20), CRS("EPSG:3035"))
    files = [str(scenes.get_band_file(cache, n, "B04")) for n in range(WEST.dates) for scenes in (WEST, EAST)]
    parts = [da.from_delayed(dask.delayed(read_warped)(f, grid), grid.shape.yx, np.float32) for f in files]
    largest = da.nanmax(da.stack(parts), axis=0)
    write_images([xr.DataArray(largest, xr_coords(grid), ("y", "x"))], "EPSG:3035", target)


def read_warped(path: str, grid: GeoBox) -> np.ndarray:
    """Read the first band of a file on another grid, as GDAL warps it."""
    options = {
        "crs": str(grid.crs),
        "transform": grid.transform,
        "height": grid.shape.y,
        "width": grid.shape.x,
        "resampling": Resampling.bilinear,
        "src_nodata": 0,
        "nodata": np.nan,
        "dtype": "float32",
        "tolerance": 1e-4,
        # 10 m to 20 m: GDAL's own estimate is distorted where the target extends beyond the file.
        "XSCALE": "0.5",
        "YSCALE": "0.5",
    }
    with rasterio.open(path) as file, WarpedVRT(file, **options) as warped:
        return warped.read(1)


def smoothed_slope(cache: Path, target: Path) -> None:
    """6."""
    cube = load_bands(cache, HEIGHTS, ["height"], {"x": 2048, "y": 2048})["height"].isel(time=0)
    heights = cube.where(cube != -9999)
    slopes = heights.data.map_overlap(_slope_of_block, depth=3, boundary="none", dtype=float)
    write_images([xr.DataArray(slopes, heights.coords, heights.dims)], cube.odc.crs, target)


def _slope_of_block(block: np.ndarray) -> np.ndarray:
    smooth = scipy.ndimage.convolve(block, np.array(graphs.KERNEL) * graphs.KERNEL_FACTOR, mode="nearest")
    wide = np.pad(smooth, 1, constant_values=np.nan)
    weights = np.array([1, 2, 1])
    rows, columns = block.shape
    sides = [wide[i : i + rows] * w for i, w in enumerate(weights)]
    east = sum(s[:, 2:] - s[:, :-2] for s in sides) / 80
    tops = [wide[:, i : i + columns] * w for i, w in enumerate(weights)]
    south = sum(s[2:] - s[:-2] for s in tops) / 80
    return np.rad2deg(np.arctan(np.hypot(east, south)))


def three_uses(cache: Path, target: Path) -> None:
    """7."""
    cube = load_bands(cache, BOX, ["B04", "B08"], {"x": 2048, "y": 1024}, 12)
    red, nir = (cube[name].where(cube[name] != 0).astype("float32") for name in ("B04", "B08"))
    ndvi = (nir - red) / (nir + red)
    image = xr.concat([ndvi.min("time"), ndvi.max("time"), ndvi.mean("time")], "band")
    write_images([image], cube.odc.crs, target)


def coarse_preview(cache: Path, target: Path) -> None:
    """8. At the requested resolution, so that overviews are read."""
    size = math.ceil(TILE.grid.shape.x / 100)
    grid = GeoBox((size, size), TILE.grid.transform @ Affine.scale(100), TILE.grid.crs)
    cube = load_bands(cache, TILE, ["B04", "B08"], {"x": 2048, "y": 2048}, grid=grid)
    images = cube.to_dataarray("band")
    write_images([images.isel(time=n) for n in range(images.sizes["time"])], cube.odc.crs, target)


def whole_tile(*bands: str) -> Callable[[Path], None]:
    """Return a function that reads all pixels in the box of row 4 or 8."""
    return lambda cache: load_bands(cache, TILE, bands, {"x": 2048, "y": 2048}).max().compute()


def yearly_curve(cache: Path, target: Path) -> None:
    """10."""
    cube = load_bands(cache, YEARS, ["B08"], {"x": 128, "y": 64})["B08"].chunk({"time": -1})
    seconds = (cube["time"].values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    values = cube.where(cube != 0).assign_coords(time=seconds)
    start = dict(zip(("p0", "p1", "p2"), graphs.START, strict=True))
    fitted = values.curvefit("time", _seasonal_wave, p0=start)["curvefit_coefficients"]
    fitted.drop_attrs().to_netcdf(target / "0.nc")


def _seasonal_wave(x: Any, p0: float, p1: float, p2: float) -> Any:
    return p0 + p1 * np.cos(graphs.YEAR * x) + p2 * np.sin(graphs.YEAR * x)
