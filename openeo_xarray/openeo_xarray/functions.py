"""Functions that xarray applies along core dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from openeo_xarray.array import RecordedArray, apply_elementwise
from openeo_xarray.build import make_along, relabel
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import Axis
from openeo_xarray.options import OPTIONS
from openeo_xarray.user_functions import record_user_function


def apply_function(
    function: Callable[..., Any], signature: str, arguments: Sequence[Any], options: dict[str, Any]
) -> Any:
    """Record a function of NumPy operations by calling it with recorded arrays."""
    name = getattr(function, "__name__", None) or getattr(
        getattr(function, "func", None), "__name__", "a function"
    )
    special = SPECIAL.get(str(name))
    if special is not None:
        return special(function, arguments)
    try:
        if options.get("vectorize"):
            raise UnsupportedOperation(
                "vectorize=True", "the function would have to be called for each pixel"
            )
        result = function(*arguments)
    except UnsupportedOperation as error:
        if OPTIONS["user_functions"]:
            return record_user_function(function, signature, arguments, options)
        raise UnsupportedOperation(
            f"apply_ufunc of {name} ({error.operation})",
            "use NumPy functions that are in the table of operations, .load() first, or send the function to "
            "the back-end: openeo_xarray.set_options(user_functions=True)",
        ) from error
    if not isinstance(result, RecordedArray | tuple):
        raise UnsupportedOperation(f"apply_ufunc of {name}", "it gives no recorded array; .load() first")
    return result


def interpolate_at(function: Any, arguments: Sequence[Any]) -> RecordedArray:
    """Interpolate along the last axis at new coordinates: xarray's `interp`."""
    options = {**getattr(function, "keywords", {})}
    method = options.get("interp_kwargs", {}).get("method", "linear")
    if len(arguments) != 3 or method not in ("linear", "nearest"):
        raise UnsupportedOperation(
            f"interp with method {method!r}", "use 'linear' or 'nearest' along one dimension"
        )
    data, old, new = arguments
    targets = np.ravel(np.asarray(new))
    places, positions = _to_numbers(np.asarray(old), targets)
    right = np.clip(np.searchsorted(places, positions, side="left"), 1, len(places) - 1)
    left = right - 1
    weight = (positions - places[left]) / (places[right] - places[left])
    weight = np.where((positions < places[0]) | (positions > places[-1]), np.nan, weight)
    if method == "nearest":
        weight = np.where(np.isnan(weight), np.nan, np.ceil(weight - 0.5))
    result = _mix(data, left, right, weight)
    name = result.layout[-1]
    if name is not None and targets.dtype.kind == "M" and len(np.unique(targets)) == len(targets):
        axis = Axis(name, targets.astype("datetime64[ns]"), "time")
        result = RecordedArray(relabel(result.node, name, axis), result.layout)
    return result[..., 0] if np.ndim(new) == 0 else result


def _mix(data: RecordedArray, left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> RecordedArray:
    """Weighted neighbours. One whose weight is 0 takes no part, even if it has no data."""
    before, after = data[..., left], data[..., right]
    mixed = apply_elementwise(
        "add",
        apply_elementwise("multiply", before, 1 - weight),
        apply_elementwise("multiply", after, weight),
    )
    if not np.isin(weight, (0, 1)).any():
        return mixed
    return apply_elementwise(
        "where", weight == 0, before, apply_elementwise("where", weight == 1, after, mixed)
    )


def _to_numbers(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if old.dtype.kind != "M":
        return old.astype(float), new.astype(float)
    start = old.min()
    unit = np.timedelta64(1, "ms")
    return (old - start) / unit, (new.astype(old.dtype) - start) / unit


def interpolate_gaps(function: Any, arguments: Sequence[Any]) -> RecordedArray:
    """Fill gaps along the last axis from the values around: xarray's `interpolate_na`."""
    method = getattr(function, "keywords", {}).get("method", "linear")
    data, index = arguments
    name = data.layout[-1]
    axis = data.node.dims.get(name)
    if method != "linear" or axis is None or axis.kind != "time":
        raise UnsupportedOperation(f"interpolate_na with method {method!r}", "use 'linear' along time")
    times = (axis.labels - axis.labels[0]) / np.timedelta64(1, "ns")
    steps = np.asarray(index, float) - float(index[0])
    if not np.allclose(steps / steps[-1], times / times[-1], rtol=0, atol=1e-6):
        raise UnsupportedOperation("interpolate_na without the coordinate of time", "use use_coordinate=True")
    return RecordedArray(make_along("array_interpolate_linear", data.node, name), data.layout)


SPECIAL: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "_interpnd": interpolate_at,
    "func_interpolate_na": interpolate_gaps,
}
"""Functions of xarray that do not consist of NumPy operations."""
