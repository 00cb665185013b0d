"""Calendar periods: which one a time is in, and what the labels of a run of them are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

SEASONS: Final = ("djf", "mam", "jja", "son")
TROPICAL_SEASONS: Final = ("ndjfma", "mjjaso")


@dataclass(frozen=True)
class Period:
    """A kind of calendar period.

    ``number`` maps times to consecutive integers, ``labels`` integers to labels; the first ``years``
    characters of a label are the year (or date) and a dash, what follows repeats every year.
    """

    number: Callable[[pd.DatetimeIndex], np.ndarray]
    labels: Callable[[np.ndarray], list[str]]
    prefix: int = 5

    def key(self, label: str) -> str:
        """What of a label repeats: ``06`` of the month ``2022-06``; the whole label of years and decades."""
        return label[self.prefix :]


def _since_epoch(unit: str) -> Callable[[pd.DatetimeIndex], np.ndarray]:
    return lambda times: times.values.astype(f"datetime64[{unit}]").astype(np.int64)


def _formatted(unit: str, pattern: str) -> Callable[[np.ndarray], list[str]]:
    def labels(numbers: np.ndarray) -> list[str]:
        times = pd.DatetimeIndex(numbers.astype(f"datetime64[{unit}]").astype("datetime64[s]"))
        return [str(label) for label in times.strftime(pattern)]

    return labels


def _weeks(times: pd.DatetimeIndex) -> np.ndarray:
    # 1970-01-01 was a Thursday: three days later the first Monday-based week would start.
    return (_since_epoch("D")(times) + 3) // 7


def _week_labels(numbers: np.ndarray) -> list[str]:
    mondays = pd.DatetimeIndex((numbers * 7 - 3).astype("datetime64[D]").astype("datetime64[s]"))
    calendar = mondays.isocalendar()
    return [f"{year:04d}-{week:02d}" for year, week in zip(calendar.year, calendar.week, strict=True)]


def _months(times: pd.DatetimeIndex) -> np.ndarray:
    return times.year.to_numpy().astype(np.int64) * 12 + times.month.to_numpy() - 1


def _dekads(times: pd.DatetimeIndex) -> np.ndarray:
    return _months(times) * 3 + np.minimum((times.day.to_numpy() - 1) // 10, 2)


def _numbered(per_year: int) -> Callable[[np.ndarray], list[str]]:
    return lambda numbers: [f"{n // per_year:04d}-{n % per_year + 1:02d}" for n in numbers.tolist()]


def _named(names: tuple[str, ...]) -> Callable[[np.ndarray], list[str]]:
    # The first season of a year begins in the year before and is named after the year in which it ends.
    return lambda numbers: [f"{n // len(names):04d}-{names[n % len(names)]}" for n in numbers.tolist()]


def _years(step: int, first: int) -> Callable[[pd.DatetimeIndex], np.ndarray]:
    return lambda times: (times.year.to_numpy().astype(np.int64) - first) // step


def _year_labels(step: int, first: int) -> Callable[[np.ndarray], list[str]]:
    return lambda numbers: [f"{n * step + first:04d}" for n in numbers.tolist()]


PERIODS: Final = {
    "hour": Period(_since_epoch("h"), _formatted("h", "%Y-%m-%d-%H"), prefix=11),
    "day": Period(_since_epoch("D"), _formatted("D", "%Y-%j")),
    "week": Period(_weeks, _week_labels),
    "dekad": Period(_dekads, _numbered(36)),
    "month": Period(_months, _numbered(12)),
    "season": Period(lambda times: (_months(times) + 1) // 3, _named(SEASONS)),
    "tropical-season": Period(lambda times: (_months(times) + 2) // 6, _named(TROPICAL_SEASONS)),
    "year": Period(_years(1, 0), _year_labels(1, 0), prefix=0),
    "decade": Period(_years(10, 0), _year_labels(10, 0), prefix=0),
    "decade-ad": Period(_years(10, 1), _year_labels(10, 1), prefix=0),
}
