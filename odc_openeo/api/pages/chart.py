"""Bar chart of the number of datasets per month, or per year if there are many months."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_MONTHS: Final = 120
WIDTH: Final = 720
HEIGHT: Final = 120
MAX_LABELS: Final = 9


@dataclass(frozen=True)
class Bar:
    """A bar in drawing units, with its period (``2022-06`` or ``2022``) and count."""

    period: str
    count: int
    x: float
    y: float
    width: float
    height: float
    labelled: bool


@dataclass(frozen=True)
class Chart:
    """Bars over a time axis of ``width``, at most ``height`` high; ``top`` is the count at full height."""

    bars: Sequence[Bar]
    top: int
    unit: str
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def middle(self) -> int:
        """The count at half the height."""
        return self.top // 2


def make_chart(months: Mapping[str, int]) -> Chart | None:
    """Make the chart of monthly counts, padded to whole years; None if there are no counts."""
    if not months:
        return None
    yearly = len(months) > MAX_MONTHS
    counts = _sum_by_year(months) if yearly else _fill_years(months)
    top = _round_up_count(max(counts.values()))
    slot = WIDTH / len(counts)
    bar_gap = min(slot * 0.2, 3.0)
    label_step = math.ceil(len(counts) / MAX_LABELS)
    bars = []
    for number, (period, count) in enumerate(counts.items()):
        bar_height = round(HEIGHT * count / top, 2)
        bars.append(
            Bar(
                period,
                count,
                round(number * slot + bar_gap / 2, 2),
                round(HEIGHT - bar_height, 2),
                round(slot - bar_gap, 2),
                bar_height,
                number % label_step == 0,
            )
        )
    return Chart(bars, top, "year" if yearly else "month")


def _fill_years(months: Mapping[str, int]) -> dict[str, int]:
    years = range(int(min(months)[:4]), int(max(months)[:4]) + 1)
    names = [f"{year:04d}-{month:02d}" for year in years for month in range(1, 13)]
    return {name: months.get(name, 0) for name in names}


def _sum_by_year(months: Mapping[str, int]) -> dict[str, int]:
    years: dict[str, int] = {}
    for month, count in months.items():
        years[month[:4]] = years.get(month[:4], 0) + count
    return years


def _round_up_count(value: int) -> int:
    """Round up to the next of 2, 4, 6, 10, 20 …, so that half of it is a whole number too."""
    power = 10 ** max(len(str(value)) - 1, 0)
    return max(next(n * power for n in (1, 2, 4, 6, 10) if n * power >= value), 2)
