"""Where on Earth grids, footprints and boxes are, in degrees.

Longitudes are continuous: a shape across the antimeridian goes beyond 180 (or below -180), one that holds a
pole spans 360 degrees, and those of a grid may be counted from 0 or from anywhere else. `turn_shape` brings a
shape to the longitudes of another one. All densification has a ceiling of points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import pyproj
import shapely
import shapely.geometry
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from odc_openeo.spatial.boxes import FARTHEST

CIRCLE: Final = 360.0
REGULAR: Final = 1e-3
"""Share of a pixel by which columns of a regular grid, on both sides of a seam, may be off."""
PIECES: Final = 4
"""Segments per long edge of a shape that is small on the globe."""
FINE_PIECES: Final = 128
"""Segments per long edge of a shape that may hold a pole or go around the Earth."""
SMALL_M: Final = 3e6
"""Side in metres below which edges between points are far shorter than half a circle, away from the poles."""

_POLAR: Final = 85.0
_SAMPLES: Final = 48
_ROUND_TRIP: Final = 1e-4
_HALVINGS: Final = 45
_LON_ORIGINS: Final = frozenset({8802, 8822, 8833, 8812})
"""EPSG codes of the parameters of projections that are a central meridian."""

Points = NDArray[np.float64]


class Projection:
    """A reference system on the globe: its way to degrees and back, its central meridian, seam and poles."""

    def __init__(self, crs: CRS) -> None:
        system = pyproj.CRS.from_user_input(crs.to_wkt())
        self.is_geographic = bool(system.is_geographic)
        self.is_plain = crs.epsg == 4326
        self.to_degrees = pyproj.Transformer.from_crs(system, 4326, always_xy=True)
        self.from_degrees = pyproj.Transformer.from_crs(4326, system, always_xy=True)
        self.middle = _find_central_meridian(system)
        operation = _unbind(system).coordinate_operation
        self.is_local = operation is not None and "Transverse Mercator" in operation.method_name
        self.metres = _get_metres(system)

    def project(self, lonlat: Points) -> Points:
        """Project points ``(n, 2)`` in degrees to the reference system; infinite where it is not defined."""
        return drop_far(np.column_stack(self.from_degrees.transform(lonlat[:, 0], lonlat[:, 1])))

    def unproject(self, xy: Points) -> Points:
        """Longitude and latitude ``(n, 2)`` of points; NaN where nothing on Earth is."""
        lonlat = np.column_stack(self.to_degrees.transform(xy[:, 0], xy[:, 1]))
        if self.is_geographic:
            return np.where(np.isfinite(lonlat), lonlat, np.nan)
        with np.errstate(invalid="ignore"):
            error = np.abs(self.project(lonlat) - xy)
        if self.period:
            error[:, 0] = np.minimum(error[:, 0] % self.period, -error[:, 0] % self.period)
        size = max(float(np.abs(xy).max(initial=1.0)), 1.0)
        valid = np.isfinite(lonlat).all(axis=1) & (error < _ROUND_TRIP * size).all(axis=1)
        return np.where(valid[:, np.newaxis], lonlat, np.nan)

    @cached_property
    def width(self) -> float:
        """The width of the world on the equator, if the map is cut along a meridian; else 0."""
        if self.is_geographic or self.is_local or self.middle is None:
            return 0.0
        edge = 180 - 1e-6
        ends = self.project(np.array([(self.middle - edge, 0.0), (self.middle + edge, 0.0)]))
        if not np.isfinite(ends).all():
            return 0.0
        width = float(np.hypot(*(ends[1] - ends[0])))
        return width * 180 / edge if width * self.metres > 1000 else 0.0

    @cached_property
    def period(self) -> float:
        """The distance in x after which a cylindrical map repeats itself, else 0."""
        if not self.width or self.middle is None:
            return 0.0
        edge = 180 - 1e-6
        x = self.project(np.array([(self.middle - edge, 60.0), (self.middle + edge, 60.0)]))[:, 0]
        is_same = math.isclose((x[1] - x[0]) * 180 / edge, self.width, rel_tol=1e-6)
        return self.width if is_same else 0.0

    @cached_property
    def centre(self) -> Points:
        """Where the central meridian crosses the equator."""
        point: Points = self.project(np.array([(self.middle or 0.0, 0.0)]))[0]
        return point

    def extrapolate(self, longitudes: Points) -> Points:
        """The x of longitudes on a cylindrical map that goes on beyond the edge of the world."""
        return self.centre[0] + (longitudes - (self.middle or 0.0)) / CIRCLE * self.period

    @cached_property
    def poles(self) -> dict[float, Points]:
        """Where the poles are, if each is a single point of the map."""
        poles = {}
        for latitude in (90.0, -90.0):
            around = self.project(np.array([(lon, latitude) for lon in (-120.0, 0.0, 120.0)]))
            if np.isfinite(around).all() and np.ptp(around, axis=0).max() * self.metres < 1:
                poles[latitude] = around[1]
        return {} if self.is_geographic or self.is_local else poles


def drop_far(xy: Points) -> Points:
    """Points, infinite where they are so far away that only rounding keeps them from being so."""
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(xy) < FARTHEST, xy, np.inf)


@lru_cache(maxsize=256)
def get_projection(crs: CRS) -> Projection:
    """Return the projection of a reference system; slow to create."""
    return Projection(crs)


def _find_central_meridian(system: pyproj.CRS) -> float | None:
    base = system.sub_crs_list[0] if system.is_compound else system
    base = _unbind(base)
    operation = base.coordinate_operation if base.is_projected else None
    for parameter in operation.params if operation is not None else ():
        is_longitude = parameter.code.isdigit() and int(parameter.code) in _LON_ORIGINS
        if is_longitude or parameter.name.lower().startswith("longitude of"):
            greenwich = base.prime_meridian.longitude if base.prime_meridian is not None else 0.0
            degrees = math.degrees(float(parameter.value) * parameter.unit_conversion_factor)
            return float(degrees + greenwich)
    return None


def _unbind(system: pyproj.CRS) -> pyproj.CRS:
    """The reference system without the way to another one that PROJ strings may bind it to."""
    return system.source_crs if system.is_bound and system.source_crs is not None else system


def _get_metres(system: pyproj.CRS) -> float:
    if system.is_geographic:
        return math.radians(1) * 6_371_000
    return float(system.axis_info[0].unit_conversion_factor or 1.0) if system.axis_info else 1.0


# --- Outlines in degrees -------------------------------------------------------------------------


def locate(geometry: Geometry) -> BaseGeometry:
    """Locate a geometry with a reference system in degrees: `locate_shape`."""
    return _locate_once(geometry.geom, geometry.crs)


@lru_cache(maxsize=128)
def _locate_once(shape: BaseGeometry, crs: CRS) -> BaseGeometry:
    # The extent of a load is located several times on its way: to check it, to search, to cut the grid.
    return locate_shape(shape, crs)


@lru_cache(maxsize=1024)
def locate_grid(grid: GeoBox) -> BaseGeometry:
    """Locate the outline of a grid in degrees: `locate_shape`."""
    return locate_shape(grid.extent.geom, grid.crs)


def locate_shape(shape: BaseGeometry, crs: CRS) -> BaseGeometry:
    """Locate a shape in degrees, with continuous longitudes.

    What lies beyond the Earth (corners of a disk seen from space or of a world map) is left out. The result
    is empty if all of it does.
    """
    projection = get_projection(crs)
    shape = shapely.force_2d(shape)
    if projection.is_plain or shape.is_empty:
        return shape
    if shapely.get_dimensions(shape) < 2:
        return _locate_lines(shape, projection)
    polygons = [p for p in shapely.get_parts(shape) if shapely.get_dimensions(p) == 2]
    parts = [_locate_polygon(polygon, projection) for polygon in polygons]
    return shapely.union_all(parts)


def _locate_lines(shape: BaseGeometry, projection: Projection) -> BaseGeometry:
    def unproject(xy: Points) -> Points:
        lonlat = projection.unproject(xy)
        usable = np.isfinite(lonlat).all(axis=1)
        # Points beyond the Earth can't be left out of a line one by one.
        lonlat[~usable] = lonlat[usable][0] if usable.any() else 0.0
        return lonlat

    parts = [shapely.transform(part, unproject) for part in shapely.get_parts(shape)]
    lined = [
        shapely.transform(p, lambda xy: np.column_stack([np.unwrap(xy[:, 0], period=CIRCLE), xy[:, 1]]))
        for p in parts
    ]
    return shapely.union_all(lined) if len(lined) > 1 else lined[0]


def _locate_polygon(polygon: BaseGeometry, projection: Projection) -> BaseGeometry:
    west, south, east, north = polygon.bounds
    side = max(east - west, north - south, 1e-9)
    if projection.is_geographic or side * projection.metres < SMALL_M:
        rings = [_project_rings(polygon, side / PIECES, projection)]
        if rings[0] is not None:
            return rings[0]
    return _locate_large(polygon, side, projection)


def _project_rings(polygon: BaseGeometry, step: float, projection: Projection) -> BaseGeometry | None:
    """Project an ordinary polygon edge by edge; None if it is none."""
    rings = []
    for ring in shapely.get_rings(shapely.segmentize(polygon, step)):
        lonlat = projection.unproject(shapely.get_coordinates(ring))
        lon = np.unwrap(lonlat[:, 0], period=CIRCLE)
        turns = abs(lon[-1] - lon[0]) > 180
        polar = not projection.is_geographic and np.abs(lonlat[:, 1]).max() > _POLAR
        if not np.isfinite(lonlat).all() or turns or polar or np.abs(np.diff(lon)).max() > 100:
            return None
        if projection.is_geographic:
            lon += CIRCLE * np.round((shapely.get_coordinates(ring)[0, 0] - lon[0]) / CIRCLE)
        rings.append(np.column_stack([lon, lonlat[:, 1]]))
    shell, *holes = rings
    return shapely.Polygon(shell, [_align_ring(hole, shell) for hole in holes])


def _align_ring(ring: Points, like: Points) -> Points:
    shift = CIRCLE * np.round((like[:, 0].mean() - ring[:, 0].mean()) / CIRCLE)
    return ring + [shift, 0.0]


def _locate_large(polygon: BaseGeometry, side: float, projection: Projection) -> BaseGeometry:
    """Locate a polygon that may hold a pole, go around the Earth or reach beyond it."""
    polygon = _move_off_poles(polygon, side, projection)
    inside = _sample_inside(polygon, projection)
    if not len(inside):
        return shapely.Polygon()
    shell = _locate_ring(polygon, side, projection, inside)
    if shell is not None and _contains_all(shell, projection.unproject(inside)):
        return shell
    return _enclose_samples(polygon, projection, inside)


def _move_off_poles(polygon: BaseGeometry, side: float, projection: Projection) -> BaseGeometry:
    """Shrink a polygon with a pole on its edge a little: longitudes may turn either way there."""
    rim = polygon.boundary
    if any(rim.distance(shapely.Point(pole)) < 1e-9 * side for pole in projection.poles.values()):
        smaller = polygon.buffer(-1e-7 * side, join_style="mitre")
        return polygon if smaller.is_empty else smaller
    return polygon


def _sample_inside(polygon: BaseGeometry, projection: Projection) -> Points:
    """Points in a polygon that are on Earth ``(n, 2)``, the one nearest to its centre first."""
    west, south, east, north = polygon.bounds
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    x, y = np.meshgrid(west + steps * (east - west), south + steps * (north - south))
    points = np.column_stack([x.ravel(), y.ravel()])
    points = points[shapely.contains_xy(polygon, points)]
    points = points[np.isfinite(projection.unproject(points)).all(axis=1)]
    centre = np.array([(west + east) / 2, (south + north) / 2])
    return points[np.argsort(np.hypot(*(points - centre).T), kind="stable")]


def _locate_ring(
    polygon: BaseGeometry, side: float, projection: Projection, inside: Points
) -> BaseGeometry | None:
    """The outside of a polygon in degrees, closed over its pole; None if it can't be followed."""
    xy = _add_points_near_poles(shapely.get_coordinates(shapely.get_exterior_ring(polygon)), projection)
    xy = shapely.get_coordinates(shapely.segmentize(shapely.LinearRing(xy), side / FINE_PIECES))
    lonlat = projection.unproject(xy)
    beyond = ~np.isfinite(lonlat).all(axis=1)
    if beyond.any():
        xy[beyond] = _pull_to_earth(xy[beyond], inside[0], projection)
        lonlat = projection.unproject(xy)
    if not np.isfinite(lonlat).all():
        return None
    lon = np.unwrap(lonlat[:, 0], period=CIRCLE)
    ring = np.column_stack([lon, lonlat[:, 1]])
    if abs(lon[-1] - lon[0]) > 180:
        poles = [lat for lat, pole in projection.poles.items() if shapely.intersects_xy(polygon, *pole)]
        if len(poles) != 1:
            return None
        ring = np.vstack([ring, [(lon[-1], poles[0]), (lon[0], poles[0])]])
    return _keep_polygons(shapely.make_valid(shapely.Polygon(ring)))


