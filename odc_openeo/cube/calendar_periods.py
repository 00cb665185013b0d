"""Calendar periods: the one that a time falls into, and the labels of consecutive ones."""

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

    ``number`` maps times to consecutive integers, ``labels`` maps integers to labels. The first ``prefix``
    characters of a label are the year (or date) and a dash; the rest repeats every year.
    """

    number: Callable[[pd.DatetimeIndex], np.ndarray]
    labels: Callable[[np.ndarray], list[str]]
    prefix: int = 5

    def repeating_part(self, label: str) -> str:
        """The part of a label that repeats: ``06`` of the month ``2022-06``; years and decades as a whole."""
        return label[self.prefix :]


def _number_since_epoch(unit: str) -> Callable[[pd.DatetimeIndex], np.ndarray]:
    return lambda times: times.values.astype(f"datetime64[{unit}]").astype(np.int64)


def _format_labels(unit: str, pattern: str) -> Callable[[np.ndarray], list[str]]:
    def labels(numbers: np.ndarray) -> list[str]:
        times = pd.DatetimeIndex(numbers.astype(f"datetime64[{unit}]").astype("datetime64[s]"))
        return [str(label) for label in times.strftime(pattern)]

    return labels


def _number_weeks(times: pd.DatetimeIndex) -> np.ndarray:
    # 1970-01-01 was a Thursday: three days later the first Monday-based week would start.
    return (_number_since_epoch("D")(times) + 3) // 7


def _label_weeks(numbers: np.ndarray) -> list[str]:
    mondays = pd.DatetimeIndex((numbers * 7 - 3).astype("datetime64[D]").astype("datetime64[s]"))
    calendar = mondays.isocalendar()
    return [f"{year:04d}-{week:02d}" for year, week in zip(calendar.year, calendar.week, strict=True)]


def _number_months(times: pd.DatetimeIndex) -> np.ndarray:
    return times.year.to_numpy().astype(np.int64) * 12 + times.month.to_numpy() - 1


def _number_dekads(times: pd.DatetimeIndex) -> np.ndarray:
    return _number_months(times) * 3 + np.minimum((times.day.to_numpy() - 1) // 10, 2)


def _label_parts(per_year: int) -> Callable[[np.ndarray], list[str]]:
    return lambda numbers: [f"{n // per_year:04d}-{n % per_year + 1:02d}" for n in numbers.tolist()]


def _label_seasons(names: tuple[str, ...]) -> Callable[[np.ndarray], list[str]]:
    # The first season of a year begins in the year before and is named after the year in which it ends.
    return lambda numbers: [f"{n // len(names):04d}-{names[n % len(names)]}" for n in numbers.tolist()]


def _number_years(step: int, first: int) -> Callable[[pd.DatetimeIndex], np.ndarray]:
    return lambda times: (times.year.to_numpy().astype(np.int64) - first) // step


def _label_years(step: int, first: int) -> Callable[[np.ndarray], list[str]]:
    return lambda numbers: [f"{n * step + first:04d}" for n in numbers.tolist()]


PERIODS: Final = {
    "hour": Period(_number_since_epoch("h"), _format_labels("h", "%Y-%m-%d-%H"), prefix=11),
    "day": Period(_number_since_epoch("D"), _format_labels("D", "%Y-%j")),
    "week": Period(_number_weeks, _label_weeks),
    "dekad": Period(_number_dekads, _label_parts(36)),
    "month": Period(_number_months, _label_parts(12)),
    "season": Period(lambda times: (_number_months(times) + 1) // 3, _label_seasons(SEASONS)),
    "tropical-season": Period(
        lambda times: (_number_months(times) + 2) // 6, _label_seasons(TROPICAL_SEASONS)
    ),
    "year": Period(_number_years(1, 0), _label_years(1, 0), prefix=0),
    "decade": Period(_number_years(10, 0), _label_years(10, 0), prefix=0),
    "decade-ad": Period(_number_years(10, 1), _label_years(10, 1), prefix=0),
}
