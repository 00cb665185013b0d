"""Statistics of the pixels of geometries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.errors import TargetDimensionExists
from odc_openeo.registry.child_results import as_field, runs_user_code, skips_nodata
from odc_openeo.registry.demand import ALL, SLACK, Demand
from odc_openeo.registry.geometry_schemas import Geometries, PixelReducer
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import GEOMETRY, AnyValue, SpatialCube, StringOrNull, datacube_schema
from odc_openeo.spatial import rasterize, reproject, vector_cubes
from odc_openeo.spatial.gather import gather_block, gather_pixels
from odc_openeo.spatial.geometry_boxes import find_boxes_around
from odc_openeo.spatial.geometry_masks import chunk_slices

_GROUP_BYTES: Final = 64 * 2**20
_GROUP_PIXELS: Final = 2**20
_WINDOW_PIXELS: Final = 2**22

Stack = xr.DataArray
"""The pixels of a geometry as an openEO array: all dimensions except x and y, then `cube.ARRAY`.

For several geometries there is a dimension for them before the last one.
"""

Statistic = Callable[[Stack], xr.DataArray]
"""Reduces a stack to an array of its dimensions except the last."""


def _needs_of_aggregation(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    if demand.in_part:
        return {"data": demand.with_margin(SLACK), "geometries": ALL}
    # With fewer bands, their no-data values might agree and the dtype of the result might change.
    needed = demand.at_all_places().of_all_bands()
    if arguments.get("target_dimension") is not None:
        needed = needed.along_dimensions(arguments["target_dimension"])
    around = find_boxes_around(arguments.get("geometries"))
    return {"data": replace(needed, boxes=around, margin=SLACK if around else 0), "geometries": ALL}


@process(categories=["cubes", "aggregate"], needs=_needs_of_aggregation, raw_values_of=None)
def aggregate_spatial(
    data: SpatialCube,
    geometries: Geometries,
    reducer: PixelReducer,
    target_dimension: StringOrNull = None,
    context: AnyValue = None,
) -> Annotated[xr.DataArray, Schema(datacube_schema(GEOMETRY))]:
    """Compute statistics of the pixels in each geometry.

    The reducer is called once per geometry with all its pixels, separately for every time, band and other
    label. A polygon has the pixels whose centre is inside or on the boundary, a line those it crosses, a
    point the one that contains it; a pixel may belong to several geometries. Only chunks that geometries
    touch are read. The result has a dimension ``geometry`` in the reference system of the geometries, whose
    properties are kept as coordinates along it. Geometries without any pixel have no-data values.

    Args:
        data: A raster cube.
        geometries: A vector cube or GeoJSON.
        reducer: Called with all pixels of a geometry as the array `data`; returns one value.
        target_dimension: If given, a dimension of this name is added with the labels ``value``,
            ``total_count`` (all pixels) and ``valid_count`` (valid pixels, see ``is_valid``).
        context: Additional data for the reducer.

    Returns:
        A vector cube: ``geometry`` first, then the other dimensions of the cube.

    Raises:
        TargetDimensionExists: The cube already has a dimension of that name.
    """
    if target_dimension is not None and target_dimension in (*data.dims, cube.GEOMETRY):
        raise TargetDimensionExists(name=target_dimension)
    frame = vector_cubes.read_geometries(geometries, "aggregate_spatial", "geometries")
    grid = rasterize.get_grid(data, "aggregate_spatial")
    zones = _Zones(data.transpose(..., cube.Y, cube.X), grid)
    pixels = zones.take_pixels(reproject.project_to_grid(frame, grid))
    value = _Statistic(reducer, context)
    reduced = zones.compute_statistics(pixels, value, _make_portable(value))
    if target_dimension is not None:
        counts = zones.compute_statistics(pixels, _count_valid, _count_valid).fillna(0)
        reduced = _add_counts(reduced, pixels.counts, counts, target_dimension)
    used_names = [*reduced.dims, *reduced.coords]
    labelled = reduced.assign_coords(vector_cubes.make_geometry_coordinates(frame, used_names))
    return vector_cubes.index_geometries(labelled, frame.crs)


# --- The values of one geometry ------------------------------------------------------------------


@dataclass(frozen=True)
class _Statistic:
    """Applies the reducer to a stack; the result always is an array of the stack's other dimensions."""

    reducer: Callable[..., Any]
    context: Any

    def __call__(self, stack: Stack) -> xr.DataArray:
        like = stack.isel({cube.ARRAY: 0}, drop=True)
        result = self.reducer(data=stack, context=self.context)
        return as_field(result, like, "aggregate_spatial", "reducer")


