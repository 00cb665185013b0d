"""Small arrays in cubes, eager and in chunks, and a way to compute them that refuses to do so too early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dask
import numpy as np
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES

CHUNKS = [{}, {"y": 2}, {ARRAY: 2, "x": 3}, {ARRAY: 1, "y": 1, "x": 2}]


def refuse(*_: Any, **__: Any) -> None:
    """A dask scheduler that fails the test: something was computed during evaluation."""
    raise AssertionError("dask computed during evaluation")


def run(process: str, **arguments: Any) -> Any:
    """Call a process by its id; nothing may compute."""
    with dask.config.set(scheduler=refuse):
        return PROCESSES[process].call(arguments, Environment())


def values(result: Any) -> Any:
    """The numpy values of a cube, the result itself otherwise."""
    return result.compute(scheduler="synchronous").values if isinstance(result, xr.DataArray) else result


def floats(length: int = 7, gaps: float = 0.3, dtype: Any = np.float32) -> xr.DataArray:
    """Arrays of floats with NaN here and there; one pixel has nothing else, one has no gap."""
    rng = np.random.default_rng(length)
    data = rng.normal(0, 10, (length, 4, 5)).round(1).astype(dtype)
    data[rng.random(data.shape) < gaps] = np.nan
    data[:, 0, 0] = np.nan
    data[:, 0, 1] = np.arange(length)
    return xr.DataArray(data, dims=(ARRAY, "y", "x"), coords={"y": np.arange(4.0)[::-1], "x": np.arange(5.0)})


def integers(nodata: int | None = 0, dtype: Any = np.uint16, length: int = 7) -> xr.DataArray:
    """Arrays of integers, with a no-data value that occurs."""
    rng = np.random.default_rng(length)
    data = rng.integers(0, 4, (length, 4, 5)).astype(dtype) * 7
    if nodata is not None:
        data[rng.random(data.shape) < 0.3] = nodata
        data[:, 0, 0] = nodata
    attrs = {} if nodata is None else {"nodata": nodata}
    return xr.DataArray(data, dims=(ARRAY, "y", "x"), attrs=attrs)


def assert_lazy_and_equal(
    process: str, data: xr.DataArray, check: Callable[[Any], None], **arguments: Any
) -> None:
    """Run a process on an array of a cube, eagerly and in several chunkings, and check each result."""
    for chunks in CHUNKS:
        source = data.chunk(chunks) if chunks else data
        result = run(process, data=source, **arguments)
        if chunks:
            assert result.chunks is not None, "the result is not lazy"
        check(result.compute(scheduler="synchronous"))


def labelled(mapping: Mapping[Any, Any]) -> LabeledArray:
    """A JSON array with labels."""
    return LabeledArray(list(mapping), list(mapping.values()))
