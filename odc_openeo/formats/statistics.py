"""Statistics of the pixels of a band, merged from pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_MANY: Final = 2**16
"""From this number of pixels on it is faster to count each value than to calculate with all pixels, and to
calculate with some pixels at a time than with all."""


@dataclass
class Statistics:
    """Count, mean and spread of a band, merged from pieces (Chan et al. 1979)."""

    pixels: int = 0
    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray, missing: Any) -> None:
        """Add pixels of the band; ``missing`` is the no-data value of integers, None if there is none."""
        self.pixels += values.size
        flat = values.reshape(-1)
        if flat.dtype.kind == "u" and flat.dtype.itemsize <= 2 and flat.size > _MANY:
            self._add_counts(flat, missing)
            return
        self._add_values(flat, missing)

    def _add_counts(self, values: np.ndarray, missing: Any) -> None:
        """Add small integers by the frequency of each value."""
        counts = np.bincount(values)
        if missing is not None and 0 <= missing < counts.size:
            counts[int(missing)] = 0
        levels = np.flatnonzero(counts)
        if levels.size:
            frequencies = counts[levels]
            total = int(frequencies.sum())
            mean = float(np.dot(levels, frequencies)) / total
            squares = float(np.dot((levels - mean) ** 2, frequencies))
            self._merge_moments(total, mean, squares, int(levels[0]), int(levels[-1]))

    def _add_values(self, values: np.ndarray, missing: Any) -> None:
        """Add numbers some at a time, so that what is held meanwhile stays in the cache of the processor."""
        for first in range(0, values.size, _MANY):
            self._add_piece(values[first : first + _MANY], missing)

    def _add_piece(self, values: np.ndarray, missing: Any) -> None:
        good = _find_valid(values, missing)
        if not good.all():
            values = values[good]
        if values.size:
            numbers = values.astype(np.float64)
            mean = float(numbers.mean())
            numbers -= mean
            squares = float(np.dot(numbers, numbers))
            self._merge_moments(values.size, mean, squares, values.min().item(), values.max().item())

    def _merge_moments(self, added: int, mean: float, squares: float, minimum: float, maximum: float) -> None:
        count, delta = self.count + added, mean - self.mean
        self.squares += squares + delta**2 * self.count * added / count
        self.mean += delta * added / count
        self.count = count
        self.minimum, self.maximum = min(self.minimum, minimum), max(self.maximum, maximum)

    def to_dict(self) -> dict[str, float]:
        """Name the statistics as STAC does; without valid pixels there is only their share."""
        percent = {"valid_percent": 100 * self.count / self.pixels if self.pixels else 0.0}
        if not self.count:
            return percent
        spread = math.sqrt(self.squares / self.count)
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean,
            "stddev": spread,
            **percent,
        }


def _find_valid(values: np.ndarray, missing: Any) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isfinite(values)
    return np.ones(values.shape, bool) if missing is None else values != missing
