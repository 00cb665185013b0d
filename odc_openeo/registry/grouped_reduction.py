"""Means and sums of many groups along a dimension at once (flox), without one reducer call per group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.registry.child_results import drop_dimensions, restore_coordinates

FEWEST: Final = 24
"""Number of groups from which on this pays: the task graph of one reducer call takes about 10 ms to build."""

_OPTIONS: Final[dict[str, dict[str, Any]]] = {"mean": {}, "sum": {"min_count": 1}}


def find_single_process(reducer: Callable[..., Any]) -> str | None:
    """Find the id of the only process of a reducer; None unless it is just ``process(data=data)``."""
    nodes = getattr(getattr(reducer, "graph", None), "nodes", {})
    if len(nodes) != 1:
        return None
    (node,) = nodes.values()
    plain = dict(node.arguments) == {"data": {"from_parameter": "data"}}
    return str(node.process_id) if plain and node.definition is None else None


def reduce_groups(
    data: xr.DataArray, dimension: str, numbers: np.ndarray, count: int, reducer: Callable[..., Any]
) -> xr.DataArray | None:
    """Reduce groups, numbered 0 to ``count`` - 1 along the dimension; None if the reducer must be called.

    ``numbers`` is the group of each position along the dimension. Empty groups are no-data.
    Calculates in float64 and returns the float type of the decoded cube, as the reducers themselves do.
    """
    name = find_single_process(reducer)
    if name not in _OPTIONS or np.unique(numbers).size < FEWEST:
        return None
    decoded = cube.decode(data)
    lost = [n for n, c in decoded.coords.items() if dimension in c.dims]
    key = xr.DataArray(numbers, dims=dimension, name="__group__")
    groups = decoded.drop_vars(lost).astype(np.float64).groupby(key)
    reduced = getattr(groups, name)(dimension, skipna=True, **_OPTIONS[name])
    complete = reduced.reindex({"__group__": np.arange(count)}).rename({"__group__": dimension})
    complete = complete.astype(decoded.dtype).transpose(*data.dims).drop_vars(dimension)
    return restore_coordinates(complete, drop_dimensions(data, dimension))
