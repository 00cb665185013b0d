"""Recognising what was done once for each part of a cube as one operation on the whole.

Grouping in xarray selects the labels of each group, reduces them and stacks the results; a dataset does the
same for each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from openeo_xarray.build import (
    is_nan,
    make_constant,
    make_elementwise,
    replace_axis,
    take,
)
from openeo_xarray.calendar import PERIODS, name_period
from openeo_xarray.nodes import Axis, Constant, Drop, Elementwise, Indices, Load, Node, Reduce, Segments, Take


def lift_selection(parts: Sequence[Node], axis: Axis) -> Node | None:
    """The whole of which nodes are parts along a dimension, or None."""
    if all(isinstance(p, Constant) for p in parts):
        return _join_constants(parts, axis)
    lifted = None
    if not any(axis.name in p.dims for p in parts):
        lifted = _lift_reduced(parts)
        if lifted is not None:
            new = [a for a in lifted.axes if a.name not in parts[0].dims]
            return lifted if len(new) == 1 and len(new[0]) == len(parts) else None
        return _lift_single(parts)
    if all(axis.name in p.dims for p in parts):
        below = lift_selected(parts, axis.name)
        if below is not None:
            node, groups = below
            indices = [i for group in groups for i in group]
            return take(node, axis.name, indices) if len(set(indices)) == len(indices) else None
    return None


def _join_constants(parts: Sequence[Node], axis: Axis) -> Node | None:
    if any(p.axes for p in parts):
        return None
    return make_constant(np.array([p.values for p in parts]), [axis])  # type: ignore[attr-defined]


def _lift_reduced(parts: Sequence[Node]) -> Node | None:
    """One node for nodes that reduced their groups of labels: it has the dimension that they have reduced."""
    missing = [isinstance(p, Constant) and p.values.ndim == 0 and is_nan(p.values.item()) for p in parts]
    present = [p for p, gone in zip(parts, missing, strict=True) if not gone]
    if len(present) < 2 or len({type(p) for p in present}) > 1:
        return None
    node = _lift_alike(present)
    if node is None or not any(missing):
        return node
    new = next((a for a in node.axes if a.name not in present[0].dims), None)
    if new is None or new.kind != "time":
        return None
    numbers = iter(range(len(present)))
    return take(node, new.name, [-1 if gone else next(numbers) for gone in missing])


def _lift_alike(parts: Sequence[Node]) -> Node | None:
    if len({p.key for p in parts}) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, Reduce):
        return _lift_reductions(parts)
    if isinstance(first, Elementwise):
        if len({(p.function, len(p.arguments)) for p in parts}) > 1:  # type: ignore[attr-defined]
            return None
        arguments = [_lift_alike(a) for a in zip(*(p.arguments for p in parts), strict=True)]  # type: ignore[attr-defined]
        if any(a is None for a in arguments):
            return None
        return make_elementwise(first.function, *arguments, dtype=first.dtype)  # type: ignore[arg-type]
    return None


def _lift_reductions(parts: Sequence[Any]) -> Node | None:
    """Reductions of groups of one dimension as segments of it."""
    first = parts[0]
    if len({(p.reducer, p.over, p.options) for p in parts}) > 1 or len(first.over) != 1:
        return None
    dim = first.over[0]
    below = lift_selected([p.child for p in parts], dim)
    if below is None or below[0].dims[dim].kind != "time":
        return None
    base, groups = below
    if not _are_segments(groups):
        return None
    axis = label_groups(base.dims[dim], groups)
    axes = replace_axis(base, dim, axis)
    return Segments(axes, first.dtype, first.reducer, base, dim, groups, first.options)


def label_groups(axis: Axis, groups: Sequence[Indices]) -> Axis:
    """Labels of groups: the first of each, or the starts of calendar periods."""
    period = name_period(axis.labels, groups)
    labels = axis.labels[[group[0] for group in groups]]
    if period is not None:
        labels = labels.astype(PERIODS[period]).astype(labels.dtype)
    return Axis(axis.name, labels, axis.kind)


def _are_segments(groups: Sequence[Indices]) -> bool:
    """Whether groups are runs of labels, one after the other."""
    runs = all(group and group == tuple(range(group[0], group[0] + len(group))) for group in groups)
    return runs and all(a[-1] < b[0] for a, b in zip(groups, groups[1:], strict=False))


def lift_selected(parts: Sequence[Node], dim: str) -> tuple[Node, tuple[Indices, ...]] | None:
    """The node from which all parts select labels of a dimension, and which ones."""
    first = parts[0]
    whole = [p.child if isinstance(p, Take) and p.selects(dim) else p for p in parts]
    missing = any(-1 in p.indices for p in parts if isinstance(p, Take) and p.selects(dim) and len(parts) > 1)
    if (
        len({w.key for w in whole}) == 1
        and not missing
        and (len(parts) > 1 or isinstance(first, Take) and first.selects(dim))
    ):
        groups = tuple(
            p.indices if isinstance(p, Take) and p.selects(dim) else tuple(range(len(p.dims[dim])))
            for p in parts
        )
        return whole[0], groups
    if all(isinstance(p, Elementwise) for p in parts):
        return _lift_selected_functions(parts, dim)
    others = not isinstance(first, Take) or (
        first.dim != dim and len({(getattr(p, "dim", None), getattr(p, "indices", None)) for p in parts}) == 1
    )
    if isinstance(first, Drop | Reduce | Take) and others and all(type(p) is type(first) for p in parts):
        return _lift_selected_children(parts, dim)
    return None


def _lift_selected_functions(parts: Sequence[Any], dim: str) -> tuple[Node, tuple[Indices, ...]] | None:
    first = parts[0]
    if len({(p.function, len(p.arguments)) for p in parts}) > 1:
        return None
    arguments: list[Node] = []
    all_groups: set[tuple[Indices, ...]] = set()
    for column in zip(*(p.arguments for p in parts), strict=True):
        if all(dim not in a.dims for a in column):
            if len({a.key for a in column}) > 1:
                return None
            arguments.append(column[0])
            continue
        if any(dim not in a.dims for a in column) or (below := lift_selected(column, dim)) is None:
            return None
        arguments.append(below[0])
        all_groups.add(below[1])
    if len(all_groups) != 1:
        return None
    bases = [a for a in arguments if dim in a.dims]
    if len({len(b.dims[dim]) for b in bases}) > 1:
        return None
    return make_elementwise(first.function, *arguments, dtype=first.dtype), all_groups.pop()


def _lift_selected_children(parts: Sequence[Any], dim: str) -> tuple[Node, tuple[Indices, ...]] | None:
    """Look through operations on other dimensions."""
    first = parts[0]
    below = lift_selected([p.child for p in parts], dim)
    if (
        below is None
        or len(
            {(getattr(p, "dim", None), getattr(p, "over", None), getattr(p, "reducer", None)) for p in parts}
        )
        > 1
    ):
        return None
    base, groups = below
    axes = tuple(base.dims[dim] if a.name == dim else a for a in first.axes)
    return replace(first, axes=axes, child=base), groups


def _lift_single(parts: Sequence[Node]) -> Node | None:
    """Single labels of one node, stacked again."""
    drops = [p for p in parts if isinstance(p, Drop)]
    if len(drops) < len(parts) or len({p.dim for p in drops}) > 1:
        return None
    dim = drops[0].dim
    below = lift_selected([p.child for p in drops], dim)
    if below is None or any(len(group) != 1 for group in below[1]):
        return None
    return take(below[0], dim, [group[0] for group in below[1]])


def lift_bands(parts: Sequence[Node], dim: str) -> Node | None:
    """One node with a dimension of bands for nodes that do the same with bands of one collection."""
    first = parts[0]
    if len({p.key for p in parts}) == 1:
        return first
    if len({type(p) for p in parts}) > 1 or any(dim in p.dims for p in parts):
        return None
    if isinstance(first, Load):
        return _lift_loads(parts, dim)
    if isinstance(first, Constant):
        return None
    children = [_lift_children(parts, dim)]
    if children[0] is None:
        return None
    return _rebuild(first, children[0], dim, [p.dtype for p in parts])


def _lift_loads(parts: Sequence[Any], dim: str) -> Node | None:
    bands = tuple(p.bands[0] for p in parts)
    same = {(p.source.key, len(p.bands), tuple(a.key for a in p.axes)) for p in parts}
    if len(same) > 1 or len(set(bands)) < len(bands):
        return None
    axis = Axis(dim, np.array(bands), "bands")
    return Load((*parts[0].axes, axis), np.result_type(*(p.dtype for p in parts)), parts[0].source, bands)


def _lift_children(parts: Sequence[Any], dim: str) -> list[Node] | None:
    """The lifted nodes from which nodes are calculated, if all other fields of them agree."""
    parts[0]
    if len({_describe_operation(p) for p in parts}) > 1:
        return None
    columns = (
        zip(*(_operands(p) for p in parts), strict=True)
        if len({len(_operands(p)) for p in parts}) == 1
        else ()
    )
    lifted = [lift_bands(column, dim) for column in columns]
    if not lifted or any(node is None for node in lifted):
        return None
    return lifted  # type: ignore[return-value]


def _operands(node: Any) -> tuple[Node, ...]:
    from openeo_xarray.nodes import list_children

    return list_children(node)


def _describe_operation(node: Any) -> tuple[Any, ...]:
    """All that a node is but for its operands, bands and dtype."""
    names = (
        "function",
        "dim",
        "indices",
        "reducer",
        "over",
        "options",
        "groups",
        "window",
        "size",
        "before",
        "fill",
        "inner",
        "rows",
        "columns",
        "after",
    )
    kernel = getattr(node, "kernel", None)
    axis = getattr(node, "axis", None)
    return (
        type(node).__name__,
        tuple(a.key for a in node.axes),
        *(getattr(node, name, None) for name in names),
        None if kernel is None else (kernel.shape, kernel.tobytes()),
        None if axis is None else axis.key,
    )


def _rebuild(first: Any, operands: list[Node], dim: str, dtypes: list[Any]) -> Node | None:
    """The operation on lifted operands."""
    bands = next((a for node in operands for a in node.axes if a.name == dim), None)
    if bands is None:
        return None
    axes, dtype = (*first.axes, bands), np.result_type(*dtypes)
    if isinstance(first, Elementwise):
        return replace(first, axes=axes, dtype=dtype, arguments=tuple(operands))
    from openeo_xarray.nodes import Join

    if isinstance(first, Join):
        if any(dim not in node.dims for node in operands):
            return None
        return replace(first, axes=axes, dtype=dtype, parts=tuple(operands))
    return replace(first, axes=axes, dtype=dtype, child=operands[0])
