"""Building nodes: selections move down to what is loaded, windows and blocks move up to their reducer.

These functions keep expressions in one normal form, which `lower.py` translates. What openEO cannot say is
refused here, while it is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from openeo_xarray.elementwise import evaluate_constants, find_dtype
from openeo_xarray.errors import LOAD_FIRST, UnsupportedOperation
from openeo_xarray.nodes import (
    Along,
    Axis,
    Blocks,
    Constant,
    Drop,
    Elementwise,
    Join,
    Node,
    Points,
    Reduce,
    Relabel,
    Segments,
    Take,
    Windows,
)
from openeo_xarray.order import check_order

SPATIAL = ("x", "y")
MOST_PARTS = 100


def make_constant(values: Any, axes: Sequence[Axis] = ()) -> Constant:
    """Wrap values of the client: a scalar, or an array along dimensions."""
    array = np.asarray(values)
    return Constant(tuple(axes), array.dtype, array)


def is_nan(value: Any) -> bool:
    """Whether a value is NaN or None."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def replace_axis(node: Node, dim: str, axis: Axis | None) -> tuple[Axis, ...]:
    """The axes of a node with another one, or without one."""
    axes = (axis if old.name == dim else old for old in node.axes)
    return tuple(new for new in axes if new is not None)


# Selections


def take(node: Node, dim: str, indices: Sequence[int], axis: Axis | None = None) -> Node:
    """Select labels of a dimension by position; -1 is a label without data, which `axis` names."""
    chosen = tuple(int(i) for i in indices)
    if axis is None and chosen == tuple(range(len(node.dims[dim]))):
        return node
    axis = axis or select_labels(node.dims[dim], chosen)
    if isinstance(node, Take) and node.selects(dim) and not _is_irregular(node.indices):
        return take(node.child, dim, [node.indices[i] if i >= 0 else -1 for i in chosen], axis)
    pushed = None if _is_irregular(chosen) else _push_take(node, dim, chosen, axis)
    if pushed is not None:
        return pushed
    if isinstance(node, Segments) and node.dim == dim and (groups := _take_groups(node, chosen)):
        return replace(node, axes=replace_axis(node, dim, axis), groups=groups)
    _check_take(node, dim, chosen, axis)
    return Take(replace_axis(node, dim, axis), with_missing(node.dtype, chosen), node, dim, chosen, axis)


def with_missing(dtype: np.dtype[Any], indices: Sequence[int]) -> np.dtype[Any]:
    """The dtype of a selection with labels that have no data."""
    return np.result_type(dtype, np.float32) if -1 in indices and dtype.kind != "f" else dtype


def select_labels(axis: Axis, indices: Sequence[int]) -> Axis:
    """The labels of a selection; repeated and missing labels get new ones."""
    if not _is_irregular(indices):
        return axis.take(indices)
    if axis.kind == "time":
        return Axis(axis.name, _fill_times(axis.labels, indices), axis.kind)
    if axis.kind in SPATIAL:
        return Axis(axis.name, _fill_numbers(axis.labels, indices), axis.kind)
    return Axis(axis.name, np.array([f"{i:05d}" for i in range(len(indices))]), "other")


def _is_irregular(indices: Sequence[int]) -> bool:
    """Whether labels are repeated or missing."""
    return -1 in indices or len(set(indices)) < len(indices)


