"""Warp lazy rasters from grid to grid with GDAL, chunk by chunk, as if the whole were warped at once.

Each chunk of the target is warped from the window of the source that can influence it, with coordinates
exact to a ten-thousandth of a pixel and one scale for all chunks, so that chunk borders leave no artefacts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final

import dask.array as da
import numpy as np
import pyproj
import rasterio.warp
import xarray as xr
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from odc_openeo import cube
from odc_openeo.cube.elementwise import drop_boolean_mark
from odc_openeo.cube.surround import surround_window
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.features import copy_features

METHODS: Final = {
    "average": Resampling.average,
    "bilinear": Resampling.bilinear,
    "cubic": Resampling.cubic,
    "cubicspline": Resampling.cubic_spline,
    "lanczos": Resampling.lanczos,
    "max": Resampling.max,
    "med": Resampling.med,
    "min": Resampling.min,
    "mode": Resampling.mode,
    "near": Resampling.nearest,
    "q1": Resampling.q1,
    "q3": Resampling.q3,
    "rms": Resampling.rms,
    "sum": Resampling.sum,
}
"""GDAL's resampling methods by their openEO names."""

SELECTING: Final = frozenset({"near", "mode", "min", "max", "med", "q1", "q3"})
"""Methods that select values of the source: they keep integers and no-data as they are."""

REACH: Final = {"bilinear": 1, "cubic": 2, "cubicspline": 2, "lanczos": 3}
"""How far methods that interpolate look, in pixels of the source, or of the target if those are larger."""
Window = tuple[slice, slice]
"""Rows and columns of a grid."""
_SMALLEST_CHUNK: Final = 256
_TOLERANCE: Final = 1e-4
_NEAR_WHOLE: Final = 0.05
_NEAR_ONE: Final = 0.1
_STRETCH: Final = 1.25
_MOST_TASKS: Final = 500_000


def warp(
    data: xr.DataArray, source: GeoBox, target: GeoBox, method: str = "near", window: Window | None = None
) -> xr.DataArray:
    """Warp a raster cube to another grid.

    Methods that select values keep integers with their no-data value. The others result in floats with NaN,
    as does a source of integers that has no no-data value and does not cover the target.

    Args:
        data: The cube, with the dimensions ``y`` and ``x`` on the grid ``source``.
        source: Its grid.
        target: The grid to warp to.
        method: A key of `METHODS`.
        window: The only part of the target that will be computed, None for all. The rest is there in form.

    Raises:
        ProcessGraphComplexity: the target has too many pixels to be computed.
    """
    if is_same_grid(source, target):
        return data
    if isinstance(cube.nodata(data), xr.DataArray) and method in SELECTING:
        bands = cube.nodata(data).dims[0]
        parts = [
            _warp_band(data.isel({bands: [i]}), source, target, method, window)
            for i in range(data.sizes[bands])
        ]
        joined = xr.concat(parts, dim=bands, coords="minimal", compat="override", join="override")
        restored = cube.with_nodata(joined, cube.nodata(data)).assign_coords({bands: data.coords[bands]})
        return restored.transpose(*data.dims)
    values = _prepare_values(data, source, target, method)
    warped = _warp_array(values, source, target, method, cube.nodata(data), window)
    return warped if method in SELECTING else drop_boolean_mark(warped)


def pixel_scale(source: GeoBox, target: GeoBox) -> tuple[float, float]:
    """Source pixels per target pixel along columns and rows, in the middle of the target."""
    return _GridWarp(source, target, "near", None).scale


def is_same_grid(one: GeoBox, other: GeoBox) -> bool:
    """Whether two grids have the same pixels, to a thousandth of a pixel."""
    if one.shape != other.shape or one.crs != other.crs:
        return False
    corners = np.array([(0, 0), one.shape.xy]).T
    offset = ~one.transform @ (other.transform @ (corners[0], corners[1]))
    return bool(np.allclose(offset, corners, atol=1e-3, rtol=0))


def _warp_band(
    band: xr.DataArray, source: GeoBox, target: GeoBox, method: str, window: Window | None
) -> xr.DataArray:
    value = cube.nodata(band).item()
    value = None if np.isnan(value) else value
    plain = cube.with_nodata(band.drop_vars(cube.NODATA), value)
    return _warp_array(plain, source, target, method, value, window)


def _prepare_values(data: xr.DataArray, source: GeoBox, target: GeoBox, method: str) -> xr.DataArray:
    integer = data.dtype.kind in "iub"
    if integer and (
        method not in SELECTING or (not cube.has_nodata(data) and not _covers_grid(source, target))
    ):
        return cube.decode(data)
    return data


