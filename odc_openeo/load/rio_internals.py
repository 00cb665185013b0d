"""Functions of odc-loader that it does not publish; a test names its version if they have changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.loader._fuser import fuser_for_nodata
from odc.loader._reader import resolve_dst_fill_value
from odc.loader._rio import _do_read, _reproject_info_from_rio, pick_overview, rio_env
from odc.loader.types import RasterLoadParams
from rasterio.crs import CRS
from rasterio.io import DatasetReader

__all__ = ["fill_missing", "find_overview", "make_blank_pixels", "plan_read", "read_band", "rio_env"]

NEAREST_TOLERANCE = 0.9
"""Pixels by which grids may be off each other and still count as the same if the nearest pixel is taken."""

TOLERANCE = 0.05


def plan_read(raster: DatasetReader, cfg: RasterLoadParams, geobox: GeoBox) -> Any:
    """How the pixels of a grid are found in an open raster."""
    tolerance = NEAREST_TOLERANCE if cfg.nearest else TOLERANCE
    if raster.gcps[0]:
        return _reproject_info_from_rio(raster, geobox, ttol=tolerance)
    # A CRS of rasterio is compared by its text, which takes less time than to make one of odc-geo.
    source = _make_grid(raster.shape, raster.transform, raster.crs)
    return _plan_between(source, geobox, tolerance)


@lru_cache(maxsize=256)
def _make_grid(shape: tuple[int, int], transform: Affine, crs: CRS | None) -> GeoBox:
    return GeoBox(shape, transform, crs)


@lru_cache(maxsize=256)
def _plan_between(source: GeoBox, target: GeoBox, tolerance: float) -> Any:
    """Plan once for all dates and bands on the same grid, which takes longer than to open a file."""
    return compute_reproject_roi(source, target, ttol=tolerance)


def find_overview(raster: DatasetReader, band: int, cfg: RasterLoadParams, plan: Any) -> int | None:
    """The overview that suffices for a plan, None if there is none."""
    if not cfg.use_overviews or plan.read_shrink <= 1:
        return None
    index: int | None = pick_overview(plan.read_shrink, raster.overviews(band))
    return index


def read_band(
    raster: DatasetReader,
    band: int,
    cfg: RasterLoadParams,
    geobox: GeoBox,
    plan: Any,
    dst: np.ndarray | None = None,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels of a band, and which part of the grid they are."""
    with rio_env(VSI_CACHE=False):
        region, pixels = _do_read(rasterio.band(raster, band), cfg, geobox, plan, dst=dst)
    return region, pixels


def make_blank_pixels(shape: tuple[int, ...], cfg: RasterLoadParams) -> np.ndarray:
    """Pixels without data; zeros for integers that have no no-data value."""
    return np.full(shape, _choose_fill(cfg), cfg.dtype)


def fill_missing(pixels: np.ndarray, values: np.ndarray, cfg: RasterLoadParams) -> None:
    """Fill pixels without data with those of another scene, in place."""
    fuser_for_nodata(_choose_fill(cfg))(pixels, values)


def _choose_fill(cfg: RasterLoadParams) -> float:
    return resolve_dst_fill_value(np.dtype(cfg.dtype), cfg, cfg.fill_value)
