"""Where geometries are, for rules of what processes need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from odc_openeo import geometry
from odc_openeo.demand import Box
from odc_openeo.errors import OpenEOError


def box_around(geometries: Any) -> tuple[Box, ...] | None:
    """The box around all geometries of a GeoJSON object; None if they are not known or wrong."""
    if not isinstance(geometries, Mapping):
        return None
    try:
        frame = geometry.read(geometries, "filter_spatial", "geometries")
    except OpenEOError:
        # The process itself will say what is wrong.
        return None
    west, south, east, north = frame.total_bounds
    if not np.isfinite([west, south, east, north]).all():
        return None
    # Points have no extent.
    rim = 1e-5 if frame.crs.is_geographic else 1.0
    code = frame.crs.to_epsg()
    crs = frame.crs.to_wkt() if code is None else code
    return (Box(float(west - rim), float(south - rim), float(east + rim), float(north + rim), crs),)
