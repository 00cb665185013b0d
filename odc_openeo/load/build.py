"""Build the lazy cube of a load: one task per chunk, with the datasets that it needs."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo import cube
from odc_openeo.catalog import Band, Scene
from odc_openeo.cube import BANDS, T, X, Y
from odc_openeo.cube.packing import make_packing_coordinates
from odc_openeo.cube.surround import surround_window
from odc_openeo.errors import NoDataAvailable
from odc_openeo.load.chunk_tasks import make_pixels
from odc_openeo.load.chunking import Volume, check_volume, find_block_offset
from odc_openeo.load.extra_dimensions import (
    find_extra_dimension,
    find_layer_files,
    fold_layers,
    list_layers,
)
from odc_openeo.load.native_grid import NativeGrid, choose_native_grid, find_covered_pixels
from odc_openeo.load.pixel_types import Layout, choose_layout, find_integer_nodata, get_packing
from odc_openeo.load.request import LoadRequest
from odc_openeo.load.sources import Step, group_time_steps, label_step
from odc_openeo.load.subset import Subset
from odc_openeo.load.turned_scenes import turn_scenes
from odc_openeo.spatial.geometry_masks import clip_to_geometries
from odc_openeo.spatial.row_order import orient_grid, reverse_dimensions
from odc_openeo.spatial.warp import pixel_scale, warp


def load(
    scenes: Sequence[Scene],
    bands: Sequence[Band],
    request: LoadRequest | None = None,
    *,
    groupby: str = "time",
) -> xr.DataArray:
    """Build the lazy cube (t, bands, y, x) of raw pixel values that a request asks for: by default all.

    The cube is on the native grid of the scenes, limited to the area of the request, and runs from north to
    south and from west to east, whichever way the files do. Scenes of the same time
    (or solar day, with ``groupby="solar_day"``) are one time step; where they overlap, the first by time and
    id that has data there counts. Times are UTC, ascending. Integers keep the type that holds all bands,
    no-data is declared as `cube` says; with floats among them all bands are floats with NaN. Integers
    without a no-data value become floats when a scene does not cover the whole grid. Scale and offset are not
    applied. ``attrs["source"]`` describes the grid.

    Bands with an extra dimension, such as wavelengths, have it after ``bands``, in chunks of one label.

    The result may be limited to the subset of the request, or be on the coarser grid that it chooses: each
    pixel is then the nearest one in the files, or in their overviews where they have such.

    Raises:
        FeatureUnsupported: some bands have an extra dimension that others lack.
        NoDataAvailable: no scene has the bands, or no pixel is in the area.
        ProcessGraphComplexity: together with the loads before it, the cube is over the limits.
    """
    request = request or LoadRequest()
    extra = find_extra_dimension(bands)
    if extra is None:
        return _load_bands(scenes, bands, request, groupby)
    files = find_layer_files(scenes, bands, extra)
    return fold_layers(_load_bands(files, list_layers(bands, extra), request, groupby), bands, extra)


def _load_bands(
    scenes: Sequence[Scene], bands: Sequence[Band], request: LoadRequest, groupby: str
) -> xr.DataArray:
    """Build the lazy cube of bands without extra dimensions."""
    names = [band.name for band in bands]
    useful = [scene for scene in scenes if any(scene.find_grid(name) is not None for name in names)]
    if not useful:
        raise NoDataAvailable(reason=f"no dataset found has one of the bands {', '.join(names)}.")
    useful = turn_scenes(useful, request.area, request.process_id)
    is_box = request.geometries is None
    native = choose_native_grid(
        useful, names, request.area, centres=is_box, process_id=request.process_id, hint=request.hint
    )
    chosen, subset, view = _choose_grid_to_read(useful, native.geobox, request)
    chosen = None if chosen is None else orient_grid(chosen)[0]
    is_whole = subset.view is None and (chosen is None or _contains_grid(native.geobox, chosen))
    layout = choose_layout(bands, is_whole and _are_covering(useful, names, native.geobox))
    bands = subset.select_bands(bands)
    useful = list(subset.select_scenes(useful)) if groupby == "time" else useful
    grid = replace(native, geobox=subset.crop_grid(native.geobox) if chosen is None else chosen)
    steps = group_time_steps(useful, groupby, grid.geobox)
    window = None if request.part is None else request.part.find_hull(grid.geobox)
    read = grid.geobox if window is None else grid.geobox[window]
    offset = find_block_offset(read, useful) if chosen is None else (0, 0)
    volume = _measure_volume(steps, read, bands, layout)
    if chosen is None and subset.is_sparse(read):
        volume = volume.split_small()
        volume = replace(volume, part=subset.needed_share(read, volume.side, offset))
    check_volume(volume, request.loaded, request.limits)
    request.loaded.append(volume)
    sketch_above = request.limits.sketch_above_chunks
    if sketch_above is not None and volume.chunks > sketch_above:
        return _sketch_cube(steps, bands, grid, layout)
    stacked = make_pixels(steps, bands, read, layout, volume, offset)
    if window is not None:
        stacked = surround_window(stacked, grid.geobox.shape.yx, window)
    pixels = _assemble_cube(stacked, _list_times(steps), bands, grid, layout)
    if chosen is not None and request.area is not None:
        pixels = _mask_uncovered(pixels, chosen, native.geobox)
    if view is not None:
        pixels = warp(pixels, grid.geobox, view, "near")
    if request.geometries is None:
        return pixels
    return clip_to_geometries(pixels, request.geometries, request.process_id, "spatial_extent")


def _choose_grid_to_read(
    scenes: Sequence[Scene], native: GeoBox, request: LoadRequest
) -> tuple[GeoBox | None, Subset, GeoBox | None]:
    """The grid to read on, unless it is the native one; the subset; the grid to warp to afterwards."""
    subset = request.subset
    chosen = subset.view or (request.choose_grid(native) if request.choose_grid else None)
    if chosen is None or chosen.crs == native.crs or not any(scene.turn for scene in scenes):
        return chosen, subset, None
    # Files are read with other longitudes than theirs, which only a grid in degrees has.
    view = subset.view
    return None if view is None else _coarsen_for(native, view), replace(subset, view=None), view


def _coarsen_for(native: GeoBox, view: GeoBox) -> GeoBox | None:
    """The grid with pixels hardly smaller than those of a view; None if those of the data are not."""
    factor = math.floor(min(pixel_scale(native, view)))
    return native.zoom_out(factor) if factor > 1 else None


def _mask_uncovered(data: xr.DataArray, grid: GeoBox, native: GeoBox) -> xr.DataArray:
    """The cube without the values of pixels that the cube on its native grid does not have."""
    inside = find_covered_pixels(grid, native)
    if inside is None:
        return data
    fill = np.nan if data.dtype.kind == "f" else cube.nodata(data)
    return data.where(xr.DataArray(inside, dims=(Y, X)), fill).astype(data.dtype).assign_attrs(data.attrs)


def _list_times(steps: Sequence[Step]) -> np.ndarray:
    return np.array([label_step(step) for step in steps], "datetime64[ns]")


def _sketch_cube(
    steps: Sequence[Step], bands: Sequence[Band], grid: NativeGrid, layout: Layout
) -> xr.DataArray:
    """A cube of the same form without the way to its pixels."""
    times = _list_times(steps)
    shape = (len(times), len(bands), *grid.geobox.shape.yx)
    values = da.zeros(shape, dtype=layout.dtype, chunks=(-1, 1, -1, -1))
    return _assemble_cube(values, times, bands, grid, layout)


def _measure_volume(steps: Sequence[Step], geobox: GeoBox, bands: Sequence[Band], layout: Layout) -> Volume:
    height, width = geobox.shape.yx
    scenes = [scene for step in steps for scene in step]
    version = hashlib.sha256(repr(([s.version for s in scenes], bands)).encode()).hexdigest()
    sizes = (len(scenes), width, height, len(steps), len(bands), layout.dtype.itemsize)
    return Volume(scenes[0].product, *sizes, version=version)


def _are_covering(scenes: Sequence[Scene], bands: Sequence[str], geobox: GeoBox) -> bool:
    """Whether each scene has pixels of all bands for the whole grid; turned to both sides, with both."""
    sides: dict[tuple[str, str], list[GeoBox | None]] = defaultdict(list)
    for scene in scenes:
        for band in bands:
            sides[scene.id, band].append(scene.find_grid(band))
    return all(None not in grids and _contain_grid(tuple(grids), geobox) for grids in sides.values())


def _contain_grid(outer: tuple[GeoBox | None, ...], inner: GeoBox) -> bool:
    grids = sorted((grid for grid in outer if grid is not None), key=lambda grid: grid.boundingbox.left)
    first, last = grids[0], grids[-1]
    if len(grids) == 1 or first.crs != inner.crs:
        return any(_contains_grid(grid, inner) for grid in grids)
    slack = abs(inner.resolution.x) * 1e-3
    pairs = itertools.pairwise(grid.boundingbox for grid in grids)
    if any(right.left - left.right > slack for left, right in pairs):
        return False
    height, width = inner.shape.yx
    return _contains_grid(first, inner[:, :1]) and _contains_grid(last, inner[:, width - 1 :])


def _contains_grid(outer: GeoBox, inner: GeoBox) -> bool:
    if outer.crs != inner.crs:
        return False
    a, b, slack = outer.boundingbox, inner.boundingbox, abs(inner.resolution.x) * 1e-6
    return bool(
        a.left <= b.left + slack
        and a.bottom <= b.bottom + slack
        and a.right >= b.right - slack
        and a.top >= b.top - slack
    )


def _assemble_cube(
    stacked: da.Array, times: np.ndarray, bands: Sequence[Band], grid: NativeGrid, layout: Layout
) -> xr.DataArray:
    geobox, reversed_dimensions = orient_grid(grid.geobox)
    axes = (T, BANDS, Y, X)
    if reversed_dimensions:
        stacked = reverse_dimensions(xr.DataArray(stacked, dims=axes), reversed_dimensions).data
    places = xr_coords(geobox, dims=(Y, X))
    data = xr.DataArray(
        stacked,
        dims=axes,
        coords={T: (T, times), **_band_coordinates(bands, layout), **places},
        attrs={"source": grid.describe()},
    )
    data.name = None
    return _with_nodata(data, bands, layout) if layout.dtype.kind in "iu" else data


def _band_coordinates(bands: Sequence[Band], layout: Layout) -> dict[str, Any]:
    attrs = {cube.ALIASES: dict(layout.aliases)} if layout.aliases else {}
    coords: dict[str, Any] = {BANDS: (BANDS, np.array([b.label for b in bands]), attrs)}
    coords |= make_packing_coordinates([get_packing(b) for b in bands], names=layout.packing)
    if layout.common_names:
        coords[cube.COMMON_NAME] = (BANDS, np.array([b.common_name or "" for b in bands]))
    if layout.wavelengths:
        centres = [np.nan if b.wavelength is None else b.wavelength for b in bands]
        coords[cube.WAVELENGTH] = (BANDS, np.array(centres))
    return coords


def _with_nodata(data: xr.DataArray, bands: Sequence[Band], layout: Layout) -> xr.DataArray:
    values = [find_integer_nodata(b) for b in bands]
    if layout.one_nodata:
        if values[0] is not None:
            data.attrs[cube.NODATA] = data.dtype.type(values[0]).item()
        return data
    numbers = [np.nan if v is None else v for v in values]
    dtype = np.float64 if None in values else data.dtype
    return cube.with_nodata(data, xr.DataArray(np.array(numbers, dtype), dims=BANDS))
