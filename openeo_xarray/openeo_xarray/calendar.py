"""Groups of times that are calendar periods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERIODS = {"day": "datetime64[D]", "month": "datetime64[M]", "year": "datetime64[Y]"}


def name_period(labels: np.ndarray, groups: Sequence[Sequence[int]]) -> str | None:
    """The period of `aggregate_temporal_period` that makes exactly these groups, or None."""
    for name, dtype in PERIODS.items():
        if list_periods(labels, dtype) == [tuple(group) for group in groups]:
            return name
    return None


def list_periods(labels: np.ndarray, dtype: str) -> list[tuple[int, ...]]:
    """The positions of the labels of each calendar period, from the first to the last period."""
    periods = labels.astype(dtype)
    numbers = np.arange(periods.min(), periods.max() + 1)
    if len(numbers) > 4 * len(labels) + 12:
        return []
    return [tuple(np.flatnonzero(periods == number).tolist()) for number in numbers]
