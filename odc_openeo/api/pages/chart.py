"""A chart of how many datasets there are in each month, or in each year where there are many months."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MOST_MONTHS: Final = 120
WIDTH: Final = 720
HEIGHT: Final = 120
MOST_LABELS: Final = 9


@dataclass(frozen=True)
class Bar:
    """A bar in units of the drawing, with its period (``2022-06`` or ``2022``) and count."""

    period: str
    count: int
    x: float
    y: float
    width: float
    height: float
    labelled: bool


@dataclass(frozen=True)
class Chart:
    """Bars over a time axis of ``width``, at most ``height`` tall; ``top`` is the count of a full bar."""

    bars: Sequence[Bar]
    top: int
    unit: str
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def middle(self) -> str:
        """The count at half the height."""
        return f"{self.top / 2:g}"


def chart(months: Mapping[str, int]) -> Chart | None:
    """The chart of counts by month, in whole years; None without any."""
    if not months:
        return None
    yearly = len(months) > MOST_MONTHS
    counts = _by_year(months) if yearly else _whole_years(months)
    top = _round_up(max(counts.values()))
    slot = WIDTH / len(counts)
    gap = min(slot * 0.2, 3.0)
    every = math.ceil(len(counts) / MOST_LABELS)
    bars = []
    for number, (period, count) in enumerate(counts.items()):
        tall = round(HEIGHT * count / top, 2)
        bars.append(
            Bar(
                period,
                count,
                round(number * slot + gap / 2, 2),
                round(HEIGHT - tall, 2),
                round(slot - gap, 2),
                tall,
                number % every == 0,
            )
        )
    return Chart(bars, top, "year" if yearly else "month")


def _whole_years(months: Mapping[str, int]) -> dict[str, int]:
    years = range(int(min(months)[:4]), int(max(months)[:4]) + 1)
    names = [f"{year:04d}-{month:02d}" for year in years for month in range(1, 13)]
    return {name: months.get(name, 0) for name in names}


def _by_year(months: Mapping[str, int]) -> dict[str, int]:
    years: dict[str, int] = {}
    for month, count in months.items():
        years[month[:4]] = years.get(month[:4], 0) + count
    return years


def _round_up(value: int) -> int:
    """The next number of the form 1, 2, 4, 6, 10, 20 …, so that its half is a good label too."""
    power = 10 ** max(len(str(value)) - 1, 0)
    return next(n * power for n in (1, 2, 4, 6, 10) if n * power >= max(value, 1)) if value else 1
