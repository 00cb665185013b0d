"""Trim cubes to the times that are needed, so that cubes that are combined keep the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from odc_openeo.cube import T, as_slice
from odc_openeo.cube.instants import find_instants, mask_within
from odc_openeo.registry.demand import Demand, is_comparable


def trim_to_interval(value: Any, demand: Demand) -> Any:
    """Trim a cube to the demanded interval; whatever is not a cube, or has nothing in it, stays as it is.

    Loads narrow to it where they can, other processes do not. A process that compares the times of two cubes
    must not see more of one than of the other.
    """
    interval = demand.interval
    if interval is None or not is_comparable(interval) or not isinstance(value, xr.DataArray):
        return value
    times = find_instants(value.coords[T]) if T in value.dims and T in value.coords else None
    if times is None:
        return value
    start, end = (None if text is None else np.datetime64(text.rstrip("Z"), "us") for text in interval)
    positions = np.flatnonzero(mask_within(times, start, end))
    if positions.size in (0, value.sizes[T]):
        return value
    return value.isel({T: as_slice(positions)})