def _make_portable(value: _Statistic) -> _Statistic | None:
    """The statistic in a form that dask tasks can carry, None if there is none."""
    make = getattr(value.reducer, "make_portable", None)
    if make is None or cube.is_cube(value.context):
        return None
    try:
        return _Statistic(make("data", "context"), value.context)
    except ValueError:
        return None


def _count_valid(stack: Stack) -> xr.DataArray:
    usable = cube.valid(stack)
    if stack.dtype.kind in "fc":
        usable = usable & np.isfinite(stack)
    return usable.sum(cube.ARRAY).astype(float)


# --- The pixels ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Neighbouring geometries and their pixels: those of geometry ``numbers[i]`` end at ``ends[i]``."""

    numbers: list[int]
    pixels: Any
    ends: np.ndarray


@dataclass(frozen=True)
class _Pixels:
    """The pixels of all geometries, small ones in groups and large ones alone, and their counts."""

    groups: list[_Group]
    large: dict[int, Stack]
    counts: np.ndarray


@dataclass(frozen=True)
class _Zones:
    """Takes the pixels of geometries from a raster that has its rows and columns last."""

    source: xr.DataArray
    grid: GeoBox

    def take_pixels(self, shapes: np.ndarray) -> _Pixels:
        """Take the pixels of each geometry."""
        is_large = np.array([self._is_large(s) for s in shapes], dtype=bool)
        counts = np.zeros(len(shapes))
        large = {}
        for number in np.nonzero(is_large)[0]:
            stack = self._take_large(shapes[number])
            if stack is not None:
                large[int(number)] = stack
                counts[number] = stack.sizes[cube.ARRAY]
        numbers = np.nonzero(~is_large)[0]
        indices = rasterize.find_all_indices(shapes[numbers], self.grid)
        small = {int(n): p for n, p in zip(numbers, indices, strict=True) if len(p[0])}
        for index, (rows, _) in small.items():
            counts[index] = len(rows)
        groups = [self._gather_group(group, [small[n] for n in group]) for group in self._group_small(small)]
        return _Pixels(groups, large, counts)

    def compute_statistics(
        self,
        pixels: _Pixels,
        value: Statistic,
        portable: Statistic | None,
    ) -> xr.DataArray:
        """The values of all geometries along a new first dimension; no-data where there is no pixel.

        ``portable``, if there is one, does the same as ``value`` in a dask task; there is one per group.
        """
        template = value(self._get_first_stack(pixels))
        numbers, parts = list(pixels.large), [value(s).data[..., None] for s in pixels.large.values()]
        for group in pixels.groups:
            numbers += group.numbers
            parts.append(self._reduce_group(group, value, portable, template.dtype))
        return _join_parts(numbers, parts, len(pixels.counts), template)

    def _get_first_stack(self, pixels: _Pixels) -> Stack:
        """A stack from which the dimensions and the dtype of the reducer's result can be determined."""
        if pixels.groups:
            group = pixels.groups[0]
            return self._make_stack(group.pixels[..., : group.ends[0]])
        if pixels.large:
            return next(iter(pixels.large.values()))
        return self._make_stack(self.source.data[..., 0, 0:1])

    def _reduce_group(
        self,
        group: _Group,
        value: Statistic,
        portable: Statistic | None,
        dtype: np.dtype,
    ) -> Any:
        """Reduce the geometries of a group; they are along the last axis of the result."""
        like = self._make_stack(np.empty((*self.source.shape[:-2], 0), self.source.dtype))
        starts = [0, *group.ends[:-1]]
        if isinstance(value, _Statistic) and runs_user_code(value.reducer):
            # User code gets the pixels of one geometry at a time.
            stacks = [
                self._make_stack(group.pixels[..., a:b]) for a, b in zip(starts, group.ends, strict=True)
            ]
            join = da.stack if isinstance(group.pixels, da.Array) else np.stack
            return join([value(stack).data for stack in stacks], axis=-1)
        if not isinstance(group.pixels, da.Array):
            return _reduce_parts(group.pixels, value, group.ends, like, dtype)
        if portable is not None:
            reduce = partial(_reduce_parts, value=portable, ends=group.ends, like=like, dtype=dtype)
            chunks = (*group.pixels.chunks[:-1], (len(group.ends),))
            meta = np.empty((0,) * group.pixels.ndim, dtype)
            return group.pixels.map_blocks(reduce, chunks=chunks, meta=meta, dtype=dtype)
        stacks = [self._make_stack(group.pixels[..., a:b]) for a, b in zip(starts, group.ends, strict=True)]
        return da.stack([value(stack).data for stack in stacks], axis=-1)

    @property
    def _pixel_limit(self) -> int:
        per_pixel = int(np.prod(self.source.shape[:-2], dtype=np.int64))
        return max(1, min(_GROUP_PIXELS, _GROUP_BYTES // (self.source.dtype.itemsize * max(1, per_pixel))))

    def _is_large(self, shape: Any) -> bool:
        if not isinstance(self.source.data, da.Array) or shapely.get_dimensions(shape) <= 0:
            return False
        part = rasterize.find_window(shape, self.grid)
        if part is None:
            return False
        size = (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
        estimate = shapely.area(shape) / abs(self.grid.resolution.x * self.grid.resolution.y)
        return bool(size > _WINDOW_PIXELS or estimate > self._pixel_limit)

    def _take_large(self, shape: Any) -> Stack | None:
        """Take the pixels of a large geometry, in one chunk per chunk of the raster to limit memory."""
        array = self.source.data
        part = rasterize.find_window(shape, self.grid)
        parts = []
        for (y, rows), (x, columns) in _find_chunks(array, part):
            mask = rasterize.mask_pixels(shape, self.grid[rows, columns])
            if mask.any():
                parts.append(gather_block(array, y, x, mask))
        return self._make_stack(da.concatenate(parts, axis=-1)) if parts else None

    def _group_small(self, small: dict[int, tuple[np.ndarray, np.ndarray]]) -> Iterator[list[int]]:
        """Group neighbouring geometries that together are not too large for one chunk."""
        group: list[int] = []
        size = 0
        for number in sorted(small, key=lambda n: self._find_chunk(*small[n])):
            count = len(small[number][0])
            if group and size + count > self._pixel_limit:
                yield group
                group, size = [], 0
            group.append(number)
            size += count
        if group:
            yield group

    def _find_chunk(self, rows: np.ndarray, columns: np.ndarray) -> tuple[int, int]:
        if not isinstance(self.source.data, da.Array):
            return 0, 0
        ends = [np.cumsum(c) for c in self.source.data.chunks[-2:]]
        return int(np.searchsorted(ends[0], rows[0], "right")), int(
            np.searchsorted(ends[1], columns[0], "right")
        )

    def _gather_group(self, numbers: list[int], pixels: list[tuple[np.ndarray, np.ndarray]]) -> _Group:
        rows = np.concatenate([p[0] for p in pixels])
        columns = np.concatenate([p[1] for p in pixels])
        joined = gather_pixels(self.source.data, rows, columns)
        if isinstance(joined, da.Array):
            joined = joined.rechunk(dict.fromkeys(range(joined.ndim), -1))
        return _Group(numbers, joined, np.cumsum([len(p[0]) for p in pixels]))

    def _make_stack(self, values: Any) -> Stack:
        return xr.DataArray(
            values,
            dims=(*self.source.dims[:-2], cube.ARRAY),
            coords=self._stack_coords,
            attrs=self.source.attrs,
        )

    @property
    def _stack_coords(self) -> dict[Any, Any]:
        spatial = {cube.X, cube.Y}
        return {
            k: c.variable
            for k, c in self.source.coords.items()
            if spatial.isdisjoint(c.dims) and k != cube.SPATIAL_REF
        }


def _find_chunks(array: da.Array, part: Any) -> Iterator[tuple[tuple[int, slice], tuple[int, slice]]]:
    """The chunks that share pixels with a window: their numbers and their slices of the grid."""

    def find_along(chunks: tuple[int, ...], span: slice) -> list[tuple[int, slice]]:
        slices = enumerate(chunk_slices(chunks))
        return [(i, s) for i, s in slices if s.start < span.stop and s.stop > span.start]

    for row in find_along(array.chunks[-2], part[0]):
        for column in find_along(array.chunks[-1], part[1]):
            yield row, column


# --- The values ----------------------------------------------------------------------------------


def _reduce_parts(
    block: np.ndarray, value: Statistic, ends: np.ndarray, like: xr.DataArray, dtype: np.dtype
) -> np.ndarray:
    """Reduce the parts of a block along its last axis; part i ends at ``ends[i]``."""
    result = np.empty((*block.shape[:-1], len(ends)), dtype)
    starts = np.concatenate([[0], ends[:-1]])
    fill = _find_padding(value, like)
    for numbers, length in _batch_parts(ends - starts, padded=fill is not None):
        places = starts[numbers, None] + np.arange(length)
        values = block[..., np.minimum(places, block.shape[-1] - 1)]
        if fill is not None:
            values[..., places >= ends[numbers, None]] = fill
        dims = (*like.dims[:-1], cube.GEOMETRY, cube.ARRAY)
        stack = xr.DataArray(values, dims=dims, coords=like.coords, attrs=like.attrs)
        result[..., numbers] = value(stack).values
    return result


def _find_padding(value: Statistic, like: xr.DataArray) -> Any:
    """A value that can be added to a stack without changing the result; None if there is none."""
    missing = cube.nodata(like)
    return missing if not isinstance(missing, xr.DataArray) and _skips_nodata(value) else None


def _skips_nodata(value: Statistic) -> bool:
    if isinstance(value, _Statistic):
        return skips_nodata(getattr(value.reducer, "graph", None))
    return value is _count_valid


def _batch_parts(lengths: np.ndarray, *, padded: bool) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of parts: their numbers and their common length, to which shorter ones are ``padded``."""
    classes = np.ceil(np.log2(np.maximum(lengths, 1))) if padded else lengths
    for one in np.unique(classes):
        numbers = np.flatnonzero(classes == one)
        yield numbers, int(lengths[numbers].max())


def _join_parts(
    numbers: Sequence[int], parts: Sequence[Any], count: int, template: xr.DataArray
) -> xr.DataArray:
    """Join parts along their last axis, that of the geometries; sort by number and make it the first axis."""
    dtype = np.result_type(*[p.dtype for p in parts] or [template.dtype])
    missing = sorted(set(range(count)) - set(numbers))
    parts = [p.astype(dtype, copy=False) for p in parts]
    if missing:
        nothing = cube.nodata(template)
        if nothing is None or isinstance(nothing, xr.DataArray):
            dims = (*template.dims, cube.GEOMETRY)
            arrays = [xr.DataArray(p, dims=dims, coords=template.coords, attrs=template.attrs) for p in parts]
            parts = [cube.decode(p).data for p in arrays]
            template, nothing, dtype = cube.decode(template), np.nan, _as_floating(dtype)
        parts.append(np.full((*template.shape, len(missing)), nothing, dtype))
    if any(isinstance(p, da.Array) for p in parts):
        values = da.concatenate([da.asarray(p) for p in parts], axis=-1).rechunk({template.ndim: -1})
    else:
        values = np.concatenate(parts, axis=-1)
    order = np.argsort([*numbers, *missing])
    values = values if (order == np.arange(count)).all() else values[..., order]
    dims = (cube.GEOMETRY, *template.dims)
    coords = {k: c.variable for k, c in template.coords.items()}
    return xr.DataArray(np.moveaxis(values, -1, 0), dims=dims, coords=coords, attrs=template.attrs)


def _as_floating(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind in "fc" else np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _add_counts(
    reduced: xr.DataArray, counts: np.ndarray, valid: xr.DataArray, dimension: str
) -> xr.DataArray:
    """Values, pixel counts and counts of valid pixels along an additional dimension."""
    values = cube.decode(reduced).astype(float)
    total = xr.ones_like(values) * xr.DataArray(counts, dims=cube.GEOMETRY)
    parts = [values, total, valid]
    joined = xr.concat(parts, dim=dimension, coords="minimal", compat="override", join="override")
    labels = ["value", "total_count", "valid_count"]
    return joined.assign_coords({dimension: labels}).transpose(cube.GEOMETRY, ..., dimension)
