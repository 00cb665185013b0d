"""Levels of a pyramid in a Zarr store: each is a group with half the resolution of the one before."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo.cube import X, Y
from odc_openeo.formats.cf import make_attributes, make_dataset
from odc_openeo.formats.geozarr import LEVEL_SCALE, make_levels_attributes
from odc_openeo.formats.zarr_regions import (
    Tiling,
    create_dataset_template,
    find_dimensions,
    list_variables,
    make_cube_attributes,
)

SMALLEST: Final = 512
"""Pixels: there are no further levels when no side is longer."""


def count_levels(cube: xr.DataArray) -> int:
    """Count the levels of a cube's pyramid, full resolution included."""
    longest = max(cube.sizes[Y], cube.sizes[X])
    return 1 + max(0, math.ceil(math.log2(longest / SMALLEST)))


def coarsen_grid(geobox: GeoBox, level: int) -> GeoBox:
    """Coarsen a grid to that of a level, with the same upper left corner; the last pixels may overhang."""
    for _ in range(level):
        height, width = (math.ceil(size / LEVEL_SCALE) for size in geobox.shape)
        geobox = GeoBox((height, width), geobox.affine @ Affine.scale(LEVEL_SCALE), geobox.crs)
    return geobox


def make_level_cube(cube: xr.DataArray, level: int) -> xr.DataArray:
    """Make a cube with the shape and labels of a level; its values mean nothing and stay lazy."""
    step = slice(None, None, LEVEL_SCALE**level)
    coarse = coarsen_grid(cube.odc.geobox, level)
    return cube.isel({Y: step, X: step}).assign_coords(xr_coords(coarse, dims=(Y, X)))


def choose_level_tiling(tiling: Tiling, sizes: Mapping[str, int]) -> Tiling:
    """Choose the tiling of the next level, in which a shard covers the area of one of this level.

    Chunks keep their size in pixels. What is aligned to units of a level stays so in the next.
    """
    chunks = {name: min(size, sizes[name]) for name, size in tiling.chunks.items()}
    if tiling.shards is None:
        return Tiling(chunks)
    shards = {name: max(chunks[name], _halve_shard(name, tiling)) for name in chunks}
    return Tiling(chunks, None if shards == chunks else shards)


def _halve_shard(name: str, tiling: Tiling) -> int:
    assert tiling.shards is not None
    if name not in (Y, X):
        return tiling.shards[name]
    return tiling.chunks[name] * math.ceil(tiling.shards[name] / tiling.chunks[name] / LEVEL_SCALE)


def create_levels(
    store: Any, cube: xr.DataArray, layout: str, tilings: Mapping[str, Tiling], resampling: str
) -> None:
    """Create the groups of all levels of a cube, without pixels.

    ``tilings`` are those of the variables of the full resolution, in the group ``0``: its pixels are written
    first (by `zarr_regions.write_region`, say), then those of the others by `write_levels`.
    """
    count = count_levels(cube)
    levels, grid = make_levels_attributes(count, resampling), make_cube_attributes(cube)
    conventions = [*grid["zarr_conventions"], *levels["zarr_conventions"]]
    attributes = {**make_attributes(), **grid, **levels, "zarr_conventions": conventions}
    zarr.open_group(store, mode="w-", zarr_format=3, attributes=attributes)
    for level in range(count):
        level_cube = make_level_cube(cube, level) if level else cube
        dataset = make_dataset(level_cube, layout, "Zarr")
        if level:
            tilings = {
                name: choose_level_tiling(tiling, {str(d): size for d, size in dataset[name].sizes.items()})
                for name, tiling in tilings.items()
            }
        create_dataset_template(store, dataset, tilings, make_cube_attributes(level_cube), str(level))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        zarr.consolidate_metadata(store)


def write_levels(store: Any, count: int, resampling: str) -> None:
    """Fill the levels of a store from its full resolution, one unit at a time.

    ``resampling`` is ``average`` (of the pixels that are not no-data) or ``nearest``.
    """
    root = zarr.open_group(store, mode="r+")
    for level in range(1, count):
        finer, coarser = root[str(level - 1)], root[str(level)]
        assert isinstance(finer, zarr.Group)
        assert isinstance(coarser, zarr.Group)
        for name, target in list_variables(coarser).items():
            source = finer[name]
            assert isinstance(source, zarr.Array)
            _write_level(source, target, resampling)


def _write_level(source: zarr.Array, target: zarr.Array, resampling: str) -> None:
    dims = find_dimensions(target)
    axes = (dims.index(Y), dims.index(X))
    missing = source.fill_value if "_FillValue" in source.attrs else None
    for window in _iterate_units(target):
        read = list(window)
        for axis in axes:
            stop = min(window[axis].stop * LEVEL_SCALE, source.shape[axis])
            read[axis] = slice(window[axis].start * LEVEL_SCALE, stop)
        values = np.moveaxis(np.asarray(source[tuple(read)]), axes, (-2, -1))
        coarse = halve_resolution(values, resampling, missing)
        target[window] = np.moveaxis(coarse, (-2, -1), axes)


def _iterate_units(array: zarr.Array) -> Iterator[tuple[slice, ...]]:
    units = array.shards or array.chunks
    starts = [range(0, size, unit) for size, unit in zip(array.shape, units, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + unit, size))
            for start, unit, size in zip(corner, units, array.shape, strict=True)
        )


def halve_resolution(values: np.ndarray, resampling: str, missing: Any = None) -> np.ndarray:
    """Halve the resolution of the last two dimensions; sides of odd length are rounded up.

    ``average`` is the mean of those pixels among four that exist and are neither ``missing`` nor NaN, rounded
    for integers (``missing`` or NaN if there are none); ``nearest`` is the upper left one.
    """
    if resampling == "nearest":
        return values[..., ::LEVEL_SCALE, ::LEVEL_SCALE]
    padding = [(0, 0)] * (values.ndim - 2) + [(0, size % LEVEL_SCALE) for size in values.shape[-2:]]
    is_valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if missing is not None and not np.isnan(missing):
        is_valid &= values != missing
    totals = _sum_blocks(np.pad(np.where(is_valid, values, 0).astype(np.float64), padding))
    counts = _sum_blocks(np.pad(is_valid.astype(np.float64), padding))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = totals / counts
    if values.dtype.kind in "iub":
        means = np.where(counts > 0, np.rint(means), 0 if missing is None else missing)
    elif missing is not None:
        means = np.where(counts > 0, means, missing)
    return means.astype(values.dtype)


def _sum_blocks(values: np.ndarray) -> np.ndarray:
    return values[..., ::2, ::2] + values[..., 1::2, ::2] + values[..., ::2, 1::2] + values[..., 1::2, 1::2]
