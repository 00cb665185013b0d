"""Functions that are given to `xarray.apply_ufunc`, and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view

WEIGHTS = [0.25, 0.5, 0.25]
FACTOR = 2.5
LOOKUP = {"a": np.ones(3)}


def smooth(values: np.ndarray) -> np.ndarray:
    """Weighted means of three values along the last axis."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 1)], mode="edge")
    return sliding_window_view(padded, 3, axis=-1) @ np.array(WEIGHTS)


def convolve(series: np.ndarray, width: int) -> np.ndarray:
    """A moving sum of a series."""
    return np.convolve(series, np.ones(width), mode="same")


def fit_slope(series: np.ndarray) -> float:
    """The slope of a straight line."""
    return float(np.polyfit(np.arange(series.size), np.nan_to_num(series), 1)[0])


def find_spread(values: np.ndarray) -> np.ndarray:
    return scale(np.ptp(np.sort(values, axis=-1), axis=-1))


def scale(values: np.ndarray) -> np.ndarray:
    return values * FACTOR * math.pi


def digitize(values: np.ndarray, edge: float, bins: Any = ()) -> np.ndarray:
    return np.digitize(values, [edge, *bins]).astype(float)


def use_array(values: np.ndarray) -> np.ndarray:
    return np.sort(values) * LOOKUP["a"][0]


def apply(
    function: Callable[..., Any], *arrays: Any, dim: str | None = "time", keeps: bool = True, **options: Any
) -> Any:
    """Apply a function along a dimension, lazily."""
    core = [] if dim is None else [dim]
    inputs = [core if isinstance(array, xr.DataArray) else [] for array in arrays]
    outputs = [core if keeps else []]
    return xr.apply_ufunc(
        function, *arrays, input_core_dims=inputs, output_core_dims=outputs, dask="parallelized", **options
    )


FUNCTIONS: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "along a dimension": lambda ds: apply(smooth, ds.red),
    "of each series": lambda ds: apply(convolve, ds.red, vectorize=True, kwargs={"width": 3}),
    "one value of each series": lambda ds: apply(fit_slope, ds.nir, vectorize=True, keeps=False),
    "with other functions and constants": lambda ds: apply(find_spread, ds.red - ds.nir, keeps=False),
    "of each value": lambda ds: apply(digitize, ds.red, 0.1, dim=None, kwargs={"bins": [0.2, 0.3]}),
    "and further operations": lambda ds: apply(smooth, ds.red).mean("time") * 2 + ds.nir.max("time"),
}
