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

from odc_openeo import cube, geometry, rasterize
from odc_openeo.demand import ALL, SLACK, Demand
from odc_openeo.errors import TargetDimensionExists
from odc_openeo.gather import gather, gather_block
from odc_openeo.process import Schema, process
from odc_openeo.processes.children import field, skips_nodata
from odc_openeo.processes.geometry_needs import boxes_around
from odc_openeo.processes.geometry_schemas import Geometries, PixelReducer
from odc_openeo.processes.schemas import GEOMETRY, AnyValue, SpatialCube, StringOrNull, datacube_schema

_GROUP_BYTES: Final = 64 * 2**20
_GROUP_PIXELS: Final = 2**20
_WINDOW_PIXELS: Final = 2**22

Stack = xr.DataArray
"""The pixels of a geometry as an openEO array: all dimensions but the horizontal ones, and `cube.ARRAY`.

Those of several geometries have a dimension for these before the last.
"""

Statistic = Callable[[Stack], xr.DataArray]
"""What is made of a stack: an array of its dimensions but the last."""


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # With fewer bands their no-data values may agree, and the type of the result be another one.
    needed = demand.everywhere().of_all_bands()
    if arguments.get("target_dimension") is not None:
        needed = needed.along(arguments["target_dimension"])
    around = boxes_around(arguments.get("geometries"))
    return {"data": replace(needed, boxes=around, margin=SLACK if around else 0), "geometries": ALL}


@process(categories=["cubes", "aggregate"], needs=_needs)
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
    zones = _Zones(data.transpose(..., cube.Y, cube.X), grid)
    pixels = zones.pixels(geometry.in_grid(frame, grid))
    value = _Statistic(reducer, context)
    reduced = zones.statistics(pixels, value, _portable(value))
    if target_dimension is not None:
        counts = zones.statistics(pixels, _count_valid, _count_valid).fillna(0)
        reduced = _with_counts(reduced, pixels.counts, counts, target_dimension)
    taken = [*reduced.dims, *reduced.coords]
    labelled = reduced.assign_coords(geometry.geometry_coordinates(frame, taken))
    return geometry.index_geometries(labelled, frame.crs)


# --- The values of one geometry ------------------------------------------------------------------


@dataclass(frozen=True)
class _Statistic:
    """What the reducer makes of a stack, always as an array of the stack's other dimensions."""

    reducer: Callable[..., Any]
    context: Any

    def __call__(self, stack: Stack) -> xr.DataArray:
        like = stack.isel({cube.ARRAY: 0}, drop=True)
        found = self.reducer(data=stack, context=self.context)
        return field(found, like, "aggregate_spatial", "reducer")


def _portable(value: _Statistic) -> _Statistic | None:
    """The same for dask tasks, None if there is no way."""
    make = getattr(value.reducer, "portable", None)
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
    """Geometries that are near each other and their pixels: those of number i end at ``ends[i]``."""

    numbers: list[int]
    pixels: Any
    ends: np.ndarray


@dataclass(frozen=True)
class _Pixels:
    """The pixels of all geometries: small ones in groups, large ones alone; how many each has."""

    groups: list[_Group]
    large: dict[int, Stack]
    counts: np.ndarray


@dataclass(frozen=True)
class _Zones:
    """Takes the pixels of geometries out of a raster with its rows and columns last."""

    source: xr.DataArray
    grid: GeoBox

    def pixels(self, shapes: np.ndarray) -> _Pixels:
        """The pixels of each geometry."""
        is_large = np.array([self._is_large(s) for s in shapes], dtype=bool)
        counts = np.zeros(len(shapes))
        large = {}
        for number in np.nonzero(is_large)[0]:
            stack = self._large(shapes[number])
            if stack is not None:
                large[int(number)] = stack
                counts[number] = stack.sizes[cube.ARRAY]
        numbers = np.nonzero(~is_large)[0]
        found = rasterize.all_indices(shapes[numbers], self.grid)
        small = {int(n): p for n, p in zip(numbers, found, strict=True) if len(p[0])}
        for index, (rows, _) in small.items():
            counts[index] = len(rows)
        groups = [self._gather(group, [small[n] for n in group]) for group in self._groups(small)]
        return _Pixels(groups, large, counts)

    def statistics(
        self,
        pixels: _Pixels,
        value: Statistic,
        portable: Statistic | None,
    ) -> xr.DataArray:
        """The values of all geometries along a new first dimension; no-data where there is no pixel.

        ``portable``, if there is one, does the same as ``value`` in a dask task: one for a group.
        """
        template = value(self._first(pixels))
        numbers, parts = list(pixels.large), [value(s).data[..., None] for s in pixels.large.values()]
        for group in pixels.groups:
            numbers += group.numbers
            parts.append(self._reduced(group, value, portable, template.dtype))
        return _joined(numbers, parts, len(pixels.counts), template)

    def _first(self, pixels: _Pixels) -> Stack:
        """A stack that tells dimensions and type of what a reducer returns."""
        if pixels.groups:
            group = pixels.groups[0]
            return self._stack(group.pixels[..., : group.ends[0]])
        if pixels.large:
            return next(iter(pixels.large.values()))
        return self._stack(self.source.data[..., 0, 0:1])

    def _reduced(
        self,
        group: _Group,
        value: Statistic,
        portable: Statistic | None,
        dtype: np.dtype,
    ) -> Any:
        """The values of a group, its geometries along the last axis."""
        like = self._stack(np.empty((*self.source.shape[:-2], 0), self.source.dtype))
        if not isinstance(group.pixels, da.Array):
            return _reduce_parts(group.pixels, value, group.ends, like, dtype)
        if portable is not None:
            reduce = partial(_reduce_parts, value=portable, ends=group.ends, like=like, dtype=dtype)
            chunks = (*group.pixels.chunks[:-1], (len(group.ends),))
            meta = np.empty((0,) * group.pixels.ndim, dtype)
            return group.pixels.map_blocks(reduce, chunks=chunks, meta=meta, dtype=dtype)
        starts = [0, *group.ends[:-1]]
        stacks = [self._stack(group.pixels[..., a:b]) for a, b in zip(starts, group.ends, strict=True)]
        return da.stack([value(stack).data for stack in stacks], axis=-1)

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

    def _gather(self, numbers: list[int], pixels: list[tuple[np.ndarray, np.ndarray]]) -> _Group:
        rows = np.concatenate([p[0] for p in pixels])
        columns = np.concatenate([p[1] for p in pixels])
        joined = gather(self.source.data, rows, columns)
        if isinstance(joined, da.Array):
            joined = joined.rechunk(dict.fromkeys(range(joined.ndim), -1))
        return _Group(numbers, joined, np.cumsum([len(p[0]) for p in pixels]))

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


