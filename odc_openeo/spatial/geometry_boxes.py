"""Bounding boxes of geometries, for the rules that say which data a process needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from odc_openeo.errors import OpenEOError
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.boxes import Box

CELLS: Final = 16
"""Number of cells across and down; geometries in the same cell share a box."""


def find_boxes_around(geometries: Any) -> tuple[Box, ...] | None:
    """Boxes around the geometries of a GeoJSON object, one per group of neighbours.

    None if the geometries are not known yet or invalid.
    """
    if not isinstance(geometries, Mapping):
        return None
    try:
        frame = vector_cubes.read_geometries(geometries, "filter_spatial", "geometries")
    except OpenEOError:
        # The process itself will report the error.
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
        for west, south, east, north in _group_bounds(bounds.to_numpy())
    )


def _group_bounds(bounds: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Join bounds (n, west south east north) whose centres are in the same cell."""
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    first, size = centres.min(axis=0), np.ptp(centres, axis=0)
    cells = np.floor((centres - first) / np.where(size > 0, size, 1) * CELLS).clip(0, CELLS - 1)
    _, group = np.unique(cells, axis=0, return_inverse=True)
    members = [bounds[group.ravel() == number] for number in range(int(group.max()) + 1)]
    return [(*part[:, :2].min(axis=0).tolist(), *part[:, 2:].max(axis=0).tolist()) for part in members]
