"""Outlines of datasets as GeoJSON has them: in degrees, cut at the antimeridian."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import shapely
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from odc_openeo.catalog.scenes import DEFAULT_GRID
from odc_openeo.spatial.globe import cut_at_antimeridian, locate_grid, locate_shape

_log = logging.getLogger(__name__)

DIGITS: Final = 7
"""Decimal places of degrees: about a centimetre."""


def find_outline(document: Mapping[str, Any]) -> BaseGeometry | None:
    """Find the outline in an EO3 document, else that of its default grid; None if it has neither, or if the
    document is damaged."""
    try:
        located = locate_document(document)
    except (
        Exception
    ):  # GEOS, pyproj and odc-geo raise several kinds of errors for what they do not understand
        _log.warning("dataset %s has no valid outline", document.get("id"), exc_info=True)
        return None
    if located is None or located.is_empty:
        return None
    return shapely.transform(cut_at_antimeridian(located), lambda points: np.round(points, DIGITS))


def locate_document(document: Mapping[str, Any]) -> BaseGeometry | None:
    """Locate the outline in an EO3 document, else that of its default grid, in degrees with continuous
    longitudes; None if it has neither."""
    code = document.get("crs")
    if not code:
        return None
    if document.get("geometry"):
        located = locate_shape(shapely.geometry.shape(document["geometry"]), CRS(code))
        if not located.is_empty:
            return located
    if DEFAULT_GRID not in (document.get("grids") or {}):
        return None
    grid = document["grids"][DEFAULT_GRID]
    return locate_grid(GeoBox(tuple(grid["shape"]), Affine(*grid["transform"][:6]), CRS(code)))