def _reduce_parts(
    block: np.ndarray, value: Statistic, ends: np.ndarray, like: xr.DataArray, dtype: np.dtype
) -> np.ndarray:
    """The values of the parts of a block that end where ``ends`` says, along its last axis."""
    found = np.empty((*block.shape[:-1], len(ends)), dtype)
    starts = np.concatenate([[0], ends[:-1]])
    fill = _padding(value, like)
    for numbers, length in _batches(ends - starts, padded=fill is not None):
        places = starts[numbers, None] + np.arange(length)
        values = block[..., np.minimum(places, block.shape[-1] - 1)]
        if fill is not None:
            values[..., places >= ends[numbers, None]] = fill
        dims = (*like.dims[:-1], cube.GEOMETRY, cube.ARRAY)
        stack = xr.DataArray(values, dims=dims, coords=like.coords, attrs=like.attrs)
        found[..., numbers] = value(stack).values
    return found


def _padding(value: Statistic, like: xr.DataArray) -> Any:
    """A value that may be added to a stack and changes nothing; None if there is none."""
    missing = cube.nodata(like)
    return missing if not isinstance(missing, xr.DataArray) and _skips_nodata(value) else None


def _skips_nodata(value: Statistic) -> bool:
    if isinstance(value, _Statistic):
        return skips_nodata(getattr(value.reducer, "graph", None))
    return value is _count_valid


def _batches(lengths: np.ndarray, *, padded: bool) -> Iterator[tuple[np.ndarray, int]]:
    """Numbers of parts to take together and the length to give them; if not ``padded`` that is their own."""
    classes = np.ceil(np.log2(np.maximum(lengths, 1))) if padded else lengths
    for one in np.unique(classes):
        numbers = np.flatnonzero(classes == one)
        yield numbers, int(lengths[numbers].max())


def _joined(numbers: Sequence[int], parts: Sequence[Any], count: int, template: xr.DataArray) -> xr.DataArray:
    """Parts that have geometries along the last axis, in the order of their numbers along a first axis."""
    dtype = np.result_type(*[p.dtype for p in parts] or [template.dtype])
    missing = sorted(set(range(count)) - set(numbers))
    parts = [p.astype(dtype, copy=False) for p in parts]
    if missing:
        nothing = cube.nodata(template)
        if nothing is None or isinstance(nothing, xr.DataArray):
            dims = (*template.dims, cube.GEOMETRY)
            found = [xr.DataArray(p, dims=dims, coords=template.coords, attrs=template.attrs) for p in parts]
            parts = [cube.decode(p).data for p in found]
            template, nothing, dtype = cube.decode(template), np.nan, _floating(dtype)
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


def _floating(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind in "fc" else np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _with_counts(
    reduced: xr.DataArray, counts: np.ndarray, valid: xr.DataArray, dimension: str
) -> xr.DataArray:
    """Values, counts of pixels and counts of valid pixels along one more dimension."""
    values = cube.decode(reduced).astype(float)
    total = xr.ones_like(values) * xr.DataArray(counts, dims=cube.GEOMETRY)
    parts = [values, total, valid]
    joined = xr.concat(parts, dim=dimension, coords="minimal", compat="override", join="override")
    labels = ["value", "total_count", "valid_count"]
    return joined.assign_coords({dimension: labels}).transpose(cube.GEOMETRY, ..., dimension)
