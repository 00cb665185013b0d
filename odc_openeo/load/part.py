"""The part of a cube that is needed, and where on the grid of the files it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from odc_openeo.catalog import Band, Scene
from odc_openeo.geometry import bounds_in_grid
from odc_openeo.load.grid import SLACK
from odc_openeo.load.volume import SPARSE

_EVERYWHERE: Final = 2**40
"""Pixels from the corner of a grid to where no data is, in any direction."""


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
        return geobox[_hull(found[:, 0], height), _hull(found[:, 1], width)]

    def sparse(self, geobox: GeoBox) -> bool:
        """Whether it is a small part of a grid."""
        found = self._windows(geobox)
        if found is None:
            return False
        sides = found[..., 1] - found[..., 0]
        return bool(sides.prod(axis=1).sum() < SPARSE * geobox.shape.y * geobox.shape.x)

    def share(self, geobox: GeoBox, side: int, before: tuple[int, int]) -> float:
        """How much of a grid is in chunks with pixels that are needed; the first chunk has so many rows and
        columns ``before`` the grid."""
        found = self._windows(geobox)
        if found is None:
            return 1.0
        counts = [-(-(size + b) // side) for size, b in zip(geobox.shape.yx, before, strict=True)]
        needed = np.zeros(counts, dtype=bool)
        for window in found[(found[..., 0] < found[..., 1]).all(axis=1)]:
            rows, columns = (
                slice((a + b) // side, -(-(z + b) // side)) for (a, z), b in zip(window, before, strict=True)
            )
            needed[rows, columns] = True
        return float(needed.mean())

    def _windows(self, geobox: GeoBox) -> np.ndarray | None:
        """The rows and columns of a grid in each box: first and last (excluded) index, ``(box, axis, 2)``.

        None if all of the grid is needed. Without a pixel, an axis is 0 to 0.
        """
        if self.boxes is None:
            return None
        touched = _touched(self.boxes, geobox)
        ends = np.array(geobox.shape.yx)[:, np.newaxis]
        around = np.array([-1, 1]) * (self.margin + 1)
        exact = _shared(np.clip(touched, 0, ends))
        wide = _shared(np.clip(touched + around, 0, ends))
        some = exact[..., 0] < exact[..., 1]
        # A filter upstream must keep a pixel if it would without a plan, also where nobody needs that.
        alone = _left_out(self.boxes, np.all(some[:, 0], axis=1))
        first = np.where(alone[:, np.newaxis], np.argmax(some, axis=1), 0)[:, np.newaxis]
        chosen = np.take_along_axis(wide, first[..., np.newaxis], axis=1)[:, 0]
        there = np.take_along_axis(some, first, axis=1)[:, 0]
        return np.where(there[..., np.newaxis], chosen, 0)


def _left_out(boxes: Sequence[Sequence[BoundingBox]], found: np.ndarray) -> np.ndarray:
    """Which boxes are limited by the same rectangles as others of which none is ``found``, nor themselves."""
    limits = [tuple(rectangles[1:]) for rectangles in boxes]
    reached = {limit for limit, is_found in zip(limits, found, strict=True) if is_found}
    return np.array([limit not in reached for limit in limits])


def _shared(windows: np.ndarray) -> np.ndarray:
    """What each rectangle of a box shares with all that follow it: ``(box, rectangle, axis, 2)``."""
    starts = np.maximum.accumulate(windows[:, ::-1, :, 0], axis=1)[:, ::-1]
    stops = np.minimum.accumulate(windows[:, ::-1, :, 1], axis=1)[:, ::-1]
    return np.stack([starts, np.maximum(starts, stops)], axis=-1)


def _touched(boxes: Sequence[Sequence[BoundingBox]], geobox: GeoBox) -> np.ndarray:
    """The pixels that the rectangles of each box touch, in a grid without end: ``(box, rectangle, axis, 2)``.

    Boxes with fewer rectangles than others have everything in front.
    """
    depth = max(map(len, boxes))
    found = np.empty((len(boxes), depth, 2, 2), dtype=np.int64)
    found[...] = -_EVERYWHERE, _EVERYWHERE
    places: dict[CRS, list[tuple[int, int, BoundingBox]]] = {}
    for number, rectangles in enumerate(boxes):
        for place, one in enumerate(rectangles, depth - len(rectangles)):
            places.setdefault(one.crs, []).append((number, place, one))
    for crs, those in places.items():
        numbers, order, rectangles = zip(*those, strict=True)
        found[list(numbers), list(order)] = _pixels(np.array([r.bbox for r in rectangles]), crs, geobox)
    return found


def _pixels(rectangles: np.ndarray, crs: CRS, geobox: GeoBox) -> np.ndarray:
    """The same of rectangles ``(n, 4)`` in one reference system: ``(n, axis, 2)``."""
    bounds = bounds_in_grid(shapely.box(*rectangles.T), crs.to_wkt(), geobox)
    x, y = ~geobox.transform * (bounds[:, ::2], bounds[:, 1::2])
    axes = np.stack([y, x], axis=1)
    first, last = axes.min(axis=-1), axes.max(axis=-1)
    # A rectangle that has no place in the reference system of the grid is nowhere in it.
    nowhere = np.isnan(first)
    first[nowhere], last[nowhere] = _EVERYWHERE, -_EVERYWHERE
    ends = np.stack([np.floor(first + SLACK), np.ceil(last - SLACK)], axis=-1)
    return np.clip(ends, -_EVERYWHERE, _EVERYWHERE).astype(np.int64)


def _hull(intervals: np.ndarray, size: int) -> slice:
    """From the first to the last index in any interval ``(n, 2)``; all if there is none."""
    found = intervals[intervals[:, 0] < intervals[:, 1]]
    return slice(int(found[:, 0].min()), int(found[:, 1].max())) if len(found) else slice(0, size)
