"""Reductions of moving windows and of blocks, along time and in space."""

from __future__ import annotations

from typing import Any

import numpy as np

from openeo_xarray.build import (
    ORDERED,
    SPATIAL,
    is_nan,
    make_constant,
    make_elementwise,
    replace_axis,
)
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import Axis, Blocks, Convolution, Node, Reduce, Segments, Windows
from openeo_xarray.order import check_order

MOST_SHIFTS = 49
NEUTRAL = {"sum": 0.0, "any": 0.0, "all": 1.0, "max": -np.inf, "min": np.inf, "product": 1.0}
"""The value that changes no result of a reducer."""


def reduce_windows(
    reducer: str, node: Windows, over: tuple[str, ...], options: dict[str, Any], dtype: Any
) -> Node:
    """Reduce moving windows along one or more dimensions."""
    windows: list[Windows] = []
    base: Node = node
    while isinstance(base, Windows) and base.window in over:
        windows.append(base)
        base = base.child
    if {w.window for w in windows} != set(over):
        raise UnsupportedOperation(
            "a reduction of windows and of other dimensions at once", "reduce them one after the other"
        )
    if all(base.dims[w.dim].kind in SPATIAL for w in windows):
        return _reduce_pixels(reducer, base, windows, options, dtype)
    if len(windows) == 1:
        return _reduce_times(reducer, base, windows[0], options, dtype)
    raise UnsupportedOperation(
        "moving windows along time and space at once", "roll along one after the other"
    )


def _reduce_times(reducer: str, base: Node, window: Windows, options: dict[str, Any], dtype: Any) -> Node:
    """Reduce windows along an axis other than x and y: groups of labels that overlap."""
    size, before = window.size, window.before
    count, length = len(base.dims[window.dim]), len(window.dims[window.dim])
    groups = [range(j - before, j - before + size) for j in range(length)]
    inside = tuple(tuple(i for i in group if 0 <= i < count) for group in groups)
    labels = window.dims[window.dim]
    node: Node = make_segments(reducer, base, window.dim, inside, options, dtype, labels)
    outside = np.array([len(group) < size for group in inside])
    return _treat_outside(reducer, node, window, outside, options)


def _treat_outside(
    reducer: str, node: Node, window: Windows, outside: np.ndarray, options: dict[str, Any]
) -> Node:
    """Correct results of windows that reach beyond the labels for the value that lies there."""
    if not outside.any() or NEUTRAL.get(reducer) == window.fill:
        return node
    if is_nan(window.fill):
        if options.get("skipna"):
            return node
        mask = make_constant(outside, [node.dims[window.dim]])
        return make_elementwise("where", mask, make_constant(np.nan), node)
    raise UnsupportedOperation(
        f"windows that are filled with {window.fill}", "use rolling() or fill_value=np.nan"
    )


def make_segments(
    reducer: str,
    base: Node,
    dim: str,
    groups: tuple[tuple[int, ...], ...],
    options: dict[str, Any],
    dtype: Any,
    axis: Axis,
) -> Segments:
    """Reduce groups of labels along a dimension."""
    if base.dims[dim].kind != "time":
        raise UnsupportedOperation(f"windows along {dim}", "they are possible along time, y and x")
    if reducer in ORDERED:
        check_order(base, dim, reducer)
    axes = replace_axis(base, dim, axis)
    return Segments(axes, np.dtype(dtype), reducer, base, dim, groups, tuple(sorted(options.items())))


def shift_pixels(node: Node, dim: str, offset: int) -> Node:
    """Move pixels by a number of columns or rows: what comes from outside is no-data."""
    size = 2 * abs(offset) + 1
    kernel = np.zeros(size)
    kernel[abs(offset) - offset] = 1
    return _convolve_valid(node, (dim,), kernel)


def _convolve_valid(node: Node, over: tuple[str, ...], kernel: np.ndarray) -> Node:
    """Pick one pixel of each surrounding; no-data stays no-data."""
    missing = make_elementwise("isnan", node)
    zero, one = make_constant(0.0), make_constant(1.0)
    values = convolve(make_elementwise("where", missing, zero, node), over, kernel)
    valid = convolve(make_elementwise("where", missing, zero, one), over, kernel)
    test = make_elementwise("greater", valid, make_constant(0.5))
    return make_elementwise("where", test, values, make_constant(np.nan))


def convolve(node: Node, over: tuple[str, ...], kernel: np.ndarray) -> Node:
    """Sum the pixels around each pixel with weights; there are zeros outside of the image."""
    return Convolution(node.axes, np.dtype("float64"), node, over, kernel)


def _check_windows(base: Node, windows: list[Windows]) -> None:
    for window in windows:
        check_order(base, window.dim, "a moving window")


