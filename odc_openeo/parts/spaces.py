"""Find the size of parts: as large as the limits allow, measured on some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.parts.measure import Size
from odc_openeo.parts.model import OutputTemplate, Part, PartLimits, PixelWindow, Range
from odc_openeo.parts.windows import cut_range, cut_squares

Probe = Callable[[Part], Size]
"""Measures a part."""

FIRST_SIDE: Final = 4096
"""Pixels of the side of the first window that is measured."""

CHUNK: Final = 2048
"""Sides of larger windows are multiples of this, so that all of them have as many chunks."""

AIM: Final = 0.8
"""The share of the limits that parts aim at: not all of them are alike."""

ENOUGH: Final = 0.4
"""The share of the limits from which on parts are not made larger."""

MOST_PROBES: Final = 6


class SplitFailure(Exception):
    """Why a job does not split, as a plain sentence."""


def split_space(template: OutputTemplate, probe: Probe, limits: PartLimits) -> list[Part]:
    """Split the output's grid into windows; windows of one block that are too large also by dates.

    Raises:
        SplitFailure: there are too many parts.
    """
    shape = (template.sizes[template.spatial_dims[0]], template.sizes[template.spatial_dims[1]])  # type: ignore[index]
    side, size = _find_side(shape, probe, limits)
    windows = cut_squares(shape, side)
    times = _cut_times(template, size, limits)
    _check_count(len(windows) * len(times), limits)
    area = math.prod(_find_middle(shape, side).shape)
    parts = []
    for window in windows:
        share = size.scale(math.prod(window.shape) / area / len(times))
        parts += [Part(0, window, span, None, share.tasks, share.input_bytes) for span in times]
    return [replace(part, number=number) for number, part in enumerate(parts)]


def _find_side(shape: tuple[int, int], probe: Probe, limits: PartLimits) -> tuple[int, Size]:
    """The side of the largest windows that are small enough, and what one in the middle takes."""

    def measure_window(side: int) -> Size:
        return probe(Part(0, window=_find_middle(shape, side)))

    longest = math.ceil(max(shape) / limits.block) * limits.block
    if limits.side is not None:
        side = min(_round_side(limits.side, limits.block), longest)
        return side, measure_window(side)
    side = min(_round_side(FIRST_SIDE, limits.block), longest)
    sizes: dict[int, Size] = {}
    for _ in range(MOST_PROBES):
        sizes[side] = measure_window(side)
        share = sizes[side].find_excess(limits)
        next_side = min(_round_side(side * math.sqrt(AIM / max(share, 1e-6)), limits.block), longest)
        if ENOUGH <= share <= 1 or next_side in sizes:
            break
        side = next_side
    return _choose_largest(sizes, limits)


def _choose_largest(sizes: Mapping[int, Size], limits: PartLimits) -> tuple[int, Size]:
    """The largest that fits; the smallest if none does."""
    fitting = [length for length, size in sizes.items() if size.find_excess(limits) <= 1]
    chosen = max(fitting) if fitting else min(sizes)
    return chosen, sizes[chosen]


def _round_side(side: float, block: int) -> int:
    """The largest multiple of blocks that is no longer, of chunks as well if it is longer than those."""
    unit = math.lcm(block, CHUNK) if side >= CHUNK and math.lcm(block, CHUNK) <= side else block
    return max(1, int(side // unit)) * unit


def _find_middle(shape: tuple[int, int], side: int) -> PixelWindow:
    """A window in the middle of a grid, among those that it is cut into."""
    spans = [cut_range(size, side) for size in shape]
    rows, columns = (ranges[(len(ranges) - 1) // 2] for ranges in spans)
    return PixelWindow(rows, columns)


def _cut_times(template: OutputTemplate, size: Size, limits: PartLimits) -> list[Range | None]:
    """Ranges of dates that are small enough if the smallest window is not; all dates if they are not kept."""
    excess = size.find_excess(limits)
    dates = 0 if template.time_dimension is None else template.sizes[template.time_dimension]
    if excess <= 1 or dates < 2:
        return [None]
    return list(cut_range(dates, max(1, math.floor(dates * AIM / excess))))


def split_times(template: OutputTemplate, probe: Probe, limits: PartLimits) -> list[Part]:
    """Split the dates of an output that has neither pixels nor geometries."""
    dates = template.sizes[template.time_dimension or ""]
    length, size = _find_length(dates, lambda span: Part(0, times=span), probe, limits)
    ranges = cut_range(dates, length)
    _check_count(len(ranges), limits)
    return [
        Part(i, times=span, tasks=size.tasks, input_bytes=size.input_bytes) for i, span in enumerate(ranges)
    ]


def split_geometries(data: Any, template: OutputTemplate, probe: Probe, limits: PartLimits) -> list[Part]:
    """Split the geometries of a vector cube into ranges."""
    count = template.sizes[cube.GEOMETRY]
    bounds = _find_bounds(data)

    def make_part(span: Range) -> Part:
        return Part(0, geometries=span, bounds=_join_bounds(bounds, span))

    length, size = _find_length(count, make_part, probe, limits)
    ranges = cut_range(count, length)
    _check_count(len(ranges), limits)
    return [
        replace(make_part(span), number=i, tasks=size.tasks, input_bytes=size.input_bytes)
        for i, span in enumerate(ranges)
    ]


def _find_bounds(data: xr.DataArray) -> np.ndarray:
    """The bounds of geometries ``(n, 4)``; NaN for empty ones."""
    return np.asarray(shapely.bounds(data.coords[cube.GEOMETRY].values))


def _join_bounds(bounds: np.ndarray, span: Range) -> tuple[float, float, float, float] | None:
    part = bounds[span[0] : span[1]]
    part = part[np.isfinite(part).all(axis=1)]
    if not len(part):
        return None
    west, south = part[:, :2].min(axis=0).tolist()
    east, north = part[:, 2:].max(axis=0).tolist()
    return west, south, east, north


def _find_length(
    count: int, make_part: Callable[[Range], Part], probe: Probe, limits: PartLimits
) -> tuple[int, Size]:
    """The number of labels of a part, and what the part in the middle takes."""

    def measure_range(length: int) -> Size:
        first = (count - length) // 2
        return probe(make_part((first, first + length)))

    if limits.labels is not None:
        length = min(limits.labels, count)
        return length, measure_range(length)
    length, sizes = max(1, math.ceil(count / 8)), {}
    for _ in range(MOST_PROBES):
        sizes[length] = measure_range(length)
        share = sizes[length].find_excess(limits)
        next_length = min(count, max(1, math.floor(length * AIM / max(share, 1e-6))))
        if ENOUGH <= share <= 1 or next_length in sizes:
            break
        length = next_length
    return _choose_largest(sizes, limits)


def _check_count(count: int, limits: PartLimits) -> None:
    if count > limits.most_parts:
        raise SplitFailure(f"It would take {count:,} parts, and {limits.most_parts:,} are allowed.")
