"""Means and sums of many groups along a dimension at once (flox): no call of the reducer for each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.processes.children import restored, without_dimension

FEWEST: Final = 24
"""From so many groups on it pays: building the task graph of one call of a reducer takes some 10 ms."""

_OPTIONS: Final[dict[str, dict[str, Any]]] = {"mean": {}, "sum": {"min_count": 1}}


def single_process(reducer: Callable[..., Any]) -> str | None:
    """The id of the process that a reducer consists of, None if it is anything but ``process(data=data)``."""
    nodes = getattr(getattr(reducer, "graph", None), "nodes", {})
    if len(nodes) != 1:
        return None
    (node,) = nodes.values()
    plain = dict(node.arguments) == {"data": {"from_parameter": "data"}}
    return str(node.process_id) if plain and node.definition is None else None


def grouped(
    data: xr.DataArray, dimension: str, numbers: np.ndarray, count: int, reducer: Callable[..., Any]
) -> xr.DataArray | None:
    """The reduced groups, numbered 0 to ``count`` - 1 along the dimension; None if the reducer must be
    called.

    ``numbers`` says in which group each position along the dimension is. Groups without any are no-data.
    Calculates in float64 and returns the float type of the decoded cube, as the reducers themselves do.
    """
    name = single_process(reducer)
    if name not in _OPTIONS or np.unique(numbers).size < FEWEST:
        return None
    decoded = cube.decode(data)
    lost = [n for n, c in decoded.coords.items() if dimension in c.dims]
    key = xr.DataArray(numbers, dims=dimension, name="__group__")
    groups = decoded.drop_vars(lost).astype(np.float64).groupby(key)
    reduced = getattr(groups, name)(dimension, skipna=True, **_OPTIONS[name])
    complete = reduced.reindex({"__group__": np.arange(count)}).rename({"__group__": dimension})
    complete = complete.astype(decoded.dtype).transpose(*data.dims).drop_vars(dimension)
    return restored(complete, without_dimension(data, dimension))
