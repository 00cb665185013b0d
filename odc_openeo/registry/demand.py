"""The part of a data cube that is needed, and how processes pass this demand on to their inputs.

Before evaluation, the planner walks a graph from its end to its loads. Each process declares by a rule
(``@process(needs=…)``) which part of its inputs it needs for a given part of its output. A rule may narrow
the demand only where the result provably stays the same; a process without a rule needs all of its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeGuard

from odc.geo.geobox import GeoBox

from odc_openeo.spatial.boxes import Box

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

SLACK: Final = 2
"""Extra pixels around a box, so that rounding never drops one."""

PART_REACH: Final = 64
"""Pixels around a part of a job that is resampled: what warping a chunk of it may look at."""

Interval = tuple[str | None, str | None]
"""Half-open, RFC 3339 or dates; None is open."""


@dataclass(frozen=True)
class Grid:
    """The coarser grid that single pixels of a cube are sampled on, as given by the arguments of
    `resample_spatial`.

    ``node`` is the resampling node. The grid is derived from that of a cube that ``leads``; cubes that do
    not lead are masks, which are put on the grid of the leading cube.
    """

    node: str
    resolution: tuple[float, float]
    projection: int | str | None
    align: str
    leads: bool = True


@dataclass(frozen=True)
class Demand:
    """The part of a cube that is needed; None means all.

    ``boxes``: pixels inside any of them and ``margin`` pixels around; ``interval``: time; ``bands``: by
    name; ``grid``: the pixels nearest to those of a coarser grid. ``view``: only those nearest to the pixels
    of a map tile; where the pixels of the tile are larger than those of the data, overviews suffice.
    ``elsewhere``: boxes are axis-aligned, with this margin in pixels, on a grid that may differ from that of
    the cube. ``in_part``: limits in space are those of a part of a job, whose cubes keep the grid of the
    whole: what is outside of it is there, but not built. Processes may then pass on boxes to cubes on other
    grids.
    """

    boxes: tuple[Box, ...] | None = None
    margin: int = 0
    interval: Interval | None = None
    bands: tuple[str, ...] | None = None
    grid: Grid | None = None
    view: GeoBox | None = None
    elsewhere: int | None = None
    in_part: bool = False

    def union(self, other: Demand) -> Demand:
        """Return the demand that covers both."""
        return Demand(
            boxes=_join_both(self.boxes, other.boxes, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            margin=max(self.margin, other.margin),
            interval=_join_both(self.interval, other.interval, _enclose_both),
            bands=_join_both(self.bands, other.bands, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            grid=_join_both(self.grid, other.grid, _same_grid),
            view=self.view if self.view == other.view else None,
            elsewhere=max((n for n in (self.elsewhere, other.elsewhere) if n is not None), default=None),
            in_part=self.in_part and other.in_part,
        )

    def with_margin(self, pixels: int) -> Demand:
        """Widen the margin by some pixels, for processes that use neighbouring pixels."""
        return replace(self, margin=self.margin + pixels, grid=None)

    def at_all_places(self) -> Demand:
        """Drop the limits in space."""
        return replace(self, boxes=None, margin=0, grid=None, elsewhere=None)

    def for_resampled_cube(self) -> Demand:
        """Return the demand on a cube that will be resampled to the pixels of the cube of this demand."""
        if self.in_part:
            return self.with_margin(PART_REACH)
        if self.boxes is not None:
            return replace(self.with_margin(SLACK), elsewhere=max(self.margin, self.elsewhere or 0))
        return replace(self, grid=None if self.grid is None else replace(self.grid, leads=False))

    def on_shared_grid(self, like: Demand) -> Demand:
        """Adapt to a cube that is on the grid of all other cubes of the graph, whose demand is ``like``."""
        return replace(self, elsewhere=like.elsewhere)

    def at_all_times(self) -> Demand:
        """Drop the limits in time."""
        return replace(self, interval=None)

    def of_all_bands(self) -> Demand:
        """Drop the limits in bands."""
        return replace(self, bands=None)

    def along_dimensions(self, *dimensions: Any) -> Demand:
        """Drop the limits along these dimensions; drop all limits if a name is unknown."""
        demand = self
        for name in dimensions:
            if not isinstance(name, str):
                return ALL
            demand = demand._along_dimension(name)
        return demand

    def _along_dimension(self, name: str) -> Demand:
        if name in ("x", "y"):
            return self.at_all_places()
        if name == "t":
            return self.at_all_times()
        return self.of_all_bands() if name == "bands" else self


ALL: Final = Demand()


class _Unknown:
    """Placeholder for an argument that is unknown before evaluation."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()

