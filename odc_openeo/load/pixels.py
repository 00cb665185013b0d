"""Read pixels of a band: those without data get the no-data value of the cube, others keep their values.

Which are valid is what `rasterio` says with ``masked=True``: by the no-data value of the file, its internal
mask or its alpha band. Pixels whose type the cube cannot hold are checked: none is clipped or invented.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import rasterio.warp
from odc.geo.geobox import GeoBox
from odc.geo.roi import roi_is_empty, roi_shape
from odc.loader.types import RasterLoadParams
from rasterio.io import DatasetReader

from odc_openeo.load.rio_internals import find_overview, plan_read, read_band
from odc_openeo.untrusted.raster_bands import (
    find_nodata,
    find_usable_nodata,
    has_mask,
    is_complex,
    read_window,
)

MOST_PIXELS: Final = 2**24
"""Pixels of a file that are held at once to find which of them are the nearest ones."""

Region = tuple[slice, slice]
OpenOverview = Callable[[Callable[[DatasetReader], int | None]], AbstractContextManager[Any]]
"""Opens a raster and the overview that a function chooses; both are the raster itself if it chooses none."""


class PixelsRefusedError(ValueError):
    """Pixels have values that the cube cannot hold; the message is a sentence that begins with "it"."""


@dataclass(frozen=True)
class PixelRules:
    """A band to read: ``nodata`` counts where the file says nothing, ``uses_alpha`` says whether an alpha
    band is a mask. With ``exact`` a valid pixel must not have the no-data value of the cube."""

    band: int
    nodata: float | None
    uses_alpha: bool
    exact: bool


def read_pixels(
    open_overview: OpenOverview,
    rules: PixelRules,
    cfg: RasterLoadParams,
    geobox: GeoBox,
    dst: np.ndarray | None = None,
) -> tuple[Region, np.ndarray]:
    """The pixels of a band, each the nearest one in the file, and which part of the grid they are.

    Raises:
        PixelsRefusedError: a value cannot be held by the type of the cube, or the file lacks the band.
    """
    band = rules.band

    def choose(raster: DatasetReader) -> int | None:
        if band > raster.count:
            raise PixelsRefusedError(f"it has {raster.count} bands, and band {band} of it is needed.")
        return find_overview(raster, band, cfg, plan_read(raster, cfg, geobox))

    with open_overview(choose) as (raster, overview):
        target = np.dtype(cfg.dtype if dst is None else dst.dtype)
        can_mark = rules.exact or cfg.fill_value is not None or target.kind == "f"
        mask = can_mark and has_mask(raster, band, rules.uses_alpha)
        nodata = None if mask else find_nodata(raster, band, rules.nodata)
        is_odd = nodata is None and raster.nodatavals[band - 1] is not None
        if not (mask or is_odd) and _is_plain(raster.dtypes[band - 1], target, nodata, rules, cfg.fill_value):
            plain = replace(cfg, src_nodata_override=nodata)
            return read_band(overview, band, plain, geobox, plan_read(raster, cfg, geobox), dst)
        return _read_checked(overview, nodata, rules, cfg, geobox, dst)


def _is_plain(
    dtype: str, target: np.dtype[Any], nodata: float | None, rules: PixelRules, fill: float | None
) -> bool:
    """Whether the pixels fit as they are, so that GDAL may read them straight into the cube."""
    if is_complex(dtype) or not _is_safe(np.dtype(dtype), target) or dtype == "int8":
        return False
    if nodata is not None and not math.isnan(nodata) and np.dtype(dtype) == "float32" != target:
        # The no-data value of the file may be rounded otherwise.
        return False
    if not rules.exact or target.kind not in "iu":
        return True
    return nodata is None if fill is None else nodata == fill or find_usable_nodata(fill, dtype) is None


def _is_safe(dtype: np.dtype[Any], target: np.dtype[Any]) -> bool:
    is_long = dtype.kind in "iu" and dtype.itemsize == 8
    return dtype == target or (np.can_cast(dtype, target) and not (is_long and target.kind == "f"))


# --- Checked -------------------------------------------------------------------------------------


def _read_checked(
    raster: DatasetReader,
    nodata: float | None,
    rules: PixelRules,
    cfg: RasterLoadParams,
    geobox: GeoBox,
    dst: np.ndarray | None,
) -> tuple[Region, np.ndarray]:
    plan = plan_read(raster, cfg, geobox)
    region: Region = plan.roi_dst
    target = np.dtype(cfg.dtype) if dst is None else dst.dtype
    pixels = np.empty(roi_shape(region), target) if dst is None else dst[region]
    if roi_is_empty(region):
        return region, pixels
    values, valid = _read_nearest(raster, rules, cfg, geobox[region])
    _check_values(values[valid], target, cfg.fill_value if rules.exact else None)
    if rules.exact and target.kind in "iu" and cfg.fill_value is None and not valid.all():
        raise PixelsRefusedError("it has pixels without data, unlike what is declared of it in STAC.")
    np.copyto(pixels, _choose_fill(target, cfg.fill_value, nodata))
    np.copyto(pixels, values, where=valid, casting="unsafe")
    return region, pixels


def _choose_fill(target: np.dtype[Any], fill: float | None, nodata: float | None) -> Any:
    if target.kind not in "iu":
        return target.type(np.nan)
    values = (fill, find_usable_nodata(nodata, str(target)), 0)
    return target.type(next(value for value in values if value is not None))


def _read_nearest(
    raster: DatasetReader, rules: PixelRules, cfg: RasterLoadParams, geobox: GeoBox
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pixel of the file for each pixel of a grid in the type of the file, and which are valid."""
    plan = plan_read(raster, cfg, geobox)
    height, width = geobox.shape.yx
    values = np.zeros((height, width), raster.dtypes[rules.band - 1])
    valid = np.zeros((height, width), bool)
    region = plan.roi_dst
    if roi_is_empty(region) or roi_is_empty(plan.roi_src):
        return values, valid
    rows, columns = plan.roi_src
    is_pasted = plan.paste_ok and plan.read_shrink == 1
    if not is_pasted and math.prod(roi_shape(plan.roi_src)) > MOST_PIXELS and max(height, width) > 1:
        return _read_halves(raster, rules, cfg, geobox)
    window = ((rows.start, rows.stop), (columns.start, columns.stop))
    window_values, is_valid = read_window(
        raster, rules.band, window, uses_alpha=rules.uses_alpha, declared=rules.nodata
    )
    if is_pasted:
        values[region], valid[region] = window_values, is_valid
        return values, valid
    positions = _find_nearest(raster, window, geobox)
    inside = positions >= 0
    values[inside] = window_values.ravel()[positions[inside]]
    valid[inside] = is_valid.ravel()[positions[inside]]
    return values, valid


