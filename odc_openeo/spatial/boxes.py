"""Bounding boxes: parse those that users send, compare and project them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from odc.geo.crs import CRS, CRSError
from odc.geo.geom import BoundingBox, Geometry
from odc.geo.geom import box as make_polygon

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.reference_systems import parse_crs

FARTHEST: Final = 1e12
"""The largest coordinate, in any unit: far beyond the earth."""

FARTHEST_LONGITUDE: Final = 720.0
"""Longitudes may be counted from -180, from 0, or on from a neighbour's, but not many times around."""
WIDEST_CROSSING: Final = 180.0
"""Degrees. Of boxes with west > east that would be wider the edges are swapped, more likely than not."""

EDGES: Final = ("west", "south", "east", "north")


@dataclass(frozen=True)
class Box:
    """A rectangle in a CRS (an EPSG code or WKT2); on a grid in another CRS, the axis-aligned box around it.

    With ``limits`` only the part of it counts that also lies in the boxes around those rectangles.
    """

    west: float
    south: float
    east: float
    north: float
    crs: int | str = 4326
    limits: tuple[Box, ...] = ()

    @classmethod
    def parse(cls, extent: Mapping[str, Any], process: str, parameter: str) -> Box:
        """Parse a bounding box as openEO has it: west, south, east, north, crs; heights are ignored.

        In degrees, a box whose west is larger than its east crosses the antimeridian (RFC 7946): its east
        becomes 360 larger. If that makes it wider than half of the Earth, it is refused.

        Raises:
            ProcessParameterInvalid: an edge is missing or not a finite number, edges are swapped or equal,
                or the CRS is unknown.
        """

        def make_error(reason: str) -> ProcessParameterInvalid:
            return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)

        for edge in EDGES:
            value = extent.get(edge)
            if isinstance(value, bool) or not isinstance(value, int | float):
                what = f"must be a number, not {value!r}" if value is not None else "is missing"
                raise make_error(f"its member '{edge}' {what}.")
        west, south, east, north = (extent[edge] for edge in EDGES)
        if not all(math.isfinite(edge) for edge in (west, south, east, north)):
            raise make_error("its edges must be finite numbers.")
        if max(map(abs, (west, south, east, north))) > FARTHEST:
            raise make_error(f"its edges must be between -{FARTHEST:g} and {FARTHEST:g}.")
        crs = _parse_crs(extent.get("crs"), make_error)
        if west > east and has_degrees(crs) and east + 360 - west <= WIDEST_CROSSING:
            east += 360
        for low, high, names in ((west, east, "west and east"), (south, north, "south and north")):
            if low > high:
                raise make_error(_describe_swapped_edges(names, low, high, crs))
            if low == high:
                raise make_error(f"it has no area: {names} are both {low:g}.")
        return cls(west, south, east, north, crs)

    @property
    def bounding_box(self) -> BoundingBox:
        """The rectangle without its limits."""
        return BoundingBox(self.west, self.south, self.east, self.north, CRS(self.crs))

    @property
    def polygon(self) -> Geometry:
        """The rectangle as a polygon."""
        return make_polygon(self.west, self.south, self.east, self.north, CRS(self.crs))

    def limit_to(self, other: Box) -> Box:
        """The part of the box that lies in another one, which has no limits itself."""
        if self.covers(other):
            return replace(other, limits=self.limits)
        is_limited_already = any(other.covers(box) for box in (self, *self.limits))
        return self if is_limited_already else replace(self, limits=(*self.limits, other))

    def covers(self, other: Box) -> bool:
        """Whether this rectangle certainly contains the other one, which must be in the same CRS."""
        return (
            self.crs == other.crs
            and self.west <= other.west
            and self.south <= other.south
            and self.east >= other.east
            and self.north >= other.north
        )


@lru_cache(maxsize=256)
def has_degrees(crs: int | str) -> bool:
    """Whether coordinates in a reference system are longitudes and latitudes in degrees."""
    system = CRS(crs)
    unit = system.proj.axis_info[0].unit_conversion_factor if system.geographic else 0.0
    return math.isclose(unit, math.radians(1), rel_tol=1e-9)


def _describe_swapped_edges(names: str, low: float, high: float, crs: int | str) -> str:
    swapped = f"{names} are swapped: {low:g} is larger than {high:g}."
    if not names.startswith("west") or not has_degrees(crs):
        return swapped
    return f"{swapped} If the box crosses the antimeridian, add 360 to its east."


def is_box(extent: Any) -> bool:
    """Whether a spatial extent is a bounding box (and not GeoJSON or a vector cube)."""
    return isinstance(extent, Mapping) and "type" not in extent and any(edge in extent for edge in EDGES)


def _parse_crs(crs: Any, make_error: Any) -> int | str:
    if crs is None:
        return 4326
    try:
        parsed = parse_crs(crs)
        # Only the code of this very definition: one that is merely alike may be off by a datum shift.
        code = parsed.to_epsg(min_confidence=100)
    except (CRSError, ValueError, TypeError) as error:
        raise make_error(
            f"the reference system {str(crs)[:60]!r} is unknown. Give an EPSG code or WKT2."
        ) from error
    return parsed.to_wkt() if code is None else int(code)
