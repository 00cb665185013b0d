"""Apply processes to blocks of neighbouring pixels and times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.xr import xr_coords

from odc_openeo import cube
from odc_openeo.cube.calendar_periods import PERIODS
from odc_openeo.cube.instants import get_middle_times
from odc_openeo.cube.packing import carry_all_packings
from odc_openeo.errors import DataCubePropertiesImmutable, ProcessGraphComplexity, ProcessParameterInvalid
from odc_openeo.processes.kernels import pad_with_nodata
from odc_openeo.registry.child_results import (
    FROM_USER_CODE,
    as_array,
    is_from_user_code,
    restore_coordinates,
    runs_user_code,
)
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.geometry_schemas import SUBCUBE
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import AnyValue, SpatialCube, child_process_schema
from odc_openeo.spatial import rasterize
from odc_openeo.spatial.row_order import find_reversed_dimensions, reverse_dimensions

_DURATION: Final = (
    r"^(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)([DW]))?"
    r"(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$"
)
_EXTENT: Final[dict[str, Any]] = {
    "type": "object",
    "subtype": "chunk-size",
    "required": ["dimension", "value"],
    "properties": {
        "dimension": {"type": "string"},
        "value": {
            "default": None,
            "anyOf": [
                {"type": "null"},
                {"type": "number", "minimum": 0},
                {"type": "string", "subtype": "duration", "pattern": _DURATION},
            ],
        },
        "unit": {
            "default": None,
            "anyOf": [{"type": "null"}, {"type": "string", "enum": ["px", "m"]}],
        },
    },
}
_EXTENTS: Final = {"type": "array", "items": _EXTENT}
_VALUE: Final = _EXTENT["properties"]["value"]
_WIDER_VALUE: Final = {**_VALUE, "anyOf": [*_VALUE["anyOf"], {"type": "string", "enum": list(PERIODS)}]}
_WIDER_EXTENTS: Final = {
    **_EXTENTS,
    "items": {**_EXTENT, "properties": {**_EXTENT["properties"], "value": _WIDER_VALUE}},
}
_MOST_BLOCKS: Final = 20_000

Extents = Sequence[Mapping[str, Any]]
Size = Annotated[Extents, Schema(_EXTENTS, accepts=_WIDER_EXTENTS)]
Overlap = Annotated[
    Extents | None,
    Schema(
        [{"title": "Without overlap", "type": "null"}, _EXTENTS], accepts=[{"type": "null"}, _WIDER_EXTENTS]
    ),
]
_BLOCK: Final = [SUBCUBE, {"type": "array", "subtype": "labeled-array"}]
BlockProcess = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"data": (_BLOCK, "The block with its overlap; a labelled array if it has only one dimension.")},
        [SUBCUBE, {"type": "array"}],
        "The block with new values.",
    ),
]


def _needs_of_blocks(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Larger blocks are counted from the first label, which a part of the cube may lack.
    sizes, overlaps = arguments.get("size"), arguments.get("overlap") or []
    if not isinstance(sizes, list) or not isinstance(overlaps, list):
        return {}
    reach = _find_reach(sizes, overlaps) if demand.in_part else None
    if reach is not None:
        return {"data": demand.with_margin(reach)}
    single = {e.get("dimension") for e in sizes if e.get("value") == 1 and e.get("unit") == "px"}
    single -= {e.get("dimension") for e in overlaps}
    return {"data": demand.along_dimensions(*({cube.X, cube.Y, cube.T, cube.BANDS} - single))}


def _find_reach(sizes: Sequence[Any], overlaps: Sequence[Any]) -> int | None:
    """How many pixels away a block may have pixels with which one of its pixels is processed."""
    both = {cube.X, cube.Y}
    blocks = {e.get("dimension"): e for e in sizes if e.get("dimension") in both}
    around = [e for e in overlaps if e.get("dimension") in both]
    if blocks.keys() != both or any(e.get("unit") != "px" for e in (*blocks.values(), *around)):
        return None
    return max(e["value"] for e in blocks.values()) + max((e["value"] for e in around), default=0)


@process(categories=["cubes"], needs=_needs_of_blocks, raw_values_of=None)
def apply_neighborhood(
    data: SpatialCube,
    process: BlockProcess,
    size: Size,
    overlap: Overlap = None,
    context: AnyValue = None,
) -> SpatialCube:
    """Apply a process to blocks of a cube that may overlap.

    The cube is split into blocks of the given size, starting at the first label of each dimension (in the
    north-west along y and x); the last blocks may be smaller. The process receives each block with the
    overlap around it (no-data beyond the edges of the cube); of its result only the block itself is kept.
    Durations are calendar steps that start at the first time. Names of calendar periods (`month`, as in
    `aggregate_temporal_period`) split the time at their beginnings; an overlap of one period is that before
    and that after.

    Args:
        data: A raster cube.
        process: Called with each block as `data`; returns a block with the same dimensions and sizes.
        size: Sizes by dimension, as numbers of labels (``px``), in metres or the units of the reference
            system, as ISO 8601 durations, or as the name of a calendar period. Dimensions that are not listed
            are not split.
        overlap: Sizes of the overlap with the neighbouring blocks on both sides, by dimension.
        context: Additional data for the process.

    Returns:
        The cube with new values and the same dimensions.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        DataCubePropertiesImmutable: The process changed the dimensions of a block.
    """
    sizes = {cube.require_dimension(data, e["dimension"]): e for e in size}
    overlaps = {cube.require_dimension(data, e["dimension"]): e for e in overlap or ()}
    reversed_dimensions = find_reversed_dimensions(data)
    ordered = reverse_dimensions(data, reversed_dimensions)
    return reverse_dimensions(
        _apply_to_blocks(ordered, process, sizes, overlaps, context), reversed_dimensions
    )


def _apply_to_blocks(
    data: xr.DataArray,
    process: Callable[..., Any],
    sizes: Mapping[str, Any],
    overlaps: Mapping[str, Any],
    context: Any,
) -> xr.DataArray:
    axes = {str(d): _cut_axis(data, str(d), sizes.get(str(d)), overlaps.get(str(d))) for d in data.dims}
    count = int(np.prod([len(a.blocks) for a in axes.values()]))
    # If all blocks are single values, they are arrays of one value along any dimension.
    long = [d for d, a in axes.items() if not a.single] or [str(data.dims[0])]
    if len(long) == 1 and not runs_user_code(process):
        return _apply_along(data, process, long[0], axes[long[0]], context)
    if count > _MOST_BLOCKS:
        reason = f"apply_neighborhood would run its process {count} times. Choose larger blocks."
        raise ProcessGraphComplexity(reason=reason)
    wide = _pad_cube(data, axes)
    results = {}
    for key in itertools.product(*(range(len(a.blocks)) for a in axes.values())):
        blocks = {d: a.blocks[i] for i, (d, a) in zip(key, axes.items(), strict=True)}
        part = wide.isel({d: b.outer for d, b in blocks.items()})
        after = process(data=part, context=context)
        fixed = _find_fixed_dimensions(after, axes)
        after = _check_block(after, part, fixed)
        results[key] = after.isel({d: blocks[d].inner for d in fixed})
    if any(map(is_from_user_code, results.values())):
        return _assemble_user_blocks(data, results, axes)
    return _assemble_blocks(data, results, [len(a.blocks) for a in axes.values()])


@dataclass(frozen=True)
class _Block:
    """The labels of the padded cube that a block receives, and the part of them without overlap."""

    outer: slice
    inner: slice


@dataclass(frozen=True)
class _Axis:
    """The split of a dimension: blocks, labels to add at both ends, whether blocks are single labels."""

    blocks: list[_Block]
    margin: int
    single: bool


def _cut_axis(data: xr.DataArray, name: str, size: Any, overlap: Any) -> _Axis:
    length = data.sizes[name]
    step = None if size is None else size["value"]
    around = None if overlap is None else overlap["value"]
    if isinstance(step, str) or isinstance(around, str):
        return _cut_temporal_axis(data, name, size, overlap)
    width = length if step is None else _count_labels(data, name, size, "size")
    if width < 1:
        raise _make_error("size", f"the size along '{name}' is smaller than one label.")
    margin = 0 if around is None else _count_labels(data, name, overlap, "overlap")
    blocks = [
        _Block(slice(s, min(s + width, length) + 2 * margin), slice(margin, margin + min(width, length - s)))
        for s in range(0, length, width)
    ]
    return _Axis(blocks, margin, width == 1 and margin == 0)


def _count_labels(data: xr.DataArray, name: str, extent: Mapping[str, Any], parameter: str) -> int:
    """An extent as a number of labels."""
    value, unit = extent["value"], extent.get("unit")
    horizontal = name in (cube.X, cube.Y)
    if unit == "px" or not horizontal:
        if unit == "m":
            raise _make_error(parameter, f"dimension '{name}' is not in metres. Use the unit 'px'.")
        if value != int(value):
            raise _make_error(parameter, f"{value} is not a whole number of labels along '{name}'.")
        return int(value)
    grid = rasterize.get_grid(data, "apply_neighborhood")
    if unit == "m" and grid.crs.geographic:
        raise _make_error(parameter, "the cube is in degrees, not metres. Use 'px' or reproject it before.")
    return round(value / abs(grid.resolution.x if name == cube.X else grid.resolution.y))


def _cut_temporal_axis(data: xr.DataArray, name: str, size: Any, overlap: Any) -> _Axis:
    index = pd.DatetimeIndex(_get_axis_times(data, name))
    blocks = []
    for start, end in _find_edges(index, size):
        first, last = index.searchsorted([start, end])
        if first == last:
            continue
        outer_first, outer_last = index.searchsorted(_widen_block(start, end, overlap))
        outer = slice(int(outer_first), int(outer_last))
        blocks.append(_Block(outer, slice(int(first - outer_first), int(last - outer_first))))
    return _Axis(blocks, 0, False)


def _get_axis_times(data: xr.DataArray, name: str) -> np.ndarray:
    if cube.dimension_type(data, name) != "temporal":
        reason = f"dimension '{name}' is not temporal; durations and calendar periods can't be used there."
        raise _make_error("size", reason)
    times = get_middle_times(data, name, "apply_neighborhood").astype("datetime64[ns]")
    if (np.diff(times) < np.timedelta64(0)).any():
        raise _make_error("size", f"the labels of '{name}' must be in order for durations and periods.")
    return times


def _find_edges(index: pd.DatetimeIndex, size: Any) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
    """The start and the end of each block in time."""
    value = None if size is None else size["value"]
    if not index.size:
        return
    if value is None:
        yield index[0], index[-1] + pd.Timedelta(1, "ns")
    elif value in PERIODS:
        for number in np.unique(PERIODS[value].number(index)):
            start, end = PERIODS[value].start(np.array([number, number + 1]))
            yield pd.Timestamp(start), pd.Timestamp(end)
    else:
        step = _parse_duration("size", value)
        edges = [index[0]]
        while edges[-1] <= index[-1]:
            edges.append(index[0] + step * len(edges))
        yield from itertools.pairwise(edges)


def _widen_block(start: pd.Timestamp, end: pd.Timestamp, overlap: Any) -> tuple[Any, Any]:
    """The start and the end of a block with its overlap."""
    value = None if overlap is None else overlap["value"]
    if value is None:
        return start, end
    if value in PERIODS:
        kind = PERIODS[value]
        first, last = kind.number(pd.DatetimeIndex([start, end - pd.Timedelta(1, "ns")]))
        low, high = kind.start(np.array([first - 1, last + 2]))
        return pd.Timestamp(low), pd.Timestamp(high)
    around = _parse_duration("overlap", value)
    return start - around, end + around


def _parse_duration(parameter: str, value: Any) -> pd.DateOffset:
    if not isinstance(value, str):
        reason = "size and overlap along a temporal dimension must both be durations or calendar periods."
        raise _make_error(parameter, reason)
    fields = pd.Series([value]).str.extract(_DURATION).iloc[0].fillna(0).tolist()
    sign, years, months, days, unit, hours, minutes, seconds = fields
    weekly = 7 if unit == "W" else 1
    if sign == "-" or not any(float(v) for v in (years, months, days, hours, minutes, seconds)):
        raise _make_error(parameter, f"the duration {value!r} must be positive.")
    return pd.DateOffset(
        years=int(years),
        months=int(months),
        days=int(days) * weekly,
        hours=int(hours),
        minutes=int(minutes),
        microseconds=round(float(seconds) * 1e6),
    )


def _make_error(parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="apply_neighborhood", parameter=parameter, reason=reason)


def _pad_cube(data: xr.DataArray, axes: Mapping[str, _Axis]) -> xr.DataArray:
    """Pad the cube with no-data as far as blocks overlap its edges."""
    widths = {d: (a.margin, a.margin) for d, a in axes.items() if a.margin}
    if not widths:
        return data
    wide = pad_with_nodata(data, widths)
    if {cube.X, cube.Y} & set(widths):
        columns, rows = (axes[d].margin for d in (cube.X, cube.Y))
        grid = rasterize.get_grid(data, "apply_neighborhood").pad(columns, rows)
        wide = wide.assign_coords(xr_coords(grid, crs_coord_name=cube.SPATIAL_REF, always_yx=True))
    return wide


def _find_fixed_dimensions(after: Any, axes: Mapping[str, _Axis]) -> list[str]:
    """The dimensions that a block must keep: user code may change others than x and y if not split."""
    if not is_from_user_code(after):
        return list(axes)
    return [d for d, a in axes.items() if len(a.blocks) > 1 or a.margin or d in (cube.X, cube.Y)]


def _check_block(after: Any, before: xr.DataArray, fixed: Sequence[str] | None = None) -> xr.DataArray:
    """Check that the dimensions of a block are those from before, or at least those that are ``fixed``."""
    if not isinstance(after, xr.DataArray):
        raise DataCubePropertiesImmutable(before=dict(before.sizes), after=type(after).__name__)
    names = [str(d) for d in before.dims] if fixed is None else list(fixed)
    free = set(before.dims) - set(names)
    changed = any(after.sizes.get(d) != before.sizes[d] for d in names)
    if changed or (not free and set(after.dims) != set(before.dims)):
        raise DataCubePropertiesImmutable(before=dict(before.sizes), after=dict(after.sizes))
    kept = [d for d in before.dims if d in after.dims]
    return after.transpose(*(d for d in after.dims if d not in kept), *kept)


def _apply_along(data: xr.DataArray, process: Any, dimension: str, axis: _Axis, context: Any) -> xr.DataArray:
    """Apply the process to blocks of one dimension: they are arrays, so all pixels are processed at once."""
    wide = _pad_cube(data, {dimension: axis})
    results = []
    for block in axis.blocks:
        part = cube.to_array(wide.isel({dimension: block.outer}), dimension)
        like = part.isel({cube.ARRAY: 0}, drop=True)
        after = as_array(process(data=part, context=context), like, "apply_neighborhood", "process")
        results.append(cube.from_array(_check_block(after, part), dimension).isel({dimension: block.inner}))
    return _assemble_blocks(
        data, {(i,): m.transpose(*data.dims) for i, m in enumerate(results)}, None, dimension
    )


def _assemble_blocks(
    data: xr.DataArray,
    blocks: Mapping[tuple[int, ...], xr.DataArray],
    counts: Sequence[int] | None,
    dimension: str | None = None,
) -> xr.DataArray:
    """Assemble the blocks, with the labels of the cube."""
    if not blocks:
        return data
    first = next(iter(blocks.values()))
    if not all(cube.has_same_nodata(first, m) for m in blocks.values()):
        blocks = {k: cube.decode(m) for k, m in blocks.items()}
        first = next(iter(blocks.values()))
    lazy = any(isinstance(m.data, da.Array) for m in blocks.values())
    join = da.concatenate if lazy else np.concatenate
    if dimension is not None:
        values = join([m.data for m in blocks.values()], axis=data.dims.index(dimension))
    else:
        values = _join_parts({k: m.data for k, m in blocks.items()}, list(counts or ()), join)
    dims = set(data.dims)
    coords = {k: c for k, c in first.coords.items() if not dims & set(c.dims)}
    whole = xr.DataArray(values, dims=data.dims, coords=coords, attrs=first.attrs)
    return carry_all_packings(restore_coordinates(whole, data), [first])


def _assemble_user_blocks(
    data: xr.DataArray, blocks: Mapping[tuple[int, ...], xr.DataArray], axes: Mapping[str, _Axis]
) -> xr.DataArray:
    """Assemble blocks of user code, which may have other labels along dimensions that are not split."""
    first = next(iter(blocks.values()))
    dims = [str(d) for d in first.dims]
    different = next((b for b in blocks.values() if b.dims != first.dims), None)
    if different is not None:
        raise DataCubePropertiesImmutable(before=dict(first.sizes), after=dict(different.sizes))
    fixed = _find_fixed_dimensions(first, axes)
    names = list(axes)
    parts = {tuple(k[names.index(d)] if d in fixed else 0 for d in dims): b.data for k, b in blocks.items()}
    lazy = any(isinstance(values, da.Array) for values in parts.values())
    counts = [len(axes[d].blocks) if d in fixed else 1 for d in dims]
    values = _join_parts(parts, counts, da.concatenate if lazy else np.concatenate)
    coords = {k: c for k, c in first.coords.items() if not set(fixed) & set(map(str, c.dims))}
    attrs = {k: v for k, v in first.attrs.items() if k != FROM_USER_CODE}
    return restore_coordinates(xr.DataArray(values, dims=dims, coords=coords, attrs=attrs), data)


def _join_parts(parts: dict[tuple[int, ...], Any], counts: list[int], join: Any) -> Any:
    """Join along the last axis first, until one array is left."""
    for axis in range(len(counts) - 1, -1, -1):
        keys = itertools.product(*(range(n) for n in counts[:axis]))
        parts = {key: join([parts[(*key, i)] for i in range(counts[axis])], axis=axis) for key in keys}
    return parts[()]
