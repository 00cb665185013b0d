"""Outlines of datasets as GeoJSON has them: in degrees, cut at the antimeridian."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import antimeridian
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from odc_openeo.catalog.scenes import DEFAULT_GRID

DIGITS: Final = 7
"""Decimal places of degrees: about a centimetre."""

PIECES: Final = 4
"""Segments per long edge: straight lines in the reference system of the data are curved in degrees."""


def find_outline(document: Mapping[str, Any]) -> BaseGeometry | None:
    """Find the outline in an EO3 document, else that of its default grid; None if it has neither."""
    code = document.get("crs")
    if not code:
        return None
    if document.get("geometry"):
        shape = shapely.force_2d(shapely.geometry.shape(document["geometry"]))
    elif DEFAULT_GRID in (document.get("grids") or {}):
        grid = document["grids"][DEFAULT_GRID]
        shape = GeoBox(tuple(grid["shape"]), Affine(*grid["transform"][:6]), CRS(code)).extent.geom
    else:
        return None
    return _to_degrees(shape, code)


def compute_bbox(shape: BaseGeometry) -> list[float]:
    """Compute west, south, east, north; west > east if it crosses the antimeridian."""
    west, south, east, north = shape.bounds
    if (west, east) == (-180, 180) and shape.geom_type == "MultiPolygon":
        parts = [part.bounds for part in shapely.get_parts(shape)]
        beyond = [p for p in parts if p[0] == -180 and p[2] < 180]
        before = [p for p in parts if p[2] == 180 and p[0] > -180]
        if len(beyond) + len(before) == len(parts):
            west, east = min(p[0] for p in before), max(p[2] for p in beyond)
    return [west, south, east, north]


def _to_degrees(native: BaseGeometry, code: str) -> BaseGeometry:
    transformer = _find_transformer(code)
    if transformer is None:
        shape, crosses = native, bool(native.bounds[0] < -180 or native.bounds[2] > 180)
    else:
        west, south, east, north = native.bounds
        finer = shapely.segmentize(native, max(east - west, north - south, 1e-9) / PIECES)
        shape = shapely.transform(finer, lambda points: _transform_points(transformer, points))
        crosses = _crosses_antimeridian(shape)
    if crosses:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = shapely.geometry.shape(antimeridian.fix_shape(shape, great_circle=False))
    return shapely.transform(shape, lambda points: np.round(points, DIGITS))


@lru_cache(maxsize=256)
def _find_transformer(code: str) -> Transformer | None:
    """Find the transformation from a reference system to degrees; None if it is in degrees."""
    crs = CRS(code)
    return None if crs.epsg == 4326 else Transformer.from_crs(crs.proj, 4326, always_xy=True)


def _transform_points(transformer: Transformer, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))


def _crosses_antimeridian(shape: BaseGeometry) -> bool:
    """Return whether neighbouring points lie on different sides of the antimeridian."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    return any(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max() > 180 for ring in rings)