def _read_halves(
    raster: DatasetReader, rules: PixelRules, cfg: RasterLoadParams, geobox: GeoBox
) -> tuple[np.ndarray, np.ndarray]:
    """As `_read_nearest`, one half of the grid after the other."""
    height, width = geobox.shape.yx
    if height >= width:
        axis, halves = 0, (geobox[: height // 2], geobox[height // 2 :])
    else:
        axis, halves = 1, (geobox[:, : width // 2], geobox[:, width // 2 :])
    parts = [_read_nearest(raster, rules, cfg, half) for half in halves]
    values, valid = (np.concatenate(arrays, axis=axis) for arrays in zip(*parts, strict=True))
    return values, valid


def _find_nearest(raster: DatasetReader, window: Any, geobox: GeoBox) -> np.ndarray:
    """For each pixel of a grid the position of the nearest one among those of a window, -1 outside of it."""
    (top, bottom), (left, right) = window
    positions = np.arange((bottom - top) * (right - left), dtype=np.int32).reshape(bottom - top, right - left)
    nearest = np.full(geobox.shape.yx, -1, np.int32)
    rasterio.warp.reproject(
        positions,
        nearest,
        src_transform=raster.window_transform(window),
        src_crs=raster.crs,
        dst_transform=geobox.transform,
        dst_crs=str(geobox.crs),
        dst_nodata=-1,
        resampling=rasterio.warp.Resampling.nearest,
    )
    return nearest


def _check_values(values: np.ndarray, target: np.dtype[Any], nodata: float | None) -> None:
    """Refuse values that change when they are stored, or would become no-data; floats may be rounded."""
    if target.kind in "iu" and nodata is not None and (values == nodata).any():
        raise PixelsRefusedError(
            f"it has valid pixels of the value {nodata:g}, which means no data in the cube."
        )
    if _is_safe(values.dtype, target):
        return
    with np.errstate(invalid="ignore", over="ignore"):
        stored = values.astype(target)
        changed = stored.astype(values.dtype) != values
    if target.kind == values.dtype.kind == "f":
        changed = np.isfinite(values) & ~np.isfinite(stored)
    elif target.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(target)
        changed |= ~((values >= limits.min) & (values <= limits.max))
    elif target.kind in "iu":
        changed |= (values < 0) != (stored < 0)
    if changed.any():
        value = values[changed][0]
        raise PixelsRefusedError(
            f"it has pixels of type {values.dtype}, such as {value}, that do not fit in the type {target} "
            "of the band."
        )