Needs = Callable[[Demand, Mapping[str, Any]], Mapping[str, Demand]]
"""From the demand on a process's output and its arguments to those on its cubes, by parameter.

Arguments are JSON values and child graphs, or `UNKNOWN`; omitted arguments are missing. Cubes that the rule
does not return are needed in full.
"""


def same_part(*cubes: str) -> Needs:
    """Make the rule of processes that work pixel by pixel: the same part of each cube is needed."""

    def pass_demand(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return dict.fromkeys(cubes, demand)

    return pass_demand


def along_arguments(*parameters: str) -> Needs:
    """Make the rule of processes that use all values along the dimensions named by these arguments."""

    def pass_demand(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        names = [arguments[p] for p in parameters if arguments.get(p) is not None]
        return {"data": demand.along_dimensions(*names)}

    return pass_demand


def along_dimensions(*dimensions: str) -> Needs:
    """Make the rule of processes that use all values along these dimensions."""

    def pass_demand(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return {"data": demand.along_dimensions(*dimensions)}

    return pass_demand


def with_neighbours(pixels: int) -> Needs:
    """Make the rule of processes that use neighbours up to this number of pixels away."""

    def pass_demand(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return {"data": demand.with_margin(pixels)}

    return pass_demand


def is_comparable(interval: Any) -> TypeGuard[Interval]:
    """Return whether the ends of an interval can be compared as strings."""
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return False
    strings = [text for text in interval if text is not None]
    return all(isinstance(text, str) for text in strings) and _are_comparable(strings)


def intersect_intervals(interval: Interval, other: Interval | None) -> Interval:
    """Intersect an interval with another one; return it whole if they are disjoint or not comparable."""
    if other is None or not _are_comparable([text for text in (*interval, *other) if text is not None]):
        return interval
    start = max((text for text in (interval[0], other[0]) if text is not None), default=None)
    end = min((text for text in (interval[1], other[1]) if text is not None), default=None)
    return interval if start is not None and end is not None and start >= end else (start, end)


def enclose_intervals(intervals: Iterable[Any]) -> Interval | None:
    """Return the interval that encloses all; None if it is unknown or unbounded."""
    enclosing: Interval | None = None
    for interval in intervals:
        if not is_comparable(interval):
            return None
        enclosing = (
            (interval[0], interval[1])
            if enclosing is None
            else _enclose_both(enclosing, (interval[0], interval[1]))
        )
        if enclosing is None:
            return None
    return enclosing


def _are_comparable(strings: Iterable[str]) -> bool:
    strings = list(strings)
    return all(map(_DATE.fullmatch, strings)) or all(map(_UTC.fullmatch, strings))


def _same_grid(a: Grid, b: Grid) -> Grid | None:
    return replace(a, leads=a.leads or b.leads) if replace(a, leads=b.leads) == b else None


def _join_both(a: Any, b: Any, join: Callable[[Any, Any], Any]) -> Any:
    return None if a is None or b is None else join(a, b)


def _enclose_both(a: Interval, b: Interval) -> Interval | None:
    """Return the interval around both; strings are compared only if all are dates or all are UTC times."""
    if a == b:
        return a
    strings = [text for text in (*a, *b) if text is not None]
    if not _are_comparable(strings):
        return None
    start = None if a[0] is None or b[0] is None else min(a[0], b[0])
    end = None if a[1] is None or b[1] is None else max(a[1], b[1])
    return start, end