def _reduce_pixels(
    reducer: str, base: Node, windows: list[Windows], options: dict[str, Any], dtype: Any
) -> Node:
    """Reduce windows in space: sums are convolutions, extremes compare shifted images."""
    _check_windows(base, windows)
    skipna = bool(options.get("skipna"))
    fill = windows[0].fill
    if reducer in ("sum", "mean", "any", "all"):
        node = _sum_pixels(reducer, base, windows, skipna)
    elif reducer in ("min", "max"):
        node = _compare_pixels(reducer, base, windows, skipna, fill)
    else:
        raise UnsupportedOperation(
            f"the reducer {reducer} of moving windows in space",
            "sum, mean, count, min and max are possible; coarsen() takes every reducer",
        )
    return (
        make_elementwise("to_float", node, dtype=dtype) if node.dtype != dtype and dtype.kind == "f" else node
    )


def _kernel(windows: list[Windows]) -> tuple[tuple[str, ...], np.ndarray]:
    """The dimensions of windows and a kernel of ones, odd and with the pixel in its middle."""
    over = tuple(w.dim for w in windows)
    kernel = np.ones(())
    for window in windows:
        after = window.size - 1 - window.before
        reach = max(window.before, after, 0)
        line = np.zeros(2 * reach + 1)
        line[reach - window.before : reach + after + 1] = 1
        kernel = np.multiply.outer(kernel, line)
    return over, kernel


def _sum_pixels(reducer: str, base: Node, windows: list[Windows], skipna: bool) -> Node:
    over, kernel = _kernel(windows)
    zero, one, nan = make_constant(0.0), make_constant(1.0), make_constant(np.nan)
    fill = windows[0].fill
    if reducer in ("any", "all"):
        total = convolve(make_elementwise("to_float", base, dtype=np.float64), over, kernel)
        limit = make_constant(0.5 if reducer == "any" else kernel.sum() - 0.5)
        return make_elementwise("greater", total, limit)
    if base.dtype.kind != "f":
        node = convolve(base, over, kernel)
        return _divide(node, make_constant(kernel.sum())) if reducer == "mean" else node
    missing = make_elementwise("isnan", base)
    total = convolve(make_elementwise("where", missing, zero, base), over, kernel)
    count = convolve(make_elementwise("where", missing, zero, one), over, kernel)
    whole = make_elementwise("greater", count, make_constant(0.5 if skipna else kernel.sum() - 0.5))
    if not skipna and not is_nan(fill) and fill == 0:
        absent = convolve(make_elementwise("where", missing, one, zero), over, kernel)
        whole = make_elementwise("less", absent, make_constant(0.5))
    if reducer == "sum":
        return total if skipna else make_elementwise("where", whole, total, nan)
    return make_elementwise("where", whole, _divide(total, count), nan)


def _divide(a: Node, b: Node) -> Node:
    return make_elementwise("divide", a, b)


def _compare_pixels(reducer: str, base: Node, windows: list[Windows], skipna: bool, fill: Any) -> Node:
    """The least or greatest pixel of windows, from images that are shifted against each other."""
    if sum(w.size for w in windows) > MOST_SHIFTS:
        raise UnsupportedOperation(
            f"the {reducer} of large windows in space", "use windows of at most 24 pixels a side"
        )
    function = f"f{reducer}" if skipna or fill == NEUTRAL[reducer] else f"{reducer}imum"
    node = base
    for window in windows:
        images = [_shifted(node, window.dim, window.before - i) for i in range(window.size)]
        node = images[0]
        for image in images[1:]:
            node = make_elementwise(function, node, image)
    return node


def _shifted(node: Node, dim: str, offset: int) -> Node:
    return shift_pixels(node, dim, offset) if offset else node


def reduce_blocks(
    reducer: str, node: Blocks, over: tuple[str, ...], options: dict[str, Any], dtype: Any
) -> Node:
    """Reduce blocks of labels: in time to one label each, in space to one pixel each."""
    blocks: list[Blocks] = []
    base: Node = node
    while isinstance(base, Blocks) and base.inner in over:
        blocks.append(base)
        base = base.child
    times = [b for b in blocks if base.dims[b.dim].kind not in SPATIAL]
    if {b.inner for b in blocks} != set(over) or (times and len(blocks) > 1):
        raise UnsupportedOperation(
            "blocks of several kinds of dimensions", "coarsen time and space one after the other"
        )
    if times:
        size, count = times[0].size, len(node.dims[times[0].dim])
        groups = tuple(tuple(range(k * size, (k + 1) * size)) for k in range(count))
        return make_segments(reducer, base, times[0].dim, groups, options, dtype, node.dims[times[0].dim])
    axes = tuple(axis for axis in node.axes if axis.name not in over)
    return Reduce(axes, np.dtype(dtype), reducer, node, over, tuple(sorted(options.items())))