def _covers_grid(source: GeoBox, target: GeoBox) -> bool:
    """Whether the source certainly has a value for each pixel of the target."""
    if source.crs != target.crs:
        return False
    outer, inner = source.boundingbox, target.boundingbox
    slack = 1e-3 * min(abs(source.resolution.x), abs(source.resolution.y))
    return bool(
        outer.left - slack <= inner.left
        and outer.bottom - slack <= inner.bottom
        and outer.right + slack >= inner.right
        and outer.top + slack >= inner.top
    )


def _warp_array(
    data: xr.DataArray, source: GeoBox, target: GeoBox, method: str, nodata: Any, window: Window | None
) -> xr.DataArray:
    """Warp a cube that has been prepared: it has at most one no-data value."""
    ordered = data.transpose(..., cube.Y, cube.X)
    missing = nodata if ordered.dtype.kind in "iu" else (None if ordered.dtype.kind == "b" else np.nan)
    step = _GridWarp(source, target, method, missing)
    array = ordered.data
    values = (
        step.warp_lazily(array, window)
        if isinstance(array, da.Array)
        else step.warp_planes(array, source, target)
    )
    horizontal = {cube.X, cube.Y}
    coords = {
        k: c for k, c in ordered.coords.items() if horizontal.isdisjoint(c.dims) and k != cube.SPATIAL_REF
    }
    grid = xr_coords(target, crs_coord_name=cube.SPATIAL_REF, always_yx=True)
    warped = xr.DataArray(values, dims=ordered.dims, coords={**coords, **grid}, attrs=ordered.attrs)
    warped.name = data.name
    return copy_features(ordered, warped).transpose(*data.dims)


@lru_cache(maxsize=64)
def get_transformer(source: CRS, target: CRS) -> pyproj.Transformer:
    """The transformer from one reference system to another, for coordinates (x, y); slow to create."""
    return pyproj.Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)


def _cut_to(spans: Sequence[slice], window: slice) -> list[slice]:
    """The parts of spans that are in a window."""
    cut = [slice(max(s.start, window.start), min(s.stop, window.stop)) for s in spans]
    return [span for span in cut if span.start < span.stop]


def _list_chunks_within(chunks: Sequence[int], span: slice | None) -> list[int]:
    """The lengths of the chunks that reach into a span; all if there is none."""
    ends = np.cumsum(chunks)
    within = [
        length
        for length, end in zip(chunks, ends, strict=True)
        if span is None or (end > span.start and end - length < span.stop)
    ]
    return within or list(chunks)


