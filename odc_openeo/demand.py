"""What a consumer needs of a data cube, and how processes pass that on to their own inputs.

Before anything is evaluated the planner walks a graph from its end to its loads. Each process says, by a
rule beside it (``@process(needs=…)``), which part of its inputs it needs for a given part of its output.
A rule may only narrow where the result is provably the same; a process without a rule needs all its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from odc.geo.geobox import GeoBox

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Interval = tuple[str | None, str | None]
"""Half-open, RFC 3339 or dates; None is open."""


@dataclass(frozen=True)
class Box:
    """A rectangle in a CRS (an EPSG code or WKT2)."""

    west: float
    south: float
    east: float
    north: float
    crs: int | str = 4326


@dataclass(frozen=True)
class Demand:
    """The part of a cube that is needed; None means all.

    ``boxes``: pixels inside any of them and ``margin`` pixels around; ``interval``: time; ``bands``: by name.
    ``grid``: the consumer takes the values nearest to the pixels of this grid and nothing else, and where
    that has larger pixels than the data, overviews will do.
    """

    boxes: tuple[Box, ...] | None = None
    margin: int = 0
    interval: Interval | None = None
    bands: tuple[str, ...] | None = None
    grid: GeoBox | None = None

    def union(self, other: Demand) -> Demand:
        """What both need together."""
        return Demand(
            boxes=_both(self.boxes, other.boxes, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            margin=max(self.margin, other.margin),
            interval=_both(self.interval, other.interval, _hull),
            bands=_both(self.bands, other.bands, lambda a, b: tuple(dict.fromkeys((*a, *b)))),
            grid=self.grid if self.grid == other.grid else None,
        )

    def inside(
        self,
        boxes: Iterable[Box] | None = None,
        interval: Interval | None = None,
        bands: Iterable[str] | None = None,
    ) -> Demand:
        """The demand on a filter's input: what the consumer left open takes what the filter says."""
        return replace(
            self,
            boxes=self.boxes if self.boxes is not None or boxes is None else tuple(boxes),
            interval=self.interval or interval,
            bands=self.bands if self.bands is not None or bands is None else tuple(bands),
        )

    def grown(self, pixels: int) -> Demand:
        """The same with a margin of more pixels, for processes that look at neighbours.

        Neighbours are pixels of the data, so another grid will not do.
        """
        return replace(self, margin=self.margin + pixels, grid=None)

    def loosened(self, pixels: int) -> Demand:
        """The same with a margin of more pixels, for cubes whose grids may not meet exactly."""
        return replace(self, margin=self.margin + pixels)

    def everywhere(self) -> Demand:
        """The same without limits in space."""
        return replace(self, boxes=None, margin=0, grid=None)

    def at_all_times(self) -> Demand:
        """The same without limits in time."""
        return replace(self, interval=None)

    def of_all_bands(self) -> Demand:
        """The same without limits in bands."""
        return replace(self, bands=None)


ALL = Demand()

Needs = Callable[[Demand, Mapping[str, Any]], Mapping[str, Demand]]
"""From the demand on a process's output and its constant arguments to those on its cubes, by parameter.

Arguments that are not known before evaluation are missing from the mapping. What is not named is needed
in full.
"""


def same(*cubes: str) -> Needs:
    """The rule of processes that work pixel by pixel: the same part is needed of each cube."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return dict.fromkeys(cubes, demand)

    return rule


def in_place(*cubes: str) -> Needs:
    """The rule of processes that keep pixels where they are and may change all other dimensions."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        return dict.fromkeys(cubes, demand.at_all_times().of_all_bands())

    return rule


def along(parameter: str = "dimension") -> Needs:
    """The rule of processes that see all values along the dimension that an argument names."""

    def rule(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
        needed = {"t": demand.at_all_times, "bands": demand.of_all_bands, "x": demand.everywhere}
        needed["y"] = demand.everywhere
        name = arguments.get(parameter)
        return {"data": needed[name]()} if isinstance(name, str) and name in needed else {}

    return rule


def _both(a: Any, b: Any, join: Callable[[Any, Any], Any]) -> Any:
    return None if a is None or b is None else join(a, b)


def _hull(a: Interval, b: Interval) -> Interval | None:
    """The interval around both; texts are compared only if all are dates or all times in UTC."""
    if a == b:
        return a
    texts = [text for text in (*a, *b) if text is not None]
    if not (all(map(_DATE.fullmatch, texts)) or all(map(_UTC.fullmatch, texts))):
        return None
    start = None if a[0] is None or b[0] is None else min(a[0], b[0])
    end = None if a[1] is None or b[1] is None else max(a[1], b[1])
    return start, end
