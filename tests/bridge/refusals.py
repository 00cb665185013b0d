"""Operations that have no processes, and what the errors call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Refused:
    """An operation, and words of its error."""

    code: str
    operation: str
    function: Callable[[xr.Dataset], Any]


REFUSED: list[Refused] = []


def refused(operation: str, **functions: Callable[[xr.Dataset], Any]) -> None:
    """Register operations whose error names them so."""
    for code, function in functions.items():
        REFUSED.append(Refused(code, operation, function))


def choose(ds: xr.Dataset) -> xr.DataArray:
    """A branch in Python that depends on pixels."""
    if (ds.red > 0).any():
        return ds.red
    return ds.nir


refused("truth value", branch=choose)
refused("truth value", bool_of_pixel=lambda ds: bool(ds.red[0, 0, 0] > 0))
refused("polyfit", polyfit=lambda ds: ds.red.polyfit("time", 1))
refused(
    "apply_ufunc of smooth",
    own_function=lambda ds: xr.apply_ufunc(
        smooth, ds.red, input_core_dims=[["time"]], output_core_dims=[["time"]], dask="parallelized"
    ),
)
refused("reshape", stack=lambda ds: ds.red.stack(pixel=("y", "x")))
refused("np.sort", sort_values=lambda ds: np.sort(ds.red.data, axis=0))
refused("argsort", argsort=lambda ds: ds.red.argsort(0))
refused("np.unique", unique=lambda ds: np.unique(ds.scl.data))
refused("np.histogram", histogram=lambda ds: np.histogram(ds.red.data))
refused("np.digitize", digitize=lambda ds: xr.apply_ufunc(np.digitize, ds.red, [0.1, 0.2], dask="allowed"))
refused("np.svd", svd=lambda ds: np.linalg.svd(ds.red.data))
refused("np.fft", fft=lambda ds: np.fft.fft(ds.red.data, axis=0))
refused("scattered labels", scattered_columns=lambda ds: ds.red.isel(x=[0, 3, 4]))
refused("assigning", assignment=lambda ds: ds.red.__setitem__({"time": 0}, 0))
refused("bitwise_and of integers", bits=lambda ds: ds.scl.fillna(0).astype("uint8") & 4)
refused("method lower", quantile_method=lambda ds: ds.red.quantile(0.5, "time", method="lower"))
refused("reducer median", median_filter=lambda ds: ds.red.rolling(x=3, y=3, center=True).median())
refused("argmax over several", argmax_of_all=lambda ds: ds.red.argmax())
refused("not computed", boolean_pixels=lambda ds: ds.red.data[ds.red.data > 0])
refused("padding with mode", reflected=lambda ds: ds.red.pad(time=1, mode="reflect"))
refused("another order", reversed_cumsum=lambda ds: ds.red.isel(time=slice(None, None, -1)).cumsum("time"))
refused("another order", reversed_argmax=lambda ds: ds.red.isel(time=slice(None, None, -1)).argmax("time"))
refused("another order", sorted_rows=lambda ds: ds.red.sortby("y").diff("y"))
refused("complex", complex_numbers=lambda ds: ds.red.astype(complex))
refused("persist", persist=lambda ds: ds.persist())
refused("implicit conversion", numpy_of_data=lambda ds: np.asarray(ds.red.data))
refused("interp with method", cubic=lambda ds: ds.red.interp(time=ds.time[:2], method="cubic"))


def smooth(values: np.ndarray) -> np.ndarray:
    return np.convolve(np.asarray(values), [0.5, 0.5])