class _GridWarp:
    """A warp from grid to grid of arrays whose last axes are rows and columns."""

    def __init__(self, source: GeoBox, target: GeoBox, method: str, nodata: Any) -> None:
        self.source, self.target, self.method, self.nodata = source, target, method, nodata
        self.to_source = get_transformer(target.crs, source.crs)
        self.linear = source.crs == target.crs
        self.scale = self._measure_scale()

    def source_pixels(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points of the target grid (in pixels from its corner) to the source grid."""
        x, y = self.target.transform @ (columns, rows)
        if not self.linear:
            x, y = self.to_source.transform(x, y)
        if has_degrees(str(self.source.crs)):
            x = turn_longitudes(np.asarray(x), self.source)
        return ~self.source.transform @ (np.asarray(x), np.asarray(y))

    def _measure_scale(self) -> tuple[float, float]:
        """Source pixels per target pixel along columns and rows, in the middle of the target."""
        middle = np.array(self.target.shape.xy) / 2
        columns, rows = self.source_pixels(
            middle[0] + np.array([-0.5, 0.5, 0, 0]), middle[1] + np.array([0, 0, -0.5, 0.5])
        )
        along = np.hypot(columns[1] - columns[0], columns[3] - columns[2])
        down = np.hypot(rows[1] - rows[0], rows[3] - rows[2])
        if not np.isfinite([along, down]).all():
            return 1.0, 1.0
        return self._round_scale(float(along)), self._round_scale(float(down))

    def _round_scale(self, scale: float) -> float:
        """Round the scale to a whole number where GDAL would do so by default."""
        near = max(1, round(scale))
        slack = _NEAR_ONE if near == 1 and not self.linear else _NEAR_WHOLE
        return float(near) if abs(scale - near) < slack else scale

    def gdal_options(self) -> dict[str, Any]:
        if self.method not in REACH:
            return {}
        return {"XSCALE": repr(1 / self.scale[0]), "YSCALE": repr(1 / self.scale[1])}

    def source_window(self, rows: slice, columns: slice) -> tuple[slice, slice] | None:
        """The part of the source that a part of the target needs, None if there is none."""
        c, r = np.meshgrid(
            np.linspace(columns.start, columns.stop, 33), np.linspace(rows.start, rows.stop, 33), copy=False
        )
        source_columns, source_rows = self.source_pixels(c.ravel(), r.ravel())
        usable = np.isfinite(source_columns) & np.isfinite(source_rows)
        if not usable.any():
            return None
        sides = zip((source_rows, source_columns), self.source.shape.yx, self.scale[::-1], strict=True)
        spans = [self._source_span(values[usable], size, scale) for values, size, scale in sides]
        if any(s.start >= s.stop for s in spans):
            return None
        return spans[0], spans[1]

    def _source_span(self, values: np.ndarray, size: int, scale: float) -> slice:
        low, high = float(values.min()), float(values.max())
        margin = np.ceil(REACH.get(self.method, 1) * max(1.0, scale)) + 2
        margin += 0 if self.linear else 0.02 * (high - low)
        return slice(max(0, int(np.floor(low - margin))), min(size, int(np.ceil(high + margin))))

    def warp_lazily(self, array: da.Array, window: Window | None = None) -> da.Array:
        needed = None if window is None else self.source_window(*window)
        sides = [
            max(_list_chunks_within(chunks, None if needed is None else needed[axis]))
            for axis, chunks in enumerate(array.chunks[-2:])
        ]
        rows = self._cut_axis(self.target.shape.y, sides[0], self.scale[1])
        columns = self._cut_axis(self.target.shape.x, sides[1], self.scale[0])
        if window is not None:
            return self._warp_window(array, window, _cut_to(rows, window[0]), _cut_to(columns, window[1]))
        tasks = len(rows) * len(columns) * int(np.prod([len(c) for c in array.chunks[:-2]]))
        if tasks > _MOST_TASKS:
            size = f"{self.target.shape.x} x {self.target.shape.y} pixels"
            reason = f"the resampled cube has {size}. Choose a coarser resolution or filter the cube first."
            raise ProcessGraphComplexity(reason=reason)
        return da.block([[self._warp_tile(array, r, c) for c in columns] for r in rows])

    def _warp_window(
        self, array: da.Array, window: Window, rows: Sequence[slice], columns: Sequence[slice]
    ) -> da.Array:
        inner = da.block([[self._warp_tile(array, r, c) for c in columns] for r in rows])
        return surround_window(inner, self.target.shape.yx, window)

    def _cut_axis(self, size: int, chunk: int, scale: float) -> list[slice]:
        """Chunks of the target that need about one chunk of the source each, but are not too small or large.

        For GDAL's ``sum`` the target stays whole, since it spreads source pixels over all of the target.
        """
        length = np.clip(chunk / scale, _SMALLEST_CHUNK, max(chunk, _SMALLEST_CHUNK))
        # Slightly larger chunks are better than a sliver at the end.
        number = 1 if self.method == "sum" else max(1, math.ceil(size / (_STRETCH * length)))
        ends = [round(size * i / number) for i in range(number + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def _warp_tile(self, array: da.Array, rows: slice, columns: slice) -> da.Array:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        chunks = (*array.chunks[:-2], (shape[0],), (shape[1],))
        part = self.source_window(rows, columns)
        if part is None:
            return da.full(
                (*array.shape[:-2], *shape), self.fill_value(array.dtype), dtype=array.dtype, chunks=chunks
            )
        block = array[(..., *part)].rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
        warp_block = partial(
            _warp_block,
            source=self.source[part],
            target=self.target[rows, columns],
            method=self.method,
            nodata=self.nodata,
            options=self.gdal_options(),
        )
        return block.map_blocks(warp_block, chunks=chunks, dtype=array.dtype)

    def warp_planes(self, array: np.ndarray, source: GeoBox, target: GeoBox) -> np.ndarray:
        return _warp_block(array, source, target, self.method, self.nodata, self.gdal_options())

    def fill_value(self, dtype: np.dtype) -> Any:
        return 0 if self.nodata is None else dtype.type(self.nodata)


def _warp_block(
    block: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, options: dict[str, Any]
) -> np.ndarray:
    if _goes_beyond(target):
        return _warp_halves(block, source, target, method, nodata, options)
    return _warp_inner(block, source, target, method, nodata, options)


def _warp_inner(
    block: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, options: dict[str, Any]
) -> np.ndarray:
    boolean = block.dtype.kind == "b"
    number = math.prod(block.shape[:-2])
    planes = (block.astype("uint8") if boolean else block).reshape(number, *block.shape[-2:])
    source = _begin_in_world(source)
    # GDAL itself counts longitudes as a source beyond 180 does, but not those of a WarpedVRT.
    is_linear = source.crs == target.crs or _goes_beyond(source)
    warp_plane = _warp_linear if is_linear else _warp_projected
    result = np.empty((number, *target.shape.yx), planes.dtype)
    for index, plane in enumerate(planes):
        result[index] = warp_plane(plane, source, target, method, nodata, options)
    shaped = result.reshape(*block.shape[:-2], *target.shape.yx)
    return shaped.astype(bool) if boolean else shaped


def turn_longitudes(x: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Longitudes as a grid in degrees counts them: at most half a circle from its middle."""
    left, _, right, _ = grid.boundingbox.bbox
    middle = (left + right) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(x - 360 * np.round((x - middle) / 360))


def _goes_beyond(grid: GeoBox) -> bool:
    """Whether the longitudes of a grid are not all between -180 and 180."""
    if not has_degrees(str(grid.crs)):
        return False
    slack = 1e-3 * abs(grid.resolution.x)
    left, _, right, _ = grid.boundingbox.bbox
    return bool(left < -180 - slack or right > 180 + slack)


def _begin_in_world(grid: GeoBox) -> GeoBox:
    """The grid with longitudes that begin between -180 and 180, if it is in degrees."""
    if not _goes_beyond(grid):
        return grid
    turn = 360 * math.floor((grid.boundingbox.left + 180) / 360 + 1e-9)
    return GeoBox(grid.shape, Affine.translation(-turn, 0) @ grid.transform, grid.crs)


def _warp_halves(
    block: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, options: dict[str, Any]
) -> np.ndarray:
    """Warp to a grid that crosses the antimeridian: first to its part before, then to the one behind it."""
    target = _begin_in_world(target)
    if not _goes_beyond(target):
        return _warp_block(block, source, target, method, nodata, options)
    column = (~target.transform @ (180.0, 0.0))[0]
    columns = min(max(round(column), 1), target.shape.x - 1)
    if target.shape.x == 1:
        # One pixel on both sides: its middle decides.
        shift = -360 if column < 0.5 else 0
        alone = GeoBox(target.shape, Affine.translation(shift, 0) @ target.transform, target.crs)
        return _warp_inner(block, source, alone, method, nodata, options)
    parts = [target[:, :columns], target[:, columns:]]
    return np.concatenate(
        [_warp_inner(block, source, _shift_half(p), method, nodata, options) for p in parts], axis=-1
    )


def _shift_half(grid: GeoBox) -> GeoBox:
    """The half of a grid on one side of the antimeridian, with longitudes on that side."""
    left, _, right, _ = grid.boundingbox.bbox
    turn = 360 if (left + right) / 2 > 180 else 0
    return GeoBox(grid.shape, Affine.translation(-turn, 0) @ grid.transform, grid.crs)


def _warp_linear(
    plane: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, options: dict[str, Any]
) -> np.ndarray:
    result = np.full(target.shape.yx, 0 if nodata is None else nodata, dtype=plane.dtype)
    rasterio.warp.reproject(
        np.ascontiguousarray(plane),
        result,
        src_transform=source.transform,
        src_crs=source.crs.to_wkt(),
        src_nodata=nodata,
        dst_transform=target.transform,
        dst_crs=target.crs.to_wkt(),
        dst_nodata=nodata,
        resampling=METHODS[method],
        tolerance=_TOLERANCE,
        **options,
    )
    return result


def _warp_projected(
    plane: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, options: dict[str, Any]
) -> np.ndarray:
    """GDAL interpolates coordinates; only a WarpedVRT accepts a tolerance below an eighth of a pixel."""
    # Without gaps, GDAL need not ask for each pixel of the source whether it is valid.
    gap = nodata if _has_gaps(plane, nodata) else None
    profile = {
        "driver": "GTiff",
        "height": source.shape.y,
        "width": source.shape.x,
        "count": 1,
        "dtype": plane.dtype,
        "crs": source.crs.to_wkt(),
        "transform": source.transform,
        "nodata": gap,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(plane, 1)
        with (
            memory.open() as dataset,
            WarpedVRT(
                dataset,
                crs=target.crs.to_wkt(),
                transform=target.transform,
                height=target.shape.y,
                width=target.shape.x,
                resampling=METHODS[method],
                src_nodata=gap,
                nodata=nodata,
                tolerance=_TOLERANCE,
                **options,
            ) as warped,
        ):
            return warped.read(1)


def _has_gaps(plane: np.ndarray, nodata: Any) -> bool:
    if nodata is None:
        return False
    return bool((np.isnan(plane) if np.isnan(nodata) else plane == nodata).any())
