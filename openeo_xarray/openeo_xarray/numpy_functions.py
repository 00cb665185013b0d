"""Implementations of functions of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from openeo_xarray.array import FUNCTIONS, RecordedArray, apply_elementwise
from openeo_xarray.build import (
    cast,
    drop,
    make_along,
    make_blocks,
    make_constant,
    make_elementwise,
    make_join,
    make_reduce,
    make_windows,
    relabel,
    take,
)
from openeo_xarray.errors import LOAD_FIRST, UnsupportedOperation
from openeo_xarray.nodes import Axis, Node
from openeo_xarray.padding import Padding


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function stand for functions of NumPy."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = implementation
        return implementation

    return register


# Reductions


def _register_reduction(function: Any, reducer: str, skipna: bool) -> None:
    def reduce(
        a: RecordedArray, axis: Any = None, dtype: Any = None, out: Any = None, **options: Any
    ) -> RecordedArray:
        _refuse(function, out=out, **{k: options.pop(k, None) for k in ("where", "initial", "mean")})
        keepdims = options.pop("keepdims", False) is True
        for name in ("overwrite_input", "correction"):
            value = options.pop(name, None)
            if name == "correction" and isinstance(value, int | float):
                options["ddof"] = value
        return reduce_array(function, a, reducer, axis, {"skipna": skipna, **options}, keepdims, dtype)

    FUNCTIONS[function] = reduce


def _refuse(function: Any, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None and value is not np._NoValue:
            raise UnsupportedOperation(f"np.{function.__name__} with {name}=", LOAD_FIRST)


for _function, _reducer, _skipna in (
    (np.mean, "mean", False),
    (np.nanmean, "mean", True),
    (np.sum, "sum", False),
    (np.min, "min", False),
    (np.nanmin, "min", True),
    (np.max, "max", False),
    (np.nanmax, "max", True),
    (np.median, "median", False),
    (np.nanmedian, "median", True),
    (np.prod, "product", False),
    (np.var, "variance", False),
    (np.nanvar, "variance", True),
    (np.std, "sd", False),
    (np.nanstd, "sd", True),
    (np.any, "any", True),
    (np.all, "all", True),
    (np.ptp, "range", False),
    (np.argmax, "argmax", False),
    (np.argmin, "argmin", False),
    (np.nanargmax, "argmax", True),
    (np.nanargmin, "argmin", True),
):
    _register_reduction(_function, _reducer, _skipna)


def reduce_array(
    function: Any,
    a: RecordedArray,
    reducer: str,
    axis: Any,
    options: dict[str, Any],
    keepdims: bool = False,
    dtype: Any = None,
) -> RecordedArray:
    """Reduce axes with a reducer."""
    axes = normalize_axis_tuple(range(a.ndim) if axis is None else axis, a.ndim)
    options = {k: v for k, v in options.items() if v is not np._NoValue and v is not None}
    node = _prepare_values(a.node, reducer)
    over = [a.layout[k] for k in axes if a.layout[k] is not None]
    if reducer.startswith("arg") and len(over) != 1:
        raise UnsupportedOperation(f"np.{function.__name__} over several dimensions", "give one dimension")
    result = np.dtype(dtype) if dtype is not None else _find_reduced_dtype(function, a.dtype)
    if over:
        node = make_reduce(reducer, node, over, options, result)  # type: ignore[arg-type]
    elif reducer in ("any", "all"):
        node = cast(node, bool)
    elif reducer in ("variance", "sd"):
        node = make_elementwise("multiply", node, make_constant(0.0))
    layout = [None if k in axes else name for k, name in enumerate(a.layout) if keepdims or k not in axes]
    return RecordedArray(node, tuple(layout))


def _prepare_values(node: Node, reducer: str) -> Node:
    """Booleans are numbers where NumPy calculates with them, and numbers truth values in logic."""
    if reducer in ("any", "all"):
        return cast(node, bool)
    return cast(node, np.int64) if node.dtype.kind == "b" else node


def _find_reduced_dtype(function: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    with np.errstate(all="ignore"):
        return np.dtype(np.asarray(function(np.ones(2, dtype))).dtype)


@implements(np.nansum)
def nansum(a: RecordedArray, axis: Any = None, dtype: Any = None, **options: Any) -> RecordedArray:
    filled = apply_elementwise("where", apply_elementwise("isnan", a), 0, a) if a.dtype.kind == "f" else a
    return FUNCTIONS[np.sum](filled, axis, dtype, **options)


@implements(np.nanprod)
def nanprod(a: RecordedArray, axis: Any = None, dtype: Any = None, **options: Any) -> RecordedArray:
    filled = apply_elementwise("where", apply_elementwise("isnan", a), 1, a) if a.dtype.kind == "f" else a
    return FUNCTIONS[np.prod](filled, axis, dtype, **options)


@implements(np.count_nonzero)
def count_nonzero(a: RecordedArray, axis: Any = None, *, keepdims: bool = False) -> RecordedArray:
    return FUNCTIONS[np.sum](a.astype(bool), axis, keepdims=keepdims)


def _register_quantile(function: Any, skipna: bool, scale: float) -> None:
    def quantile(
        a: RecordedArray,
        q: Any,
        axis: Any = None,
        out: Any = None,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: bool = False,
        **options: Any,
    ) -> RecordedArray:
        if method != "linear":
            raise UnsupportedOperation(f"the method {method} of quantiles", "use method='linear'")
        _refuse(function, out=out, **options)
        parts = [
            reduce_array(
                np.nanmean, a, "quantile", axis, {"skipna": skipna, "q": float(p) / scale}, keepdims is True
            )
            for p in np.ravel(q)
        ]
        return parts[0] if np.ndim(q) == 0 else stack(parts)

    FUNCTIONS[function] = quantile


for _quantile, _skipna, _scale in (
    (np.quantile, False, 1.0),
    (np.nanquantile, True, 1.0),
    (np.percentile, False, 100.0),
    (np.nanpercentile, True, 100.0),
):
    _register_quantile(_quantile, _skipna, _scale)


def _register_along(function: Any, process: str, neutral: float | None) -> None:
    def accumulate(a: RecordedArray, axis: Any = None, dtype: Any = None, out: Any = None) -> RecordedArray:
        _refuse(function, out=out)
        if axis is None and a.ndim != 1:
            raise UnsupportedOperation(
                f"np.{function.__name__} over several dimensions", "give one dimension"
            )
        name = a.layout[normalize_axis_index(axis or 0, a.ndim)]
        node = cast(a.node, np.int64) if a.dtype.kind == "b" else a.node
        if neutral is not None and node.dtype.kind == "f":
            node = make_elementwise("where", make_elementwise("isnan", node), make_constant(neutral), node)
        result = dtype or function(np.ones(1, a.dtype)).dtype
        return RecordedArray(node if name is None else make_along(process, node, name, result), a.layout)

    FUNCTIONS[function] = accumulate


for _cumulative, _process, _neutral in (
    (np.cumsum, "cumsum", None),
    (np.nancumsum, "cumsum", 0.0),
    (np.cumprod, "cumproduct", None),
    (np.nancumprod, "cumproduct", 1.0),
):
    _register_along(_cumulative, _process, _neutral)


# Values


@implements(np.where)
def where(condition: Any, *branches: Any) -> RecordedArray:
    if len(branches) != 2:
        raise UnsupportedOperation("np.where without values", "use .where(condition, value)")
    return apply_elementwise("where", condition, *branches)


@implements(np.clip)
def clip(
    a: RecordedArray, a_min: Any = None, a_max: Any = None, out: Any = None, **limits: Any
) -> RecordedArray:
    _refuse(np.clip, out=out)
    least, most = limits.get("min", a_min), limits.get("max", a_max)
    if least is not None and least is not np._NoValue:
        a = apply_elementwise("maximum", a, least)
    if most is not None and most is not np._NoValue:
        a = apply_elementwise("minimum", a, most)
    return a


@implements(np.isin)
def isin(
    element: RecordedArray, test_elements: Any, assume_unique: bool = False, invert: bool = False, **_: Any
) -> RecordedArray:
    if isinstance(test_elements, RecordedArray):
        raise UnsupportedOperation("isin with values that are not computed", "compute them first")
    values = [v.item() for v in np.ravel(test_elements)]
    result = apply_elementwise("isin", element, *values)
    return apply_elementwise("logical_not", result) if invert else result


@implements(np.round)
def round_(a: RecordedArray, decimals: int = 0, out: Any = None) -> RecordedArray:
    _refuse(np.round, out=out)
    return apply_elementwise("round", a, decimals) if decimals else apply_elementwise("rint", a)


@implements(np.nan_to_num)
def nan_to_num(
    x: RecordedArray, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None
) -> RecordedArray:
    _refuse(np.nan_to_num, posinf=posinf, neginf=neginf)
    return apply_elementwise("where", apply_elementwise("isnan", x), nan, x)


@implements(np.ones_like)
def ones_like(a: RecordedArray, dtype: Any = None, **_: Any) -> RecordedArray:
    return full_like(a, 1, dtype)


@implements(np.zeros_like, np.empty_like)
def zeros_like(a: RecordedArray, dtype: Any = None, **_: Any) -> RecordedArray:
    return full_like(a, 0, dtype)


@implements(np.full_like)
def full_like(a: RecordedArray, fill_value: Any, dtype: Any = None, **_: Any) -> RecordedArray:
    """An array of one value with the pixels of another one."""
    anything = apply_elementwise("logical_or", apply_elementwise("isnan", a), True)
    value = np.asarray(fill_value, dtype or a.dtype)[()]
    return apply_elementwise("where", anything, value, value)


@implements(np.isreal)
def isreal(x: RecordedArray) -> np.ndarray:
    return np.broadcast_to(True, x.shape)


@implements(np.iscomplexobj)
def iscomplexobj(x: RecordedArray) -> bool:
    return False


# Axes


@implements(np.shape)
def shape(a: RecordedArray) -> tuple[int, ...]:
    return a.shape


@implements(np.ndim)
def ndim(a: RecordedArray) -> int:
    return a.ndim


@implements(np.size)
def size(a: RecordedArray, axis: int | None = None) -> int:
    return a.size if axis is None else a.shape[axis]


@implements(np.result_type)
def result_type(*values: Any) -> np.dtype[Any]:
    return np.result_type(*(v.dtype if isinstance(v, RecordedArray) else v for v in values))


@implements(np.transpose)
def transpose(a: RecordedArray, axes: Any = None) -> RecordedArray:
    order = range(a.ndim)[::-1] if axes is None else [k % a.ndim for k in axes]
    return RecordedArray(a.node, tuple(a.layout[k] for k in order))


@implements(np.moveaxis)
def moveaxis(a: RecordedArray, source: Any, destination: Any) -> RecordedArray:
    order = np.moveaxis(np.empty(range(2, a.ndim + 2)), source, destination).shape
    return transpose(a, [k - 2 for k in order])


@implements(np.swapaxes)
def swapaxes(a: RecordedArray, axis1: int, axis2: int) -> RecordedArray:
    order = list(range(a.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return transpose(a, order)


@implements(np.expand_dims)
def expand_dims(a: RecordedArray, axis: Any) -> RecordedArray:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    places = normalize_axis_tuple(axes, a.ndim + len(axes))
    names = iter(a.layout)
    return RecordedArray(
        a.node, tuple(None if k in places else next(names) for k in range(a.ndim + len(axes)))
    )


@implements(np.squeeze)
def squeeze(a: RecordedArray, axis: Any = None) -> RecordedArray:
    single = [k for k, n in enumerate(a.shape) if n == 1]
    axes = single if axis is None else normalize_axis_tuple(axis, a.ndim)
    node = a.node
    for k in axes:
        if a.layout[k] is not None:
            node = drop(node, a.layout[k])  # type: ignore[arg-type]
    return RecordedArray(node, tuple(name for k, name in enumerate(a.layout) if k not in axes))


@implements(np.atleast_1d)
def atleast_1d(a: RecordedArray) -> RecordedArray:
    return a if a.ndim else expand_dims(a, 0)


@implements(np.broadcast_to)
def broadcast_to(array: RecordedArray, shape: Any, subok: bool = False) -> RecordedArray:
    target = tuple(np.atleast_1d(shape))
    if target == array.shape:
        return array
    lengths = array.shape
    added = len(target) - array.ndim
    if lengths == target[added:] and all(n == 1 for n in target[:added]):
        return expand_dims(array, tuple(range(added)))
    raise UnsupportedOperation(
        "broadcasting to new labels", "calculate with the smaller array: it is broadcast by itself"
    )


@implements(np.broadcast_arrays)
def broadcast_arrays(*arrays: Any, subok: bool = False) -> list[Any]:
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    return [
        broadcast_to(a, shape) if isinstance(a, RecordedArray) else np.broadcast_to(a, shape) for a in arrays
    ]


@implements(np.reshape)
def reshape(a: RecordedArray, shape: Any = None, order: str = "C", **options: Any) -> RecordedArray:
    """Split axes into blocks; other reshapes have no meaning for cubes."""
    target = list(options.get("newshape", shape) if shape is None else shape)  # type: ignore[arg-type]
    if -1 in target:
        rest = int(np.prod([n for n in target if n != -1]))
        target[target.index(-1)] = a.size // rest
    if tuple(target) == a.shape:
        return a
    node, layout, position = a.node, [], 0
    for name, length in zip(a.layout, a.shape, strict=True):
        if position < len(target) and target[position] == length:
            layout.append(name)
            position += 1
            continue
        if name is None or position + 1 >= len(target) or target[position] * target[position + 1] != length:
            raise UnsupportedOperation(
                f"a reshape of {a.shape} to {tuple(target)}", "coarsen() is possible, stack() is not"
            )
        inner = f"block_{name}"
        node = make_blocks(node, name, inner, target[position + 1])
        layout += [name, inner]
        position += 2
    if any(n != 1 for n in target[position:]):
        raise UnsupportedOperation(
            f"a reshape of {a.shape} to {tuple(target)}", "coarsen() is possible, stack() is not"
        )
    return RecordedArray(node, (*layout, *[None] * (len(target) - position)))


@implements(np.flip)
def flip(m: RecordedArray, axis: Any = None) -> RecordedArray:
    axes = normalize_axis_tuple(range(m.ndim) if axis is None else axis, m.ndim)
    return m[tuple(slice(None, None, -1) if k in axes else slice(None) for k in range(m.ndim))]


@implements(np.take)
def take_along(a: RecordedArray, indices: Any, axis: int | None = None, **_: Any) -> RecordedArray:
    if axis is None:
        raise UnsupportedOperation("np.take without axis", "give one")
    key = [slice(None)] * a.ndim
    key[axis] = np.asarray(indices)  # type: ignore[call-overload]
    return a[tuple(key)]


@implements(np.roll)
def roll(a: RecordedArray, shift: int, axis: int | None = None) -> RecordedArray:
    if axis is None or not isinstance(shift, int):
        raise UnsupportedOperation("np.roll of several axes", "roll one")
    return take_along(a, np.roll(np.arange(a.shape[axis]), shift), axis)


@implements(np.diff)
def diff(a: RecordedArray, n: int = 1, axis: int = -1, **_: Any) -> RecordedArray:
    for _count in range(n):
        key: list[Any] = [slice(None)] * a.ndim
        key[axis] = slice(1, None)
        later = a[tuple(key)]
        key[axis] = slice(None, -1)
        a = apply_elementwise("subtract", later, a[tuple(key)])
    return a


@implements(np.gradient)
def gradient(f: RecordedArray, *spacing: Any, axis: Any = None, edge_order: int = 1) -> RecordedArray:
    """Differences of the neighbours, weighted for uneven steps."""
    if not isinstance(axis, int | np.integer) or edge_order != 1 or len(spacing) > 1:
        raise UnsupportedOperation(
            "np.gradient of several axes or of second order", "use one axis and edge_order=1"
        )
    count = f.shape[axis]
    places = np.asarray(spacing[0] if spacing else 1.0, float)
    places = np.arange(count) * places if places.ndim == 0 else places
    steps = np.diff(places)
    before, after = np.concatenate([steps[:1], steps]), np.concatenate([steps, steps[-1:]])
    coefficients = np.array([-after / before, after / before - before / after, before / after]) / (
        before + after
    )
    coefficients[:, 0] = [0, -1 / steps[0], 1 / steps[0]]
    coefficients[:, -1] = [-1 / steps[-1], 1 / steps[-1], 0]
    shape = [1] * f.ndim
    shape[axis] = count
    indices = np.arange(count)
    total: Any = 0
    for shift, factors in zip((-1, 0, 1), coefficients, strict=True):
        neighbours = take_along(f, np.clip(indices + shift, 0, count - 1), int(axis))
        total = apply_elementwise(
            "add", total, apply_elementwise("multiply", neighbours, factors.reshape(shape))
        )
    return total


# Joins


@implements(np.stack)
def stack(arrays: Sequence[Any], axis: int = 0, **_: Any) -> RecordedArray:
    """Put arrays side by side along a new axis."""
    recorded, layout = _align_parts(list(arrays))
    if all(node.key == recorded[0].key for node in recorded) and len(recorded) == 1:
        return expand_dims(RecordedArray(recorded[0], layout), axis)
    taken = {name for node in recorded for name in node.dims}
    name = next(n for n in ("group", "group1", "group2", "group3", "group4") if n not in taken)
    labels = np.array([f"{i:05d}" for i in range(len(recorded))])
    node = make_join(recorded, Axis(name, labels))
    new = next(a.name for a in node.axes if a.name not in layout)
    place = axis % (len(layout) + 1)
    return RecordedArray(node, (*layout[:place], new, *layout[place:]))


def _align_parts(arrays: list[Any]) -> tuple[list[Node], tuple[str | None, ...]]:
    from openeo_xarray.array import align

    dtype = result_type(*arrays)
    nodes, layout = align(arrays)
    return [cast(n, dtype) if n.dtype != dtype else n for n in nodes], layout


@implements(np.concatenate)
def concatenate(arrays: Sequence[Any], axis: int = 0, **_: Any) -> RecordedArray:
    """Put arrays one after the other along an axis."""
    arrays = [a for a in arrays if np.shape(a)[axis]]
    first = next(a for a in arrays if isinstance(a, RecordedArray))
    place = normalize_axis_index(axis, first.ndim)
    name = first.layout[place]
    if name is None:
        if any(np.shape(a)[place] != 1 for a in arrays):
            raise UnsupportedOperation("joining along an axis that only some arrays have", LOAD_FIRST)
        return stack(
            [squeeze(a, place) if isinstance(a, RecordedArray) else np.squeeze(a, place) for a in arrays],
            place,
        )
    if not all(isinstance(a, RecordedArray) for a in arrays):
        raise UnsupportedOperation("joining pixels of the back-end with values of the client", LOAD_FIRST)
    dtype = result_type(*arrays)
    nodes = [_prepare_part(a, place, name, dtype) for a in arrays]
    joined = _join_labels([n.dims[name] for n in nodes])
    start, parts = 0, []
    for node in nodes:
        size = len(node.dims[name])
        parts.append(relabel(node, name, joined.take(range(start, start + size))))
        start += size
    return RecordedArray(_sort_times(parts, joined), first.layout)


def _sort_times(parts: list[Node], joined: Axis) -> Node:
    return make_join(parts, joined)


def _prepare_part(array: RecordedArray, place: int, name: str, dtype: Any) -> Node:
    own = array.layout[place]
    node = cast(array.node, dtype)
    if own == name:
        return node
    if own is None:
        raise UnsupportedOperation("joining along an axis that only some arrays have", LOAD_FIRST)
    axis = node.dims[own]
    return relabel(node, own, Axis(name, axis.labels, axis.kind))


def _join_labels(axes: Sequence[Axis]) -> Axis:
    """All labels, one after the other; if some are repeated all get new ones."""
    kinds = {axis.kind for axis in axes}
    labels = np.concatenate([axis.labels for axis in axes]) if len(kinds) == 1 else np.array([])
    if len(labels) and len(np.unique(labels)) == len(labels):
        return Axis(axes[0].name, labels, axes[0].kind)
    count = sum(map(len, axes))
    return Axis(axes[0].name, np.array([f"{i:05d}" for i in range(count)]))


# Windows and products


@implements(np.pad)
def pad(array: RecordedArray, pad_width: Any, mode: Any = "constant", **options: Any) -> RecordedArray:
    if mode != "constant":
        raise UnsupportedOperation(f"padding with mode {mode!r}", "use mode='constant'")
    widths = np.broadcast_to(pad_width, (array.ndim, 2)).tolist()
    fills = options.get("constant_values", 0)
    fills = np.broadcast_to(np.asarray(fills), (array.ndim, 2)).tolist()
    padding = {}
    for name, (before, after), (fill, other) in zip(array.layout, widths, fills, strict=True):
        if before == after == 0:
            continue
        if name is None or not (fill == other or fill != fill):
            raise UnsupportedOperation("this padding", "pad dimensions of the collection with one value")
        padding[name] = Padding(before, after, fill)
    return RecordedArray(array.node, array.layout, padding)


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(x: RecordedArray, window_shape: Any, axis: Any = None, **_: Any) -> RecordedArray:
    sizes = (window_shape,) if isinstance(window_shape, int | np.integer) else tuple(window_shape)
    axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    node, added, cut = x.unpadded, [], []
    for place, size in zip(axes, sizes, strict=True):
        name = x.layout[place]
        if name is None:
            raise UnsupportedOperation("windows along an axis of length one", "drop it first")
        padding = x.padding.get(name, Padding(0, 0, np.nan))
        length = len(node.dims[name])
        node = make_windows(node, name, f"window_{name}", int(size), padding.before, padding.fill)
        added.append(f"window_{name}")
        cut.append((name, length + padding.before + padding.after - int(size) + 1, length))
    for name, count, length in cut:
        if count > length:
            raise UnsupportedOperation("windows that reach beyond the data", "use rolling()")
        node = take(node, name, range(count))
    return RecordedArray(node, (*x.layout, *added))


@implements(np.einsum)
def einsum(subscripts: str, *operands: Any, **_: Any) -> RecordedArray:
    """A sum of products, such as those of xr.dot and weighted()."""
    inputs, output = subscripts.replace(" ", "").split("->")
    letters = sorted(set(inputs) - set(",."), key=(output + inputs).index)
    if "." in inputs:
        rest = max(
            np.ndim(o) - len(t.replace("...", "")) for o, t in zip(operands, inputs.split(","), strict=True)
        )
        extra = "".join(chr(ord("A") + k) for k in range(rest))
        terms = [
            t.replace("...", extra[rest - (np.ndim(o) - len(t.replace("...", ""))) :])
            for o, t in zip(operands, inputs.split(","), strict=True)
        ]
        return einsum(f"{','.join(terms)}->{output.replace('...', extra)}", *operands)
    factors = [_spread(o, term, letters) for o, term in zip(operands, inputs.split(","), strict=True)]
    product = factors[0]
    for factor in factors[1:]:
        product = apply_elementwise("multiply", product, factor)
    over = tuple(k for k, letter in enumerate(letters) if letter not in output)
    total = FUNCTIONS[np.sum](product, over) if over else product
    kept = [letter for letter in letters if letter in output]
    return transpose(total, [kept.index(letter) for letter in output])


def _spread(operand: Any, term: str, letters: list[str]) -> Any:
    """An operand with an axis for each letter."""
    order = sorted(range(len(term)), key=lambda k: letters.index(term[k]))
    array = np.transpose(operand, order)
    absent = tuple(k for k, letter in enumerate(letters) if letter not in term)
    return np.expand_dims(array, absent) if absent else array


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> RecordedArray:
    left, right = axes if not isinstance(axes, int) else (range(np.ndim(a) - axes, np.ndim(a)), range(axes))
    names = [chr(ord("a") + k) for k in range(np.ndim(a) + np.ndim(b))]
    first, second = names[: np.ndim(a)], names[np.ndim(a) :]
    for i, j in zip(np.atleast_1d(left), np.atleast_1d(right), strict=True):
        second[j] = first[i]
    kept = [n for n in first + second if (first + second).count(n) == 1]
    return einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", a, b)
