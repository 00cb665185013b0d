"""What a consumer needs of a data cube, and how processes pass that on to their own inputs.

Before anything is evaluated the planner walks a graph from its end to its loads. Each process says, by a
rule beside it (``@process(needs=…)``), which part of its inputs it needs for a given part of its output.
A rule may only narrow where the result is provably the same; a process without a rule needs all its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeGuard

from odc.geo.geobox import GeoBox

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

SLACK: Final = 2
"""Pixels more than a box, in which none is missed by whatever rounding."""

Interval = tuple[str | None, str | None]
"""Half-open, RFC 3339 or dates; None is open."""


@dataclass(frozen=True)
class Box:
    """A rectangle in a CRS (an EPSG code or WKT2); on a grid in another CRS, the upright box around it.

    With ``limits`` only what of that is in the boxes around those rectangles, too.
    """

    west: float
    south: float
    east: float
    north: float
    crs: int | str = 4326
    limits: tuple[Box, ...] = ()

    def limited(self, other: Box) -> Box:
        """What of the box is in another one, which has no limits itself."""
        if self.covers(other):
            return replace(other, limits=self.limits)
        known = any(other.covers(one) for one in (self, *self.limits))
        return self if known else replace(self, limits=(*self.limits, other))

    def covers(self, other: Box) -> bool:
        """Whether the rectangle of another box is, beyond doubt, in the one of this."""
        return (
            self.crs == other.crs
            and self.west <= other.west
            and self.south <= other.south
            and self.east >= other.east
            and self.north >= other.north
        )


@dataclass(frozen=True)
class Grid:
    """The coarser grid on which single pixels of a cube are looked at, as the arguments of
    `resample_spatial` tell it.

    ``node`` is the one that asks. The grid is counted from that of a cube that ``leads``; those that do not
    are masks, which are put on the grid of the leading cube.
    """

    node: str
    resolution: tuple[float, float]
    projection: int | str | None
    align: str
    leads: bool = True


@dataclass(frozen=True)
class Demand:
    """The part of a cube that is needed; None means all.

    ``boxes``: pixels inside any of them and ``margin`` pixels around; ``interval``: time; ``bands``: by name;
    ``grid``: the nearest pixels to those of a coarser grid. ``view``: the nearest to those of a map tile, and
    nothing else; where the pixels of the tile are larger than those of the data, overviews will do.
    ``elsewhere``: boxes are upright, and have so many pixels around them, on a grid that need not be that of
    the cube.
    """

    boxes: tuple[Box, ...] | None = None
    margin: int = 0
    interval: Interval | None = None
    bands: tuple[str, ...] | None = None
    grid: Grid | None = None
    view: GeoBox | None = None
    elsewhere: int | None = None

    def union(self, other: Demand) -> Demand:
        """What both need together."""
        return Demand(
            boxes=_both(self.boxes, other.boxes, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            margin=max(self.margin, other.margin),
            interval=_both(self.interval, other.interval, _hull),
            bands=_both(self.bands, other.bands, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            grid=_both(self.grid, other.grid, _same_grid),
            view=self.view if self.view == other.view else None,
            elsewhere=max((n for n in (self.elsewhere, other.elsewhere) if n is not None), default=None),
        )

    def grown(self, pixels: int) -> Demand:
        """The same with a margin of more pixels, for processes that look at neighbours."""
        return replace(self, margin=self.margin + pixels, grid=None)

    def everywhere(self) -> Demand:
        """The same without limits in space."""
        return replace(self, boxes=None, margin=0, grid=None, elsewhere=None)

    def of_another(self) -> Demand:
        """The same of a cube that will be put on the pixels of the cube that the demand speaks of."""
        if self.boxes is not None:
            return replace(self.grown(SLACK), elsewhere=max(self.margin, self.elsewhere or 0))
        return replace(self, grid=None if self.grid is None else replace(self.grid, leads=False))

    def alone(self, like: Demand) -> Demand:
        """The same if the cube is on the grid of all others in the graph, of which ``like`` is needed."""
        return replace(self, elsewhere=like.elsewhere)

    def at_all_times(self) -> Demand:
        """The same without limits in time."""
        return replace(self, interval=None)

    def of_all_bands(self) -> Demand:
        """The same without limits in bands."""
        return replace(self, bands=None)

    def along(self, *dimensions: Any) -> Demand:
        """The same without limits along the dimensions of these names; without any if a name is not known."""
        found = self
        for name in dimensions:
            if not isinstance(name, str):
                return ALL
            found = found._along(name)
        return found

    def _along(self, name: str) -> Demand:
        if name in ("x", "y"):
            return self.everywhere()
        if name == "t":
            return self.at_all_times()
        return self.of_all_bands() if name == "bands" else self


ALL: Final = Demand()


class _Unknown:
    """Stands for an argument that is not known before evaluation."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()

