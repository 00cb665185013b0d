"""Turn cubes in degrees to other longitudes: 350 degrees east are 10 degrees west."""

from __future__ import annotations

from typing import cast

import numpy as np
from odc.geo.geom import Geometry

from odc_openeo import cube
from odc_openeo.cube import X
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.spatial.align import C, find_resolution, update_transform
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import CIRCLE, REGULAR, list_turns, locate

_SLACK = 1e-6


def turn_cube_to(data: C, area: Geometry, process: str, parameter: str) -> C:
    """Count the longitudes of a cube in degrees as an area does, and put its columns in that order.

    Columns outside of the area are left out where the cube has to be cut and put together anew. Other cubes
    are returned as they are.

    Raises:
        ProcessParameterInvalid: the columns in the area are not one regular grid.
    """
    crs, step = data.odc.crs, find_resolution(data, X)
    if crs is None or not has_degrees(str(crs)) or not step or not data.sizes[X]:
        return data
    located = locate(area)
    if located.is_empty:
        return data
    west, _, east, _ = located.bounds
    return turn_columns(data, west, east, step, process, parameter)


def turn_columns(data: C, west: float, east: float, step: float, process: str, parameter: str) -> C:
    """Count the longitudes of a cube so that they are between ``west`` and ``east``: see `turn_cube_to`."""
    labels = data[X].values
    low, high = float(labels.min()), float(labels.max())
    slack = abs(step) * _SLACK
    if east - west >= CIRCLE:
        if west - slack <= low and high <= east + slack:
            return data
        east = west + CIRCLE
    turns = list_turns(low - abs(step) / 2, high + abs(step) / 2, west, east)
    pieces = [(turn, _find_columns(labels + turn, west - slack, east + slack)) for turn in sorted(turns)]
    pieces = [(turn, columns) for turn, columns in pieces if columns.size]
    if not pieces or [turn for turn, _ in pieces] == [0.0]:
        return data
    if len(pieces) == 1:
        return _relabel(data, np.arange(labels.size), labels + pieces[0][0])
    ordered = pieces if step > 0 else pieces[::-1]
    columns = np.concatenate([columns for _, columns in ordered])
    turned = np.concatenate([labels[columns] + turn for turn, columns in ordered])
    _, first = np.unique(columns, return_index=True)
    once = np.sort(first)
    columns, turned = columns[once], turned[once]
    if np.abs(np.diff(turned) / step - 1).max() > REGULAR:
        reason = (
            f"the pixels between longitude {west:g} and {east:g} are at both ends of the cube, which has "
            f"longitudes from {low:g} to {high:g}; together they are not one regular grid. Take the parts on "
            "each side one by one."
        )
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return _relabel(data, columns, turned[0] + np.arange(turned.size) * step)


def _find_columns(labels: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.flatnonzero((labels >= low) & (labels <= high))


def _relabel(data: C, columns: np.ndarray, labels: np.ndarray) -> C:
    selected = data.isel({X: cube.as_slice(columns)})
    return update_transform(cast(C, selected.assign_coords({X: (X, labels, data[X].attrs)})))
