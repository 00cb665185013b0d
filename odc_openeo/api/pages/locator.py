"""Geometry of the locator maps: a collection's extent on a world map, a close-up, and a time axis.

SVG coordinates are in degrees: x is the longitude, y the negative latitude (EPSG:4326, plate carrée).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)
ASPECT: Final = 1.5
"""Ratio of the close-up's width to its height on the ground."""

MARGIN: Final = 1.7
"""Ratio of the close-up's size to the size of the extent."""

MAX_LINES: Final = 4.5
MIN_DEGREES: Final = 0.02
MIN_COAST_DEGREES: Final = 5
"""Height of the smallest close-up with coastlines: they are wrong by up to some ten kilometres."""

KM_PER_DEGREE: Final = 111.32


@dataclass(frozen=True)
class DegreeBox:
    """West, south, east, north in degrees; east exceeds 180 if the box crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width(self) -> float:
        """Width in degrees of longitude."""
        return self.east - self.west

    @property
    def height(self) -> float:
        """Height in degrees of latitude."""
        return self.north - self.south

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the centre."""
        return (self.west + self.east) / 2, (self.south + self.north) / 2

    @property
    def text(self) -> str:
        """The box as text, such as ``11.26°E – 11.50°E, 46.42°N – 46.57°N``."""
        digits = 2 if max(self.width, self.height) < 10 else 0
        west, east = (_format_degrees(v, "E", "W", digits) for v in (self.west, self.east))
        south, north = (_format_degrees(v, "N", "S", digits) for v in (self.south, self.north))
        return f"{west} – {east}, {south} – {north}"


@dataclass(frozen=True)
class Line:
    """A line of the graticule: its coordinate in degrees and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class CloseUp:
    """The surroundings of an extent: visible box, meridians, parallels and scale bar."""

    view: DegreeBox
    squeeze: float
    meridians: Sequence[Line]
    parallels: Sequence[Line]
    scale_degrees: float
    scale_label: str

    @property
    def shows_land(self) -> bool:
        """Whether the visible area is large enough for coastlines of the scale 1:110 million."""
        return self.view.height > MIN_COAST_DEGREES


def find_extent_box(collection: dict[str, Any]) -> DegreeBox | None:
    """Find the spatial extent of a STAC Collection, None if it has none yet."""
    boxes = collection.get("extent", {}).get("spatial", {}).get("bbox") or []
    if not boxes or any(v is None for v in boxes[0]):
        return None
    bbox = boxes[0]
    west, south, east, north = bbox if len(bbox) == 4 else (bbox[0], bbox[1], bbox[3], bbox[4])
    return DegreeBox(west, south, east + 360 if east < west else east, north)


def make_close_up(box: DegreeBox) -> CloseUp:
    """Make the close-up of an extent, with meridians and parallels at round degrees."""
    lon, lat = box.centre
    squeeze = max(math.cos(math.radians(lat)), 0.2)
    height = max(box.height, box.width * squeeze / ASPECT, MIN_DEGREES) * MARGIN
    height = min(height, 170.0)
    width = min(height * ASPECT / squeeze, 350.0)
    view = DegreeBox(lon - width / 2, lat - height / 2, lon + width / 2, lat + height / 2)
    km = _round_down(height * KM_PER_DEGREE / 4)
    return CloseUp(
        view=view,
        squeeze=squeeze,
        meridians=_make_lines(view.west, view.east, "E", "W"),
        parallels=_make_lines(max(view.south, -90), min(view.north, 90), "N", "S"),
        scale_degrees=km / KM_PER_DEGREE / squeeze,
        scale_label=f"{km:g} km",
    )


def _make_lines(low: float, high: float, positive: str, negative: str) -> list[Line]:
    step = next((s for s in STEPS if (high - low) / s <= MAX_LINES), STEPS[-1])
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step), math.floor(high / step)
    values = [n * step for n in range(first, last + 1)]
    return [Line(v, _format_degrees(v, positive, negative, digits)) for v in values]


def _format_degrees(value: float, positive: str, negative: str, digits: int) -> str:
    value = value - 360 if value > 180 else value
    hemisphere = positive if value > 0 else negative if value < 0 else ""
    return f"{abs(value):.{digits}f}°{hemisphere}"


def _round_down(value: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(value))
    return float(max(n for n in (1, 2, 5) if n * magnitude <= value) * magnitude)


@dataclass(frozen=True)
class LocatorSpan:
    """A time span: ``left`` and ``width`` in percent of the axis, and as text."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class TimeAxis:
    """A time axis from the start of the first year to the end of the last year."""

    start: datetime
    end: datetime

    @property
    def ticks(self) -> list[tuple[str, float]]:
        """Labels (years, or quarters if there are few years) with their positions in percent."""
        years = self.end.year - self.start.year
        months = 3 * years if years <= 2 else 12 * math.ceil(years / 6)
        tick_months = range(12 * self.start.year, 12 * self.end.year, months)
        starts = [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in tick_months]
        return [(f"{t:%Y}" if t.month == 1 else f"{t:%b}", self.to_percent(t)) for t in starts]

    def to_percent(self, time: datetime) -> float:
        """Convert a time to its position on the axis in percent."""
        return 100 * (time - self.start) / (self.end - self.start)

    def find_span(self, collection: dict[str, Any]) -> LocatorSpan | None:
        """Find the temporal extent of a collection on this axis, None if it has none."""
        start, end = read_interval(collection)
        if start is None and end is None:
            return None
        left = self.to_percent(start or self.start)
        right = self.to_percent(end or self.end)
        words = f"{start:%Y-%m-%d}" if start else "open", f"{end:%Y-%m-%d}" if end else "open"
        return LocatorSpan(left, max(right - left, 0.8), " – ".join(dict.fromkeys(words)))


def read_interval(collection: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Read the start and end of the temporal extent of a STAC Collection."""
    intervals = collection.get("extent", {}).get("temporal", {}).get("interval") or [[None, None]]
    start, end = (datetime.fromisoformat(t) if t else None for t in intervals[0])
    return start, end


def make_time_axis(collections: Iterable[dict[str, Any]]) -> TimeAxis | None:
    """Make the axis that covers the temporal extents of all collections; None if there are none."""
    times = [time for collection in collections for time in read_interval(collection) if time]
    if not times:
        return None
    first, last = min(times).year, max(times).year
    return TimeAxis(datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC))
