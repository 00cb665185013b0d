"""The extent and the count of a product's datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from odc_openeo.spatial.globe import wrap_longitude

Interval = tuple[Any, Any]

INTERVALS: Final = ("lon", "lat", "time", "x", "y")
SETS: Final = ("crs", "platforms", "instruments")
FLAGS: Final = ("misplaced", "has_offsets")

ANY_LONGITUDE: Final = (-180.0, 540.0)
ANY_TIME: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""Where searches begin and end while an extent is unknown; datasets beyond are found all the same."""


@dataclass(frozen=True)
class Summary:
    """The extent of all active datasets of a product; intervals are (None, None) while there are none.

    ``lon``/``lat`` are degrees (``lon`` may go beyond 180 east of the antimeridian), ``time`` UTC;
    ``x``/``y`` are in units of the only reference system in ``crs``. ``grids`` holds the pixel size (x, y)
    by band and ``properties`` the names of metadata properties with a JSON type, both as in one of the
    datasets. ``misplaced`` and ``has_offsets`` say whether the index has any of the datasets in a wrong place
    or at a wrong time (see `misplaced`).

    Of a ``pending`` summary, extents and count may be wrong or missing until it is made in the background.
    ``looked`` is when the count was right, ``settled`` the datasets of these that were registered before the
    moment ``horizon``. ``months`` are counts by month, kept here of products that are too large for requests.
    """

    product: str
    lon: Interval = (None, None)
    lat: Interval = (None, None)
    time: Interval = (None, None)
    x: Interval = (None, None)
    y: Interval = (None, None)
    crs: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    grids: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    months: Mapping[str, int] = field(default_factory=dict)
    misplaced: bool = False
    has_offsets: bool = False
    pending: bool = False
    settled: int | None = None
    horizon: datetime | None = None
    looked: datetime | None = None
    count: int = 0
    last_change: str | None = None

    @property
    def bbox(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees; west > east crosses the antimeridian."""
        if self.lon[0] is None or self.lat[0] is None:
            return None
        west, east = self.lon
        if east - west >= 360:
            return -180.0, self.lat[0], 180.0, self.lat[1]
        return wrap_longitude(west), self.lat[0], wrap_longitude(east), self.lat[1]

    def unite_with(self, other: Summary) -> Summary:
        """Return the extent of both together."""
        intervals = {name: _enclose_both(getattr(self, name), getattr(other, name)) for name in INTERVALS}
        values = {name: _unite_values(getattr(self, name), getattr(other, name)) for name in SETS}
        flags = {name: getattr(self, name) or getattr(other, name) for name in FLAGS}
        return replace(self, **cast(Any, intervals | values | flags))

    def widen_unknown(self) -> Summary:
        """Return extents that no dataset exceeds; other ones than these only while the summary is pending."""
        if not self.pending:
            return self
        return replace(self, lon=ANY_LONGITUDE, time=ANY_TIME, has_offsets=True, count=max(self.count, 1))

    def touches_edge_of(self, whole: Summary) -> bool:
        """Return whether ``whole`` may shrink without this part of it."""
        return not all(
            _strictly_inside(getattr(self, name), getattr(whole, name)) for name in ("lon", "lat", "time")
        )


def _enclose_both(one: Interval, other: Interval) -> Interval:
    lows = [v for v in (one[0], other[0]) if v is not None]
    highs = [v for v in (one[1], other[1]) if v is not None]
    return (min(lows, default=None), max(highs, default=None))


def _unite_values(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


def _strictly_inside(part: Interval, whole: Interval) -> bool:
    if part[0] is None or whole[0] is None:
        return part[0] is None
    return bool(whole[0] < part[0] and part[1] < whole[1])
