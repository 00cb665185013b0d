"""Statistics of the pixels of geometries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube, geometry, rasterize
from odc_openeo.errors import TargetDimensionExists
from odc_openeo.gather import gather, gather_block
from odc_openeo.process import Schema, process
from odc_openeo.processes.children import field
from odc_openeo.processes.geometry_schemas import Geometries, PixelReducer
from odc_openeo.processes.schemas import GEOMETRY, AnyValue, SpatialCube, StringOrNull, datacube_schema

_GROUP_BYTES: Final = 64 * 2**20
_GROUP_PIXELS: Final = 2**20
_WINDOW_PIXELS: Final = 2**22

Stack = xr.DataArray
"""The pixels of a geometry as an openEO array: all dimensions but the horizontal ones, and `cube.ARRAY`."""


@process(categories=["cubes", "aggregate"])
def aggregate_spatial(
    data: SpatialCube,
    geometries: Geometries,
    reducer: PixelReducer,
    target_dimension: StringOrNull = None,
    context: AnyValue = None,
) -> Annotated[xr.DataArray, Schema(datacube_schema(GEOMETRY))]:
    """Statistics of the pixels in each geometry.

    The reducer is called once for each geometry with all its pixels, for every time, band and other label
    apart. A polygon has the pixels whose centre it holds or touches, a line those it runs through, a point
    the one it is in; a pixel may belong to several geometries. Only chunks that geometries touch are read.
    The result has a dimension ``geometry`` in the reference system of the geometries, whose properties are
    kept as coordinates along it. Geometries without any pixel have no-data values.

    Args:
        data: A raster cube.
        geometries: A vector cube or GeoJSON.
        reducer: Makes one value of the values of all pixels of a geometry.
        target_dimension: If given, a dimension of this name is added with the labels ``value``,
            ``total_count`` (pixels) and ``valid_count`` (pixels that are valid, see ``is_valid``).
        context: Passed on to the reducer.

    Returns:
        A vector cube: ``geometry`` first, then the other dimensions of the cube.

    Raises:
        TargetDimensionExists: The cube already has a dimension of that name.
    """
    if target_dimension is not None and target_dimension in (*data.dims, cube.GEOMETRY):
        raise TargetDimensionExists(name=target_dimension)
    frame = geometry.read(geometries, "aggregate_spatial", "geometries")
    grid = rasterize.grid_of(data, "aggregate_spatial")
    shapes = geometry.in_grid(frame, grid)
    source = data.transpose(..., cube.Y, cube.X)
    zones = _Zones(source, grid)
    stacks = zones.stacks(shapes)

    def value(stack: Stack) -> xr.DataArray:
        return _reduce(reducer, stack, context)

    if target_dimension is None:
        reduced = _join(stacks, value, zones.one_pixel())
    else:
        reduced = _with_counts(stacks, value, zones.one_pixel(), target_dimension)
    taken = [*reduced.dims, *reduced.coords]
    labelled = reduced.assign_coords(geometry.geometry_coordinates(frame, taken))
    return geometry.index_geometries(labelled, frame.crs)


# --- The pixels ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Zones:
    """Takes the pixels of geometries out of a raster with its rows and columns last."""

    source: xr.DataArray
    grid: GeoBox

    def stacks(self, shapes: np.ndarray) -> list[Stack | None]:
        """The pixels of each geometry, None where it has none."""
        found: list[Stack | None] = [None] * len(shapes)
        small: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for number, shape in enumerate(shapes):
            if self._is_large(shape):
                found[number] = self._large(shape)
                continue
            rows, columns = rasterize.indices(shape, self.grid)
            if len(rows):
                small[number] = rows, columns
        for group in self._groups(small):
            found_in_group = self._gather([small[n] for n in group])
            for number, stack in zip(group, found_in_group, strict=True):
                found[number] = stack
        return found

    def one_pixel(self) -> Stack:
        """A stack of the first pixel: tells dimensions and type of what a reducer returns."""
        return self._stack(self.source.data[..., 0, 0:1])

    @property
    def _limit(self) -> int:
        others = int(np.prod(self.source.shape[:-2], dtype=np.int64))
        return max(1, min(_GROUP_PIXELS, _GROUP_BYTES // (self.source.dtype.itemsize * max(1, others))))

    def _is_large(self, shape: Any) -> bool:
        if not isinstance(self.source.data, da.Array) or shapely.get_dimensions(shape) <= 0:
            return False
        part = rasterize.window(shape, self.grid)
        if part is None:
            return False
        size = (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
        estimate = shapely.area(shape) / abs(self.grid.resolution.x * self.grid.resolution.y)
        return bool(size > _WINDOW_PIXELS or estimate > self._limit)

    def _large(self, shape: Any) -> Stack | None:
        """Pixels left in one chunk for each chunk of the raster, so that memory stays bounded."""
        array = self.source.data
        part = rasterize.window(shape, self.grid)
        parts = []
        for (y, rows), (x, columns) in _blocks(array, part):
            mask = rasterize.pixels(shape, self.grid[rows, columns])
            if mask.any():
                parts.append(gather_block(array, y, x, mask))
        return self._stack(da.concatenate(parts, axis=-1)) if parts else None

    def _groups(self, small: dict[int, tuple[np.ndarray, np.ndarray]]) -> Iterator[list[int]]:
        """Geometries that are near each other, together not too large for one chunk."""
        group: list[int] = []
        size = 0
        for number in sorted(small, key=lambda n: self._block_of(*small[n])):
            count = len(small[number][0])
            if group and size + count > self._limit:
                yield group
                group, size = [], 0
            group.append(number)
            size += count
        if group:
            yield group

    def _block_of(self, rows: np.ndarray, columns: np.ndarray) -> tuple[int, int]:
        if not isinstance(self.source.data, da.Array):
            return 0, 0
        ends = [np.cumsum(c) for c in self.source.data.chunks[-2:]]
        return int(np.searchsorted(ends[0], rows[0], "right")), int(
            np.searchsorted(ends[1], columns[0], "right")
        )

    def _gather(self, pixels: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Stack]:
        rows = np.concatenate([p[0] for p in pixels])
        columns = np.concatenate([p[1] for p in pixels])
        joined = gather(self.source.data, rows, columns)
        if isinstance(joined, da.Array):
            joined = joined.rechunk(dict.fromkeys(range(joined.ndim), -1))
        end = 0
        for p in pixels:
            start, end = end, end + len(p[0])
            yield self._stack(joined[..., start:end])

    def _stack(self, values: Any) -> Stack:
        return xr.DataArray(
            values, dims=(*self.source.dims[:-2], cube.ARRAY), coords=self._coords, attrs=self.source.attrs
        )

    @property
    def _coords(self) -> dict[Any, Any]:
        spatial = {cube.X, cube.Y}
        return {
            k: c.variable
            for k, c in self.source.coords.items()
            if spatial.isdisjoint(c.dims) and k != "spatial_ref"
        }


def _blocks(array: da.Array, part: Any) -> Iterator[tuple[tuple[int, slice], tuple[int, slice]]]:
    """The chunks that share pixels with a window: their numbers and where they are in the grid."""

    def along(chunks: tuple[int, ...], wanted: slice) -> list[tuple[int, slice]]:
        ends = np.cumsum(chunks)
        slices = [slice(int(e - c), int(e)) for c, e in zip(chunks, ends, strict=True)]
        return [(i, s) for i, s in enumerate(slices) if s.start < wanted.stop and s.stop > wanted.start]

    for row in along(array.chunks[-2], part[0]):
        for column in along(array.chunks[-1], part[1]):
            yield row, column


# --- The values ----------------------------------------------------------------------------------


def _reduce(reducer: Callable[..., Any], stack: Stack, context: Any) -> xr.DataArray:
    """What the reducer makes of a stack, always as an array of the stack's other dimensions."""
    like = stack.isel({cube.ARRAY: 0}, drop=True)
    return field(reducer(data=stack, context=context), like, "aggregate_spatial", "reducer")


