"""Project geometries to the reference system of a grid, on the side of the Earth where the grid has them.

Edges are straight lines in the original reference system, so points are added to them until they deviate
from their curves by less than a ten-thousandth of a pixel: whether a centre is inside depends on it.
Longitudes count modulo 360.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry
from shapely.geometry.base import BaseGeometry

from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import (
    CIRCLE,
    drop_far,
    get_projection,
    list_turns,
    locate_grid,
    locate_shape,
    turn_shape,
)

_EARTH_RADIUS: Final = 6_371_000.0
_DEVIATION: Final = 1e-4
"""Pixels by which edges may deviate from their curves."""
_MAX_PIECES: Final = 20_000
_EDGE: Final = 3_000.0
"""Length in metres of an edge that stays straight to within a metre in any other CRS."""
_SEAM: Final = 1e-9
"""Degrees left out beside the meridian along which a map is cut: rounding may move them to the other side."""

_LOCAL: Final = 30.0
"""Degrees of longitude that maps of a zone can show."""
_FARTHEST: Final = 3600.0
"""Degrees beyond all longitudes that occur."""

Window = tuple[float, float]
"""A range of longitudes."""


def project_to_grid(frame: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    """Project geometries to the CRS of a grid: an array of shapely geometries in the frame's order.

    They are cut to the surroundings of the grid, and where the map is cut: a geometry across that meridian
    has parts on both sides.
    """
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    if frame.crs is None:
        return shapes
    source = CRS(frame.crs)
    if _is_same(source, grid.crs) and not source.geographic:
        return shapes
    shapes, source = _place_beside_grid(shapes, source, grid)
    if _is_same(source, grid.crs):
        return shapes
    return _reproject_shapes(_cut_to_grid(shapes, source, grid, 0.1), source, grid)


def project_near(area: Geometry, grid: GeoBox) -> BaseGeometry:
    """Project an area to the CRS of a grid, cut to the surroundings of the grid: `project_to_grid`."""
    frame = gpd.GeoDataFrame(geometry=[area.geom], crs=area.crs.to_wkt())
    projected: BaseGeometry = project_to_grid(frame, grid)[0]
    return projected


def project_bounds(shapes: np.ndarray, source: Any, grid: GeoBox) -> np.ndarray:
    """West, south, east and north of each geometry in the CRS of a grid, ``(n, 4)``; NaN for empty ones.

    They do not depend on how much of a geometry the grid covers, unless the geometry reaches beyond the area
    in which the CRS is defined: then only the part near the grid counts. Longitudes are those of the grid;
    what crosses the meridian where the grid or its map is cut goes from one side to the other.
    """
    if source is None:
        return shapely.bounds(shapes)
    source = CRS(source)
    if _is_same(source, grid.crs) and not source.geographic:
        return shapely.bounds(shapes)
    shapes, source = _place_beside_grid(shapes, source, grid)
    if _is_same(source, grid.crs):
        return shapely.bounds(shapes)
    return _bound_projected(shapes, source, grid)


def project_sides(area: Geometry, grid: GeoBox) -> list[tuple[float, float, float, float]]:
    """The bounds of an area in the CRS of a grid; of each side if the area crosses where the map is cut."""
    if _is_same(area.crs, grid.crs):
        return [area.geom.bounds]
    window = _find_window(grid)
    if window is None:
        bounds = [project_bounds(np.array([area.geom]), area.crs, grid)[0]]
    else:
        degrees = locate_shape(_densify(np.array([area.geom]), area.crs, grid)[0], area.crs)
        sides = np.array(list(_list_sides(degrees, window)), dtype=object)
        bounds = list(_bound_projected(sides, CRS(4326), grid)) if len(sides) else []
    finite = [b.tolist() for b in bounds if np.isfinite(b).all()]
    return [(west, south, east, north) for west, south, east, north in finite]


def _list_sides(shape: BaseGeometry, window: Window) -> Iterator[BaseGeometry]:
    """The parts of a shape on both sides of the ends of a range of longitudes, turned into it."""
    if shape.is_empty:
        return
    low, _, high, _ = shape.bounds
    for turn in sorted(list_turns(low, high, *window)):
        yield turn_shape(
            shapely.intersection(shape, shapely.box(window[0] - turn, -91, window[1] - turn, 91)), *window
        )


def project_outline(box: BoundingBox, crs: CRS) -> Geometry:
    """Project a box to another CRS; its edges follow their curves there to within metres."""
    step = _EDGE / get_projection(box.crs).metres
    step = max(step, box.span_x / _MAX_PIECES, box.span_y / _MAX_PIECES)
    return box.polygon.to_crs(crs, resolution=step)


# --- Which way longitudes are counted ------------------------------------------------------------


def _is_same(one: CRS, other: CRS) -> bool:
    return bool(one == other) or _are_equal(one, other)


@lru_cache(maxsize=256)
def _are_equal(one: CRS, other: CRS) -> bool:
    systems = [pyproj.CRS.from_user_input(crs.to_wkt()) for crs in (one, other)]
    return bool(systems[0].equals(systems[1], ignore_axis_order=True))


def _find_window(grid: GeoBox) -> Window | None:
    """The longitudes between which a grid, or the map that it is on, is not cut; None if there is no cut."""
    projection = get_projection(grid.crs)
    left, _, right, _ = grid.boundingbox.bbox
    if projection.is_geographic:
        middle = (left + right) / 2
        return (min(left, middle - 180), max(right, middle + 180)) if has_degrees(str(grid.crs)) else None
    if not projection.width or projection.middle is None:
        return None
    middle = projection.middle
    if projection.period:
        middle += ((left + right) / 2 - projection.centre[0]) / projection.period * CIRCLE
        # A map of the world is not cut a little beside its edge because of rounding.
        middle = projection.middle if abs(middle - projection.middle) < 1e-3 else middle
    return middle - 180 + _SEAM, middle + 180 - _SEAM


def _place_beside_grid(shapes: np.ndarray, source: CRS, grid: GeoBox) -> tuple[np.ndarray, CRS]:
    """Turn shapes to the longitudes of a grid and cut them where it is cut; the CRS that they are then in."""
    window = _find_window(grid)
    if window is None:
        return shapes, source
    if not has_degrees(str(source)):
        shapes = _locate_all(_densify(shapes, source, grid), source)
        source = CRS(4326)
    west, _, east, _ = shapely.bounds(shapes).T
    outside = ~((west >= window[0]) & (east <= window[1])) & ~shapely.is_empty(shapes)
    if outside.any():
        shapes = shapes.copy()
        shapes[outside] = [turn_shape(shape, *window) for shape in shapes[outside]]
    return shapes, source


def _locate_all(shapes: np.ndarray, source: CRS) -> np.ndarray:
    located = np.empty(len(shapes), dtype=object)
    located[:] = [locate_shape(shape, source) for shape in shapes]
    return located


# --- Projection ----------------------------------------------------------------------------------


def _bound_projected(shapes: np.ndarray, source: CRS, grid: GeoBox) -> np.ndarray:
    bounds = shapely.bounds(_reproject_shapes(shapes, source, grid)).reshape(-1, 4)
    if get_projection(grid.crs).is_local and has_degrees(str(source)):
        # Far from its meridian the map is folded, without being undefined.
        edges = shapely.bounds(shapes).reshape(-1, 4)
        bounds[edges[:, 2] - edges[:, 0] > _LOCAL] = np.inf
    for margin in (0.1, 1e-4, 0.0):
        far = ~np.isfinite(bounds).all(axis=1) & ~shapely.is_empty(shapes)
        if not far.any():
            break
        near = _reproject_shapes(_cut_to_grid(shapes[far], source, grid, margin), source, grid)
        bounds[far] = [_bound_finite(shape) for shape in near] if margin == 0 else shapely.bounds(near)
    return bounds


def _bound_finite(shape: BaseGeometry) -> Any:
    xy = shapely.get_coordinates(shape)
    xy = xy[np.isfinite(xy).all(axis=1)]
    return [*xy.min(axis=0), *xy.max(axis=0)] if len(xy) else [np.nan] * 4


def _densify(shapes: np.ndarray, source: CRS, grid: GeoBox) -> np.ndarray:
    """Add points to edges, as many as needed to follow their curves on a grid, but at most `_MAX_PIECES`."""
    step = np.maximum(find_longest_edge(source, grid), shapely.length(shapes) / _MAX_PIECES)
    dense: np.ndarray = shapely.segmentize(shapes, step)
    return dense


def find_longest_edge(source: CRS, grid: GeoBox) -> float:
    """The length up to which edges stay straight on a grid, to `_DEVIATION`; in units of their own CRS."""
    pixel = min(abs(grid.resolution.x), abs(grid.resolution.y)) * get_projection(grid.crs).metres
    return float(np.sqrt(8 * pixel * _DEVIATION * _EARTH_RADIUS / 4) / get_projection(source).metres)


def _reproject_shapes(shapes: np.ndarray, source: CRS, grid: GeoBox) -> np.ndarray:
    """Project geometries, with points added to their edges so that they follow the curves."""
    transformer = pyproj.Transformer.from_crs(source.to_wkt(), grid.crs.to_wkt(), always_xy=True)
    target = get_projection(grid.crs)
    period = CIRCLE if target.is_geographic and has_degrees(str(grid.crs)) else target.period
    goes_on = bool(period) and has_degrees(str(source))

    def project(xy: np.ndarray) -> np.ndarray:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        if goes_on:
            # A map that repeats itself goes on beyond the edge of the world.
            linear = xy[:, 0] if target.is_geographic else target.extrapolate(xy[:, 0])
            with np.errstate(invalid="ignore"):
                x = x + period * np.round((linear - x) / period)
        return drop_far(np.column_stack([x, y]))

    projected: np.ndarray = shapely.transform(_densify(shapes, source, grid), project)
    return projected


def _cut_to_grid(shapes: np.ndarray, source: CRS, grid: GeoBox, margin: float) -> np.ndarray:
    """Cut geometries to the surroundings of the grid: its CRS may not be defined in the rest of the world.

    ``margin`` is a share of the size of the grid; without one, what is cut has the outline of the grid.
    """
    in_degrees = has_degrees(str(source))
    outline = locate_grid(grid) if in_degrees else _outline_elsewhere(grid, source)
    if outline.is_empty or not np.isfinite(outline.bounds).all():
        return shapes
    window = _find_window(grid)
    near = _surround(outline, margin, in_degrees)
    if window is not None and in_degrees:
        near = turn_shape(near, *window)
    cut = shapes.copy()
    for number in np.nonzero(~shapely.covers(near, shapes) & ~shapely.is_empty(shapes))[0]:
        turns = in_degrees and window is None and near.bounds[2] - near.bounds[0] < _FARTHEST
        shape = turn_shape(shapes[number], near.bounds[0], near.bounds[2]) if turns else shapes[number]
        cut[number] = shapely.intersection(shape, near)
    return cut


def _surround(outline: BaseGeometry, margin: float, in_degrees: bool) -> BaseGeometry:
    """The box around an outline with a margin; without one, the outline itself, a little smaller."""
    west, south, east, north = outline.bounds
    dx, dy = (east - west) * margin, (north - south) * margin
    low, high = (max(south - dy, -90.0), min(north + dy, 90.0)) if in_degrees else (south - dy, north + dy)
    if in_degrees and east - west + 2 * dx >= CIRCLE - 1e-6:
        # Longitudes are all in it, whichever way they are counted.
        return shapely.box(-_FARTHEST, low, _FARTHEST, high)
    if margin:
        return shapely.box(west - dx, low, east + dx, high)
    return outline.buffer(-1e-4 * min(east - west, north - south))


def _outline_elsewhere(grid: GeoBox, crs: CRS) -> BaseGeometry:
    """The box around a grid in another projected CRS."""
    left, bottom, right, top = grid.boundingbox.bbox
    back = pyproj.Transformer.from_crs(grid.crs.to_wkt(), crs.to_wkt(), always_xy=True)
    west, south, east, north = back.transform_bounds(left, bottom, right, top, densify_pts=51)
    return shapely.Polygon() if west > east else shapely.box(west, south, east, north)
