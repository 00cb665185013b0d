"""Join the values of parts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.parts.model import JobSplit
from odc_openeo.parts.stages import combine_statistics


def combine_parts(split: JobSplit, values: Sequence[Any]) -> Any:
    """Join the values of all parts of a job, in the order of their numbers, to the value of the whole.

    Raises:
        ValueError: there are not as many values as parts.
    """
    if len(values) != len(split.parts):
        raise ValueError(f"{len(values)} values for {len(split.parts)} parts")
    if split.is_whole:
        return values[0]
    if split.stage is not None:
        return combine_statistics(split.stage, values)
    joined = _Mosaic(split, values)
    return joined.join_parts()


class _Mosaic:
    """Parts that lie beside each other, along one or several dimensions."""

    def __init__(self, split: JobSplit, values: Sequence[xr.DataArray]) -> None:
        self.split, self.values = split, values

    def join_parts(self) -> xr.DataArray:
        """Join the parts along one dimension after the other."""
        rows, columns = self.split.template.spatial_dims or (cube.Y, cube.X)
        placed = [
            (
                {
                    cube.GEOMETRY: part.geometries,
                    self.split.template.time_dimension: part.times,
                    rows: None if part.window is None else part.window.rows,
                    columns: None if part.window is None else part.window.columns,
                },
                value,
            )
            for part, value in zip(self.split.parts, self.values, strict=True)
        ]
        for dimension in (columns, rows, self.split.template.time_dimension, cube.GEOMETRY):
            placed = self._join_along(placed, dimension)
        ((_, whole),) = placed
        return whole

    @staticmethod
    def _join_along(placed: list[Any], dimension: str | None) -> list[Any]:
        groups: dict[Any, list[Any]] = {}
        for place, value in placed:
            key = tuple((name, span) for name, span in place.items() if name != dimension)
            groups.setdefault(key, []).append((place[dimension], value))
        return [(dict(key), _concatenate(members, dimension)) for key, members in groups.items()]


def _concatenate(members: list[Any], dimension: str | None) -> xr.DataArray:
    if len(members) == 1:
        return members[0][1]
    ordered = [value for _, value in sorted(members, key=lambda member: member[0])]
    first = ordered[0]
    axis = first.dims.index(dimension)
    values = np.concatenate([value.values for value in ordered], axis=axis)
    along = {
        name: xr.Variable(
            coord.dims,
            np.concatenate([v.coords[name].values for v in ordered], axis=coord.dims.index(dimension)),
            coord.attrs,
        )
        for name, coord in first.coords.items()
        if dimension in coord.dims
    }
    across = {name: coord.variable for name, coord in first.coords.items() if dimension not in coord.dims}
    return xr.DataArray(
        values, dims=first.dims, coords={**across, **along}, attrs=first.attrs, name=first.name
    )