Needs = Callable[[Demand, Mapping[str, Any]], Mapping[str, Demand]]
"""From the demand on a process's output and its arguments to those on its cubes, by parameter.

Arguments are JSON values and child graphs, or `UNKNOWN`; those that a node does not give are missing. What is
not named is needed in full.
"""


def same(*cubes: str) -> Needs:
    """The rule of processes that work pixel by pixel: the same part is needed of each cube."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return dict.fromkeys(cubes, demand)

    return rule


def along(*parameters: str) -> Needs:
    """The rule of processes that see all values along the dimensions that these arguments name."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        names = [arguments[p] for p in parameters if arguments.get(p) is not None]
        return {"data": demand.along(*names)}

    return rule


def over(*dimensions: str) -> Needs:
    """The rule of processes that see all values along these dimensions."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return {"data": demand.along(*dimensions)}

    return rule


def around(pixels: int) -> Needs:
    """The rule of processes that look at so many pixels to all sides."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return {"data": demand.grown(pixels)}

    return rule


def is_plain(interval: Any) -> TypeGuard[Interval]:
    """Whether an interval is written such that its texts can be compared."""
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return False
    texts = [text for text in interval if text is not None]
    return all(isinstance(text, str) for text in texts) and _comparable(texts)


def common(own: Interval, other: Interval | None) -> Interval:
    """What of an interval lies in another one; all of ``own`` if nothing does, or that can't be told."""
    if other is None or not _comparable([text for text in (*own, *other) if text is not None]):
        return own
    start = max((text for text in (own[0], other[0]) if text is not None), default=None)
    end = min((text for text in (own[1], other[1]) if text is not None), default=None)
    return own if start is not None and end is not None and start >= end else (start, end)


def hull(intervals: Iterable[Any]) -> Interval | None:
    """The interval around others, None if it is not known or without end."""
    found: Interval | None = None
    for one in intervals:
        if not is_plain(one):
            return None
        found = (one[0], one[1]) if found is None else _hull(found, (one[0], one[1]))
        if found is None:
            return None
    return found


def _comparable(texts: Iterable[str]) -> bool:
    texts = list(texts)
    return all(map(_DATE.fullmatch, texts)) or all(map(_UTC.fullmatch, texts))


def _same_grid(a: Grid, b: Grid) -> Grid | None:
    return replace(a, leads=a.leads or b.leads) if replace(a, leads=b.leads) == b else None


def _both(a: Any, b: Any, join: Callable[[Any, Any], Any]) -> Any:
    return None if a is None or b is None else join(a, b)


def _hull(a: Interval, b: Interval) -> Interval | None:
    """The interval around both; texts are compared only if all are dates or all times in UTC."""
    if a == b:
        return a
    texts = [text for text in (*a, *b) if text is not None]
    if not _comparable(texts):
        return None
    start = None if a[0] is None or b[0] is None else min(a[0], b[0])
    end = None if a[1] is None or b[1] is None else max(a[1], b[1])
    return start, end