def _join(
    stacks: Sequence[Stack | None], value: Callable[[Stack], xr.DataArray], one_pixel: Stack
) -> xr.DataArray:
    """The values of all stacks along a new first dimension; no-data where there is no stack."""
    values = [None if s is None else value(s) for s in stacks]
    known = next((v for v in values if v is not None), None)
    template = value(one_pixel) if known is None else known
    dtype = np.result_type(*[v.dtype for v in values if v is not None] or [template.dtype])
    if any(v is None for v in values):
        missing = cube.nodata(template)
        if missing is None or isinstance(missing, xr.DataArray):
            values = [None if v is None else cube.decode(v) for v in values]
            template = cube.decode(template)
            missing, dtype = np.nan, _floating(dtype)
        empty = xr.full_like(template, missing, dtype=dtype)
        values = [empty if v is None else v for v in values]
    arrays = [v.data.astype(dtype, copy=False) for v in values if v is not None]
    lazy = any(isinstance(a, da.Array) for a in arrays)
    joined = da.stack(arrays).rechunk({0: -1}) if lazy else np.stack(arrays)
    coords = {k: c.variable for k, c in template.coords.items()}
    return xr.DataArray(joined, dims=(cube.GEOMETRY, *template.dims), coords=coords, attrs=template.attrs)


def _floating(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind in "fc" else np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _with_counts(
    stacks: Sequence[Stack | None],
    value: Callable[[Stack], xr.DataArray],
    one_pixel: Stack,
    dimension: str,
) -> xr.DataArray:
    """Values, counts of pixels and counts of valid pixels along one more dimension."""

    def total(stack: Stack) -> xr.DataArray:
        return xr.ones_like(stack.isel({cube.ARRAY: 0}, drop=True), dtype=float) * stack.sizes[cube.ARRAY]

    def valid(stack: Stack) -> xr.DataArray:
        usable = cube.valid(stack)
        if stack.dtype.kind in "fc":
            usable = usable & np.isfinite(stack)
        return usable.sum(cube.ARRAY).astype(float)

    values = cube.decode(_join(stacks, value, one_pixel)).astype(float)
    counts = [_join(stacks, f, one_pixel).fillna(0) for f in (total, valid)]
    joined = xr.concat([values, *counts], dim=dimension, coords="minimal", compat="override", join="override")
    labels = ["value", "total_count", "valid_count"]
    return joined.assign_coords({dimension: labels}).transpose(cube.GEOMETRY, ..., dimension)
