"""The part of a cube that is needed, and where on the grid of the files it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import shapely
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from odc_openeo.catalog import Band, Scene
from odc_openeo.load.chunking import SPARSE
from odc_openeo.load.native_grid import SLACK
from odc_openeo.spatial.boxes import Box
from odc_openeo.spatial.reproject import project_bounds

_EVERYWHERE: Final = 2**40
"""Pixels from the corner of a grid to where no data is, in any direction."""


@dataclass(frozen=True)
class Subset:
    """The part of a cube that is needed: ``boxes`` with ``margin`` pixels around, ``start`` ≤ time < ``end``,
    bands by any of their names. What is needed of the cube and is not in it does not narrow it.

    On the grid, a box is what the axis-aligned boxes around its rectangle and its limits share. With ``view``
    the pixels of that grid are made instead, each the nearest one in the files.
    """

    boxes: tuple[Box, ...] | None = None
    margin: int = 0
    names: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None
    view: GeoBox | None = None

    def select_scenes(self, scenes: Sequence[Scene]) -> Sequence[Scene]:
        """Those of the scenes that are needed."""
        return [s for s in scenes if self._in_time(s.time)] or scenes

    def _in_time(self, time: datetime) -> bool:
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def select_bands(self, bands: Sequence[Band]) -> Sequence[Band]:
        """Those of the bands that are needed."""
        names = self.names
        return bands if names is None else [b for b in bands if b.names & names] or bands

    def crop_grid(self, geobox: GeoBox) -> GeoBox:
        """The part of a grid from the first to the last row and column that is in any box.

        Rows count whether or not there are columns, and the other way round: cubes without pixels keep the
        labels that they have.
        """
        windows = self._find_windows(geobox)
        if windows is None:
            return geobox
        height, width = geobox.shape.yx
        return geobox[_hull_slice(windows[:, 0], height), _hull_slice(windows[:, 1], width)]

    def find_hull(self, geobox: GeoBox) -> tuple[slice, slice] | None:
        """The rows and columns around all boxes, at least one of each; None if all of the grid is needed."""
        windows = self._find_windows(geobox)
        if windows is None:
            return None
        present = windows[(windows[..., 0] < windows[..., 1]).all(axis=1)]
        if not len(present):
            return slice(0, 1), slice(0, 1)
        (top, left), (bottom, right) = present[..., 0].min(axis=0), present[..., 1].max(axis=0)
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def is_sparse(self, geobox: GeoBox) -> bool:
        """Whether it is a small part of a grid."""
        windows = self._find_windows(geobox)
        if windows is None:
            return False
        sides = windows[..., 1] - windows[..., 0]
        return bool(sides.prod(axis=1).sum() < SPARSE * geobox.shape.y * geobox.shape.x)

    def needed_share(self, geobox: GeoBox, side: int, before: tuple[int, int]) -> float:
        """How much of a grid is in chunks with pixels that are needed; the first chunk begins ``before``
        (rows, columns) the grid."""
        windows = self._find_windows(geobox)
        if windows is None:
            return 1.0
        counts = [-(-(size + b) // side) for size, b in zip(geobox.shape.yx, before, strict=True)]
        needed = np.zeros(counts, dtype=bool)
        for window in windows[(windows[..., 0] < windows[..., 1]).all(axis=1)]:
            rows, columns = (
                slice((a + b) // side, -(-(z + b) // side)) for (a, z), b in zip(window, before, strict=True)
            )
            needed[rows, columns] = True
        return float(needed.mean())

    def _find_windows(self, geobox: GeoBox) -> np.ndarray | None:
        """The rows and columns of a grid in each box: first and last (excluded) index, ``(box, axis, 2)``.

        None if all of the grid is needed. Without a pixel, an axis is 0 to 0.
        """
        if self.boxes is None:
            return None
        touched = _find_touched_pixels(self.boxes, geobox)
        ends = np.array(geobox.shape.yx)[:, np.newaxis]
        around = np.array([-1, 1]) * (self.margin + 1)
        exact = _intersect_rectangles(np.clip(touched, 0, ends))
        wide = _intersect_rectangles(np.clip(touched + around, 0, ends))
        some = exact[..., 0] < exact[..., 1]
        # A filter upstream must keep a pixel if it would without a plan, also where nobody needs that.
        alone = _find_unreached(self.boxes, np.all(some[:, 0], axis=1))
        first = np.where(alone[:, np.newaxis], np.argmax(some, axis=1), 0)[:, np.newaxis]
        chosen = np.take_along_axis(wide, first[..., np.newaxis], axis=1)[:, 0]
        there = np.take_along_axis(some, first, axis=1)[:, 0]
        return np.where(there[..., np.newaxis], chosen, 0)


def _find_unreached(boxes: Sequence[Box], has_pixels: np.ndarray) -> np.ndarray:
    """Which boxes have no pixels, nor has any other box that is limited by the same rectangles."""
    reached = {box.limits for box, has_any in zip(boxes, has_pixels, strict=True) if has_any}
    return np.array([box.limits not in reached for box in boxes])


def _intersect_rectangles(windows: np.ndarray) -> np.ndarray:
    """Intersect each rectangle of a box with all that follow it: ``(box, rectangle, axis, 2)``."""
    starts = np.maximum.accumulate(windows[:, ::-1, :, 0], axis=1)[:, ::-1]
    stops = np.minimum.accumulate(windows[:, ::-1, :, 1], axis=1)[:, ::-1]
    return np.stack([starts, np.maximum(starts, stops)], axis=-1)


def _find_touched_pixels(boxes: Sequence[Box], geobox: GeoBox) -> np.ndarray:
    """The pixels that the rectangles of each box touch, in a grid without end: ``(box, rectangle, axis, 2)``.

    Boxes with fewer rectangles than others have everything in front.
    """
    depth = 1 + max(len(box.limits) for box in boxes)
    touched = np.empty((len(boxes), depth, 2, 2), dtype=np.int64)
    touched[...] = -_EVERYWHERE, _EVERYWHERE
    by_crs: dict[int | str, list[tuple[int, int, Box]]] = defaultdict(list)
    for number, box in enumerate(boxes):
        rectangles = (box, *box.limits)
        for place, rectangle in enumerate(rectangles, depth - len(rectangles)):
            by_crs[rectangle.crs].append((number, place, rectangle))
    for crs, entries in by_crs.items():
        numbers, places, group = zip(*entries, strict=True)
        edges = np.array([(box.west, box.south, box.east, box.north) for box in group])
        touched[list(numbers), list(places)] = _find_pixels(edges, CRS(crs), geobox)
    return touched


def _find_pixels(rectangles: np.ndarray, crs: CRS, geobox: GeoBox) -> np.ndarray:
    """The pixels that rectangles ``(n, 4)`` in one reference system touch: ``(n, axis, 2)``."""
    bounds = project_bounds(shapely.box(*rectangles.T), crs.to_wkt(), geobox)
    x, y = ~geobox.transform @ (bounds[:, ::2], bounds[:, 1::2])
    axes = np.stack([y, x], axis=1)
    first, last = axes.min(axis=-1), axes.max(axis=-1)
    # A rectangle that has no place in the reference system of the grid is nowhere in it.
    nowhere = np.isnan(first)
    first[nowhere], last[nowhere] = _EVERYWHERE, -_EVERYWHERE
    ends = np.stack([np.floor(first + SLACK), np.ceil(last - SLACK)], axis=-1)
    return np.clip(ends, -_EVERYWHERE, _EVERYWHERE).astype(np.int64)


def _hull_slice(intervals: np.ndarray, size: int) -> slice:
    """From the first to the last index in any interval ``(n, 2)``; all if there is none."""
    nonempty = intervals[intervals[:, 0] < intervals[:, 1]]
    return slice(int(nonempty[:, 0].min()), int(nonempty[:, 1].max())) if len(nonempty) else slice(0, size)
