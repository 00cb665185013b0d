"""Join the values of parts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from odc_openeo.parts.model import JobSplit


def combine_parts(split: JobSplit, values: Sequence[Any]) -> Any:
    """Join the values of all parts of a job, in the order of their numbers, to the value of the whole."""
    if len(values) != len(split.parts):
        raise ValueError(f"{len(values)} values for {len(split.parts)} parts")
    if split.is_whole:
        return values[0]
    joined = [value.assign_coords({}) for value in values]
    return xr.combine_by_coords(joined)