def _keep_polygons(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of a shape; the box around them if they go around the Earth more than once."""
    parts = [p for p in shapely.get_parts(shape) if shapely.get_dimensions(p) == 2]
    joined = shapely.union_all(parts)
    if joined.is_empty or joined.bounds[2] - joined.bounds[0] <= CIRCLE + 1e-6:
        return joined
    return shapely.box(-180.0, joined.bounds[1], 180.0, joined.bounds[3])


def _add_points_near_poles(xy: Points, projection: Projection) -> Points:
    """Add points to edges that pass a pole, ever closer to each other: longitudes turn quickly there."""
    parts = []
    for start, end in zip(xy[:-1], xy[1:], strict=True):
        edge, places = end - start, {0.0}
        length = float(np.hypot(*edge))
        for pole in projection.poles.values() if length else ():
            foot = float((pole - start) @ edge) / length**2
            steps = 0.25 ** np.arange(1, 20)
            places |= {p for p in (foot, *(foot - steps), *(foot + steps)) if 0 < p < 1}
        parts.append(start + np.sort(list(places))[:, np.newaxis] * edge)
    return np.vstack([*parts, xy[-1:]])


def _pull_to_earth(xy: Points, inside: Points, projection: Projection) -> Points:
    """Move points towards one on Earth until they are on it too."""
    low, high = np.zeros(len(xy)), np.ones(len(xy))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        points = inside + middle[:, np.newaxis] * (xy - inside)
        valid = np.isfinite(projection.unproject(points)).all(axis=1)
        low, high = np.where(valid, middle, low), np.where(valid, high, middle)
    return inside + low[:, np.newaxis] * (xy - inside)


def _contains_all(shape: BaseGeometry, lonlat: Points) -> bool:
    """Whether a shape contains points, whichever way longitudes are counted."""
    around = shape.buffer(1e-6)
    inside = np.zeros(len(lonlat), dtype=bool)
    west, _, east, _ = around.bounds
    for turn in list_touching_turns(-180.0, 180.0, west, east):
        inside |= shapely.intersects_xy(around, lonlat[:, 0] + turn, lonlat[:, 1])
    return bool(inside.all())


def _enclose_samples(polygon: BaseGeometry, projection: Projection, inside: Points) -> BaseGeometry:
    """The box around a polygon by points in it: used where its edges can't be followed."""
    lonlat = projection.unproject(inside)
    south, north = lonlat[:, 1].min(), lonlat[:, 1].max()
    dy = max((north - south) / _SAMPLES, 1e-6) * 2
    south, north = max(south - dy, -90.0), min(north + dy, 90.0)
    for latitude, pole in projection.poles.items():
        if shapely.intersects_xy(polygon, *pole):
            south, north = min(south, latitude), max(north, latitude)
    lon = np.unique(lonlat[:, 0])
    gaps = np.diff([*lon, lon[0] + CIRCLE])
    widest = int(gaps.argmax())
    if gaps[widest] < 4 * CIRCLE / _SAMPLES or abs(south) == 90 or north == 90:
        return shapely.box(-180.0, south, 180.0, north)
    west = lon[(widest + 1) % len(lon)]
    span = CIRCLE - gaps[widest]
    dx = max(2 * span / _SAMPLES, 1e-6)
    return shapely.box(west - dx, south, west + span + dx, north)


# --- Longitudes ----------------------------------------------------------------------------------


def list_touching_turns(low: float, high: float, west: float, east: float) -> list[float]:
    """The multiples of a circle by which [low, high] must be turned to share a point with [west, east]."""
    first = math.ceil((west - high) / CIRCLE - 1e-12)
    last = math.floor((east - low) / CIRCLE + 1e-12)
    return [number * CIRCLE for number in range(first, last + 1)]


def list_turns(low: float, high: float, west: float, east: float) -> list[float]:
    """The multiples of a circle by which longitudes ``low`` to ``high`` overlap ``west`` to ``east``.

    The nearest one comes first. Those with which both only share an edge do not count.
    """
    slack = 1e-9
    turns = [
        t
        for t in list_touching_turns(low, high, west, east)
        if low + t < east - slack and west + slack < high + t
    ]
    return sorted(turns, key=abs)


def turn_shape(shape: BaseGeometry, west: float, east: float) -> BaseGeometry:
    """The part of a shape in degrees between two longitudes, whichever way its own ones are counted."""
    if shape.is_empty:
        return shape
    low, _, high, _ = shape.bounds
    turns = list_touching_turns(low, high, west, east)
    for turn in turns:
        if west <= low + turn and high + turn <= east:
            return shape if turn == 0 else translate(shape, turn)
    window = shapely.box(west, -1000.0, east, 1000.0)
    parts = [shapely.intersection(translate(shape, turn), window) for turn in turns]
    return shapely.union_all(parts) if parts else shapely.GeometryCollection()


def cut_at_antimeridian(shape: BaseGeometry) -> BaseGeometry:
    """A shape in degrees as GeoJSON has it: longitudes from -180 to 180, cut where it crosses them."""
    if shape.is_empty:
        return shape
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180:
        return shape
    cut = turn_shape(shape, -180.0, 180.0)
    parts = [p for p in shapely.get_parts(cut) if shapely.get_dimensions(p) == shapely.get_dimensions(shape)]
    if len(parts) == 1:
        return parts[0]
    return shapely.multipolygons(parts) if shapely.get_dimensions(shape) == 2 else cut


def outline_geojson(shape: BaseGeometry) -> dict[str, Any] | None:
    """A located shape as a GeoJSON geometry, cut at the antimeridian; None if it is empty."""
    return None if shape.is_empty else dict(shapely.geometry.mapping(cut_at_antimeridian(shape)))


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


def normalise_interval(west: float, east: float) -> tuple[float, float]:
    """Turn an interval of longitudes so that it begins in [-180, 180); a circle is -180 to 180."""
    if east - west >= CIRCLE:
        return -180.0, 180.0
    turn = CIRCLE * math.floor((west + 180) / CIRCLE)
    return west - turn, east - turn


def wrap_longitude(longitude: float) -> float:
    """A longitude between -180 and 180, which both stay as they are."""
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % CIRCLE - 180


@dataclass(frozen=True)
class Span:
    """An interval of longitudes and one of latitudes; longitudes may go beyond 180."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def around(cls, shapes: Iterable[BaseGeometry]) -> Span | None:
        """The smallest span around shapes in degrees; None if there are none."""
        bounds = [shape.bounds for shape in shapes if not shape.is_empty]
        if not bounds:
            return None
        west, east = enclose_longitudes([(b[0], b[2]) for b in bounds])
        return cls(west, min(b[1] for b in bounds), east, max(b[3] for b in bounds))


def enclose_longitudes(intervals: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The shortest interval that encloses intervals of longitudes."""
    normal = sorted(normalise_interval(*interval) for interval in intervals)
    if any(east - west >= CIRCLE for west, east in normal):
        return -180.0, 180.0
    merged: list[list[float]] = []
    for west, east in normal:
        if merged and west <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], east)
        else:
            merged.append([west, east])
    starts = [west for west, _ in merged]
    gaps = [start - east for start, (_, east) in zip([*starts[1:], starts[0] + CIRCLE], merged, strict=True)]
    widest = int(np.argmax(gaps))
    if gaps[widest] <= 0:
        return -180.0, 180.0
    west = starts[(widest + 1) % len(starts)]
    east = merged[widest][1]
    return west, east if east >= west else east + CIRCLE
