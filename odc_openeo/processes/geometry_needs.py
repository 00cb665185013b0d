"""Where geometries are, for rules of what processes need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from odc_openeo import geometry
from odc_openeo.demand import Box
from odc_openeo.errors import OpenEOError

CELLS: Final = 16
"""Geometries are taken together that are in the same of so many cells across and down."""


def boxes_around(geometries: Any) -> tuple[Box, ...] | None:
    """Boxes around the geometries of a GeoJSON object, neighbours together; None if they are not known or
    wrong."""
    if not isinstance(geometries, Mapping):
        return None
    try:
        frame = geometry.read(geometries, "filter_spatial", "geometries")
    except OpenEOError:
        # The process itself will say what is wrong.
        return None
    bounds = frame.bounds.dropna()
    if bounds.empty or not np.isfinite(bounds.to_numpy()).all():
        return None
    code = frame.crs.to_epsg()
    crs = frame.crs.to_wkt() if code is None else code
    # Points have no extent.
    rim = 1e-5 if frame.crs.is_geographic else 1.0
    return tuple(
        Box(west - rim, south - rim, east + rim, north + rim, crs)
        for west, south, east, north in _together(bounds.to_numpy())
    )


def _together(bounds: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Bounds (n, west south east north) as one for each cell that any of them has its centre in."""
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    first, size = centres.min(axis=0), np.ptp(centres, axis=0)
    cells = np.floor((centres - first) / np.where(size > 0, size, 1) * CELLS).clip(0, CELLS - 1)
    _, group = np.unique(cells, axis=0, return_inverse=True)
    members = [bounds[group.ravel() == number] for number in range(int(group.max()) + 1)]
    return [(*each[:, :2].min(axis=0).tolist(), *each[:, 2:].max(axis=0).tolist()) for each in members]