def _fill_times(labels: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Distinct times: the labels where they are used first, else some seconds after the one before."""
    times: list[np.datetime64] = []
    second = np.timedelta64(1, "s")
    used: set[Any] = set()
    for i in indices:
        if i >= 0 and labels[i] not in used:
            time = labels[i]
        else:
            time = (times[-1] if times else labels[0] - np.timedelta64(86400, "s")) + second
        while time in used:
            time = time + second
        used.add(time)
        times.append(time)
    return np.array(times, labels.dtype)


def _fill_numbers(labels: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Coordinates that go on with the same step where pixels are missing."""
    first = next((k for k, i in enumerate(indices) if i >= 0), 0)
    step = labels[1] - labels[0] if len(labels) > 1 else 1.0
    start = labels[max(indices[first], 0)] - first * step
    return start + step * np.arange(len(indices))


def _push_take(node: Node, dim: str, indices: tuple[int, ...], axis: Axis) -> Node | None:
    """Apply a selection of distinct labels to what a node is calculated from, if its values are the same."""
    match node:
        case Constant():
            position = [a.name for a in node.axes].index(dim)
            return Constant(
                replace_axis(node, dim, axis), node.dtype, np.take(node.values, indices, axis=position)
            )
        case Elementwise():
            arguments = (take(a, dim, indices, axis) if dim in a.dims else a for a in node.arguments)
            return make_elementwise(node.function, *arguments)
        case Take() if node.axis.name == dim:
            return take(node.child, node.dim, [node.indices[i] for i in indices], axis)
        case Relabel() if node.axis.name == dim:
            child = take(node.child, node.dim, indices)
            return relabel(child, node.dim, axis)
        case Join() if node.dim == dim:
            return _take_parts(node, indices, axis)
        case Take() if node.dim == dim:
            return None
        case Reduce() | Drop() | Take() | Relabel():
            return replace(
                node, axes=replace_axis(node, dim, axis), child=take(node.child, dim, indices, axis)
            )
        case Segments() | Along() if node.dim != dim:
            return replace(
                node, axes=replace_axis(node, dim, axis), child=take(node.child, dim, indices, axis)
            )
        case Join():
            parts = tuple(take(p, dim, indices, axis) if dim in p.dims else p for p in node.parts)
            return replace(node, axes=replace_axis(node, dim, axis), parts=parts)
    return None


def _take_groups(node: Segments, indices: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    """The groups of a selection of segments, if a group without labels has no data."""
    if len(set(indices) - {-1}) < sum(i >= 0 for i in indices):
        return None
    if -1 in indices and node.reducer not in EMPTY_IS_NODATA:
        return None
    return tuple(node.groups[i] if i >= 0 else () for i in indices)


ORDERED = ("first", "last", "argmax", "argmin")
"""Reducers whose result depends on the order of values."""

EMPTY_IS_NODATA = ("mean", "min", "max", "median", "sd", "variance", "first", "last", "quantile", "range")
"""Reducers that give no-data for no values."""


def _take_parts(node: Join, indices: tuple[int, ...], axis: Axis) -> Node:
    """A selection of joined nodes: the parts that are needed, cut."""
    places = [(k, i) for k, part in enumerate(node.parts) for i in range(_length(part, node.dim))]
    parts: list[Node] = []
    start = 0
    while start < len(indices):
        k = places[indices[start]][0]
        end = start
        while end < len(indices) and places[indices[end]][0] == k:
            end += 1
        part = node.parts[k]
        if node.dim in part.dims:
            part = take(part, node.dim, [places[i][1] for i in indices[start:end]])
        parts.append(part)
        start = end
    return make_join(parts, axis)


def _length(part: Node, dim: str) -> int:
    return len(part.dims[dim]) if dim in part.dims else 1


def _check_take(node: Node, dim: str, indices: tuple[int, ...], axis: Axis) -> None:
    """Refuse selections that no filter can say."""
    kind = node.dims[dim].kind
    steps = set(np.diff(indices).tolist())
    if kind in SPATIAL and -1 not in indices and len(steps) > 1:
        if sorted(indices) == list(range(len(node.dims[dim]))):
            return
        raise UnsupportedOperation(
            f"a selection of scattered labels along {dim}",
            "select a slice, or points with one indexer for x and one for y that share a dimension",
        )
    if kind == "geometry":
        raise UnsupportedOperation("a selection of geometries", "select them before the values are taken")


def drop(node: Node, dim: str) -> Node:
    """Remove a dimension that has one label."""
    if dim not in node.dims:
        return node
    if isinstance(node, Constant):
        position = [a.name for a in node.axes].index(dim)
        return Constant(replace_axis(node, dim, None), node.dtype, node.values.squeeze(position))
    if isinstance(node, Elementwise):
        return make_elementwise(node.function, *(drop(a, dim) for a in node.arguments))
    if isinstance(node, Join) and node.dim == dim:
        part = node.parts[0]
        return drop(part, dim) if dim in part.dims else part
    return Drop(replace_axis(node, dim, None), node.dtype, node, dim)


def relabel(node: Node, dim: str, axis: Axis) -> Node:
    """Give a dimension another name or other labels; positions stay."""
    if node.dims[dim].key == axis.key:
        return node
    axes = replace_axis(node, dim, axis)
    if isinstance(node, Constant):
        return Constant(axes, node.dtype, node.values)
    if isinstance(node, Elementwise):
        arguments = (relabel(a, dim, axis) if dim in a.dims else a for a in node.arguments)
        return make_elementwise(node.function, *arguments)
    if isinstance(node, Relabel) and node.axis.name == dim:
        return relabel(node.child, node.dim, axis)
    if isinstance(node, Segments) and node.dim == dim and axis.name == dim and axis.kind == "time":
        return replace(node, axes=axes)
    if (
        isinstance(node, Take)
        and node.axis.name == dim
        and (
            _is_irregular(node.indices)
            or (node.selects(dim) and axis.kind == "time" == node.axis.kind and axis.name == dim)
        )
    ):
        return replace(node, axes=axes, axis=axis)
    if node.dims[dim].kind in SPATIAL:
        return _shift_pixels(node, dim, axis)
    return Relabel(axes, node.dtype, node, dim, axis)


def _shift_pixels(node: Node, dim: str, axis: Axis) -> Node:
    """Move pixels along a dimension, so that a selection lies where another one has its labels."""
    from openeo_xarray.lift import lift_selected

    check_order(node, dim, "an operation on pixels at different places")
    lifted = lift_selected([node], dim)
    child, (indices,) = lifted if lifted is not None else (node, (tuple(range(len(axis))),))
    labels = child.dims[dim].labels
    step = labels[1] - labels[0] if len(labels) > 1 else 0
    targets = np.rint((axis.labels - labels[0]) / step) if step else np.array([])
    grid = step and bool(np.allclose(labels[0] + targets * step, axis.labels, rtol=0, atol=abs(step) * 1e-3))
    offsets = {int(t) - i for t, i in zip(targets, indices, strict=True) if i >= 0} if grid else set()
    if len(offsets) != 1 or targets.min() < 0 or targets.max() >= len(labels):
        raise UnsupportedOperation(
            f"an operation on pixels at different places along {dim}",
            "align the selections, or " + LOAD_FIRST,
        )
    from openeo_xarray.windows import shift_pixels

    shifted = shift_pixels(child, dim, offsets.pop())
    return take(shifted, dim, [int(t) for t in targets], axis)


# Elementwise functions


def make_elementwise(function: str, *arguments: Node, dtype: Any = None) -> Node:
    """Apply a function to the values of nodes at the same labels."""
    if all(isinstance(a, Constant) for a in arguments):
        return _fold(function, arguments)
    if function == "where" and isinstance(arguments[0], Constant) and (chosen := _choose(arguments)):
        return chosen
    rules = (_split_outer, _absorb_mask, _pull_up_windows, _pull_up_blocks, _split_repeated, _split_joined)
    for pull_up in rules:
        node = pull_up(function, arguments)
        if node is not None:
            return node
    result = np.dtype(dtype) if dtype is not None else find_dtype(function, arguments)
    return Elementwise(collect_axes(arguments), result, function, tuple(arguments))


def collect_axes(nodes: Sequence[Node]) -> tuple[Axis, ...]:
    """All dimensions of some nodes, in the order of the node with most of them."""
    axes: dict[str, Axis] = {}
    for node in sorted(nodes, key=lambda n: -len(n.axes)):
        for axis in node.axes:
            axes.setdefault(axis.name, axis)
    return tuple(axes.values())


def _fold(function: str, arguments: Sequence[Node]) -> Constant:
    """Calculate with the values of the client here."""
    axes = collect_axes(arguments)
    names = [axis.name for axis in axes]
    values = []
    for argument in arguments:
        assert isinstance(argument, Constant)
        order = sorted(range(len(argument.axes)), key=lambda k: names.index(argument.axes[k].name))
        shape = [len(argument.dims[n]) if n in argument.dims else 1 for n in names]
        values.append(argument.values.transpose(order).reshape(shape))
    result = np.asarray(evaluate_constants(function, values))
    return make_constant(np.broadcast_to(result, [len(axis) for axis in axes]).copy(), axes)


def _choose(arguments: Sequence[Node]) -> Node | None:
    """The branch of a `where` that is taken everywhere."""
    condition, yes, no = arguments
    assert isinstance(condition, Constant)
    for branch, taken in ((yes, condition.values.all()), (no, not condition.values.any())):
        if taken and set(collect_axes([yes, no, condition])) == set(branch.axes):
            return (
                branch
                if branch.dtype == find_dtype("where", arguments)
                else cast(branch, find_dtype("where", arguments))
            )
    return None


def _split_outer(function: str, arguments: Sequence[Node]) -> Node | None:
    """Calculate with values along a dimension that no cube has, one after the other."""
    dims = {dim for a in arguments if not isinstance(a, Constant) for dim in a.dims}
    axis = next((x for a in arguments if isinstance(a, Constant) for x in a.axes if x.name not in dims), None)
    if axis is None:
        return None
    if len(axis) > MOST_PARTS:
        raise UnsupportedOperation(f"{function} with {len(axis)} values along a new dimension", LOAD_FIRST)
    new = Axis(axis.name, np.array([f"{i:05d}" for i in range(len(axis))]))
    parts = [
        make_elementwise(
            function,
            *(drop(take(a, axis.name, [i]), axis.name) if axis.name in a.dims else a for a in arguments),
        )
        for i in range(len(axis))
    ]
    return make_join(parts, new)


def _absorb_mask(function: str, arguments: Sequence[Node]) -> Node | None:
    """A selection whose labels are masked in part: xarray's way to have labels without data."""
    if function != "where" or not isinstance(arguments[0], Constant) or arguments[0].values.ndim != 1:
        return None
    mask, yes, no = arguments[0], arguments[1], arguments[2]
    absent = ~mask.values.astype(bool)
    if isinstance(yes, Constant):
        yes, no, absent = no, yes, ~absent
    dim = mask.axes[0].name
    nan = isinstance(no, Constant) and no.values.ndim == 0 and is_nan(no.values.item())
    if not nan or not isinstance(yes, Take) or yes.axis.name != dim or not _is_irregular(yes.indices):
        return None
    indices = [-1 if gone else i for i, gone in zip(yes.indices, absent, strict=True)]
    axis = replace(yes.axis, name=yes.dim)
    return relabel(take(yes.child, yes.dim, indices, axis), yes.dim, yes.axis)


def cast(node: Node, dtype: Any) -> Node:
    """Convert to another dtype."""
    dtype = np.dtype(dtype)
    if node.dtype == dtype:
        return node
    if isinstance(node, Constant):
        return Constant(node.axes, dtype, node.values.astype(dtype))
    if dtype.kind not in "biuf":
        raise UnsupportedOperation(f"a conversion to {dtype}", "openEO calculates with numbers and booleans")
    function = {"b": "to_boolean", "i": "to_integer", "u": "to_integer", "f": "to_float"}[dtype.kind]
    if isinstance(node, Elementwise) and node.function == function == "to_float":
        return cast(node.arguments[0], dtype) if node.arguments[0].dtype != dtype else node.arguments[0]
    return make_elementwise(function, node, dtype=dtype)


def _pull_up_windows(function: str, arguments: Sequence[Node]) -> Node | None:
    """Calculate before windows are moved instead of inside of them."""
    windows = [a for a in arguments if isinstance(a, Windows)]
    if not windows:
        return None
    first = windows[0]
    same = all(
        (w.dim, w.window, w.size, w.before) == (first.dim, first.window, first.size, first.before)
        for w in windows
    )
    others = [a for a in arguments if not isinstance(a, Windows)]
    if not same or any(first.window in a.dims or first.dim in a.dims for a in others):
        return None
    inner = make_elementwise(function, *(a.child if isinstance(a, Windows) else a for a in arguments))
    if not all(isinstance(a, Constant) and a.values.ndim == 0 for a in others):
        return None
    fills = [np.asarray(a.fill if isinstance(a, Windows) else a.values) for a in arguments]  # type: ignore[attr-defined]
    fill = evaluate_constants(function, fills)
    return make_windows(inner, first.dim, first.window, first.size, first.before, np.asarray(fill).item())


def make_windows(child: Node, dim: str, window: str, size: int, before: int, fill: Any) -> Windows:
    """Moving windows along a dimension, enumerated by a new dimension."""
    axes = (*child.axes, Axis(window, np.arange(size)))
    return Windows(axes, child.dtype, child, dim, window, size, before, fill)


def make_blocks(child: Node, dim: str, inner: str, size: int) -> Blocks:
    """Consecutive blocks of labels of a dimension, each enumerated by a new dimension."""
    outer = coarsen_labels(child.dims[dim], size)
    axes = (*replace_axis(child, dim, outer), Axis(inner, np.arange(size)))
    return Blocks(axes, child.dtype, child, dim, inner, size)


def coarsen_labels(axis: Axis, size: int) -> Axis:
    """The labels of blocks: the middle of the coordinates, the first of the times."""
    rows = axis.labels.reshape(-1, size)
    labels = rows.mean(axis=1) if axis.kind in SPATIAL else rows[:, 0]
    return Axis(axis.name, labels, axis.kind)


def _pull_up_blocks(function: str, arguments: Sequence[Node]) -> Node | None:
    """Calculate before labels are put into blocks."""
    blocks = [a for a in arguments if isinstance(a, Blocks)]
    if not blocks:
        return None
    first = blocks[0]
    same = all((b.dim, b.inner, b.size) == (first.dim, first.inner, first.size) for b in blocks)
    if not same or any(first.dim in a.dims for a in arguments if not isinstance(a, Blocks)):
        return None
    inner = make_elementwise(function, *(a.child if isinstance(a, Blocks) else a for a in arguments))
    return make_blocks(inner, first.dim, first.inner, first.size)


def _split_repeated(function: str, arguments: Sequence[Node]) -> Node | None:
    """Calculate with repeated labels one by one: anomalies from a climatology, say."""
    for argument in arguments:
        if isinstance(argument, Take) and len(set(argument.indices)) < len(argument.indices):
            dim = argument.axis.name
            break
    else:
        return None
    others = [
        a
        for a in arguments
        if not isinstance(a, Constant) and getattr(a, "indices", None) != argument.indices
    ]
    axis = next((a.dims[dim] for a in others if dim in a.dims), None)
    if -1 in argument.indices or axis is None:
        return None
    parts, order = [], []
    for index in dict.fromkeys(argument.indices):
        positions = [k for k, i in enumerate(argument.indices) if i == index]
        order += positions
        parts.append(
            make_elementwise(function, *(_take_for(a, argument, dim, index, positions) for a in arguments))
        )
    return sort_joined(make_join(parts, axis.take(order)), dim, order, axis)


def _take_for(node: Node, repeated: Take, dim: str, index: int, positions: list[int]) -> Node:
    """The operand for one value of the repeated labels."""
    if isinstance(node, Take) and node.axis.name == dim and node.indices == repeated.indices:
        return drop(take(node.child, node.dim, [index]), node.dim)
    return take(node, dim, positions) if dim in node.dims else node


def sort_joined(node: Node, dim: str, order: Sequence[int], axis: Axis) -> Node:
    """Put labels into the order of an axis, after they were joined in another one."""
    positions = np.argsort(order).tolist()
    if positions == list(range(len(positions))):
        return node
    return Take(replace_axis(node, dim, axis), node.dtype, node, dim, tuple(positions), axis)


def _split_joined(function: str, arguments: Sequence[Node]) -> Node | None:
    """Calculate with each of the joined nodes, and join the results."""
    joined = [a for a in arguments if isinstance(a, Join)]
    if not joined:
        return None
    dim = joined[0].dim
    lengths = [[_length(p, dim) for p in a.parts] for a in joined if a.dim == dim]
    if any(sizes != lengths[0] for sizes in lengths):
        return None
    parts, start = [], 0
    for k, size in enumerate(lengths[0]):
        whole = dim in joined[0].parts[k].dims
        positions = list(range(start, start + size))
        parts.append(make_elementwise(function, *(_part_of(a, dim, k, positions, whole) for a in arguments)))
        start += size
    return make_join(parts, joined[0].dims[dim])


def _part_of(node: Node, dim: str, k: int, positions: list[int], whole: bool) -> Node:
    """The operand for one of the joined nodes."""
    if isinstance(node, Join) and node.dim == dim:
        return node.parts[k]
    if dim not in node.dims:
        return node
    part = take(node, dim, positions)
    return part if whole else drop(part, dim)


# Reductions


def make_along(function: str, node: Node, dim: str, dtype: Any = None) -> Node:
    """Apply a function of all values along a dimension that keeps its labels."""
    check_order(node, dim, function)
    return Along(node.axes, np.dtype(dtype or node.dtype), function, node, dim)


def make_reduce(reducer: str, node: Node, over: Sequence[str], options: dict[str, Any], dtype: Any) -> Node:
    """Reduce dimensions with a reducer."""
    from openeo_xarray.windows import reduce_blocks, reduce_windows

    if isinstance(node, Take) and isinstance(node.child, Windows) and node.dim not in over:
        reduced = make_reduce(reducer, node.child, over, options, dtype)
        return take(reduced, node.dim, node.indices, node.dims[node.dim])
    if isinstance(node, Windows) and node.window in over:
        return reduce_windows(reducer, node, tuple(over), options, dtype)
    if isinstance(node, Blocks) and node.inner in over:
        return reduce_blocks(reducer, node, tuple(over), options, dtype)
    if reducer in ORDERED:
        for dim in over:
            check_order(node, dim, reducer)
    axes = tuple(axis for axis in node.axes if axis.name not in over)
    return Reduce(axes, np.dtype(dtype), reducer, node, tuple(over), tuple(sorted(options.items())))


# Joins


def make_join(parts: Sequence[Node], axis: Axis) -> Node:
    """Put nodes side by side along a dimension."""
    from openeo_xarray.lift import lift_selection

    lifted = lift_selection(parts, axis)
    if lifted is not None:
        return lifted
    axes = tuple(a for a in collect_axes(parts) if a.name != axis.name)
    dtype = np.result_type(*(p.dtype for p in parts))
    return Join((axis, *axes), dtype, tuple(parts), axis.name)


def take_points(node: Node, rows: Sequence[int], columns: Sequence[int], dim: str) -> Node:
    """Select pixels by pairs of positions along y and x."""
    if isinstance(node, Elementwise):
        arguments = (
            take_points(a, rows, columns, dim) if {"x", "y"} <= set(a.dims) else a for a in node.arguments
        )
        return make_elementwise(node.function, *arguments)
    axes = tuple(a for a in node.axes if a.name not in SPATIAL)
    points = Axis(dim, np.arange(len(rows)), "geometry")
    return Points((*axes, points), node.dtype, node, tuple(map(int, rows)), tuple(map(int, columns)), dim)
