"""The part of a cube that is needed, and where on the grid of the files it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from odc_openeo.catalog import Band, Scene
from odc_openeo.geometry import bounds_in_grid
from odc_openeo.load.volume import SPARSE

SLACK = 1e-6
"""Pixels: what ends at the edge of a pixel is not in the next one, whatever the last bit of the edge is."""


@dataclass(frozen=True)
class Only:
    """The part of a cube that is needed: ``boxes`` with ``margin`` pixels around, ``start`` ≤ time < ``end``,
    bands by any of their names. What is needed of the cube and is not in it does not narrow it.

    Each of the boxes is given by rectangles: on the grid it is what the upright boxes around them share. With
    ``view`` the pixels of that grid are made instead, each the nearest one in the files.
    """

    boxes: tuple[tuple[BoundingBox, ...], ...] | None = None
    margin: int = 0
    names: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None
    view: GeoBox | None = None

    def scenes(self, scenes: Sequence[Scene]) -> Sequence[Scene]:
        """Those of the scenes that are needed."""
        return [s for s in scenes if self._in_time(s.time)] or scenes

    def _in_time(self, time: datetime) -> bool:
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def bands(self, bands: Sequence[Band]) -> Sequence[Band]:
        """Those of the bands that are needed."""
        names = self.names
        return bands if names is None else [b for b in bands if b.names & names] or bands

    def crop(self, geobox: GeoBox) -> GeoBox:
        """The part of a grid from the first to the last row and column that is in any box.

        Rows count whether or not there are columns, and the other way round: cubes without pixels keep the
        labels that they have.
        """
        found = self._windows(geobox)
        if found is None:
            return geobox
        height, width = geobox.shape.yx
        return geobox[_hull(found[:, :2], height), _hull(found[:, 2:], width)]

    def sparse(self, geobox: GeoBox) -> bool:
        """Whether it is a small part of a grid."""
        found = self._windows(geobox)
        if found is None:
            return False
        rows, columns = (np.maximum(found[:, i + 1] - found[:, i], 0) for i in (0, 2))
        return bool((rows * columns).sum() < SPARSE * geobox.shape.y * geobox.shape.x)

    def share(self, geobox: GeoBox, side: int, before: tuple[int, int]) -> float:
        """How much of a grid is in chunks with pixels that are needed; the first chunk has so many rows and
        columns ``before`` the grid."""
        found = self._windows(geobox)
        if found is None:
            return 1.0
        counts = [-(-(size + b) // side) for size, b in zip(geobox.shape.yx, before, strict=True)]
        needed = np.zeros(counts, dtype=bool)
        some = (found[:, 0] < found[:, 1]) & (found[:, 2] < found[:, 3])
        for top, bottom, left, right in found[some] + np.repeat(before, 2):
            needed[top // side : -(-bottom // side), left // side : -(-right // side)] = True
        return float(needed.mean())

    def _windows(self, geobox: GeoBox) -> np.ndarray | None:
        """First and last (excluded) row and column of each box, ``(n, 4)``, in the grid; None if all of it
        is needed."""
        if self.boxes is None:
            return None
        limits = np.array([0, geobox.shape.y, 0, geobox.shape.x])
        found = np.tile(limits, (len(self.boxes), 1))
        for number, windows in _of_rectangles(self.boxes, geobox, self.margin + 1):
            found[number, ::2] = np.maximum(found[number, ::2], windows[:, ::2])
            found[number, 1::2] = np.minimum(found[number, 1::2], windows[:, 1::2])
        return found


def _of_rectangles(
    boxes: Sequence[Sequence[BoundingBox]], geobox: GeoBox, margin: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The boxes that have an n-th rectangle in a CRS, and the pixels that these touch, with a margin."""
    groups: dict[tuple[int, CRS], list[int]] = {}
    for number, rectangles in enumerate(boxes):
        for place, one in enumerate(rectangles):
            groups.setdefault((place, one.crs), []).append(number)
    return [
        (
            np.array(numbers),
            _touched(np.array([boxes[n][place].bbox for n in numbers]), crs, geobox, margin),
        )
        for (place, crs), numbers in groups.items()
    ]


def _touched(rectangles: np.ndarray, crs: CRS, geobox: GeoBox, margin: int) -> np.ndarray:
    bounds = bounds_in_grid(shapely.box(*rectangles.T), crs.to_wkt(), geobox)
    x, y = ~geobox.transform * (bounds[:, ::2], bounds[:, 1::2])
    first = np.stack([np.min(y, axis=1), np.min(x, axis=1)], axis=1)
    last = np.stack([np.max(y, axis=1), np.max(x, axis=1)], axis=1)
    # A rectangle that has no place in the reference system of the grid is nowhere in it.
    first, last = np.nan_to_num(first, nan=np.inf), np.nan_to_num(last, nan=-np.inf)
    ends = np.array(geobox.shape.yx)
    start = np.clip(np.floor(first + SLACK) - margin, 0, ends)
    stop = np.clip(np.ceil(last - SLACK) + margin, 0, ends)
    return np.stack([start, stop], axis=-1).reshape(len(rectangles), 4).astype(int)


def _hull(intervals: np.ndarray, size: int) -> slice:
    """From the first to the last index in any interval ``(n, 2)``; all if there is none."""
    found = intervals[intervals[:, 0] < intervals[:, 1]]
    return slice(int(found[:, 0].min()), int(found[:, 1].max())) if len(found) else slice(0, size)
