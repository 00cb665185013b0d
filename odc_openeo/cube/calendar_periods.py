"""Calendar periods: the one that a time falls into, the labels of consecutive ones, and when each begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import pandas as pd

SEASONS: Final = ("djf", "mam", "jja", "son")
TROPICAL_SEASONS: Final = ("ndjfma", "mjjaso")


@dataclass(frozen=True)
class Period:
    """A kind of calendar period.

    ``number`` maps times to consecutive integers, ``labels`` maps integers to labels, ``start`` maps integers
    to the instants at which the periods begin (``datetime64[s]``). ``parse`` is the inverse of ``labels`` for
    the groups of a match of ``pattern``; it raises ValueError if there is no such period. The first
    ``prefix`` characters of a label are the year (or date) and a dash; the rest repeats every year.
    """

    number: Callable[[pd.DatetimeIndex], np.ndarray]
    labels: Callable[[np.ndarray], list[str]]
    start: Callable[[np.ndarray], np.ndarray]
    pattern: str
    parse: Callable[..., int]
    prefix: int = 5

    def find_number(self, label: str) -> int | None:
        """Return the number of the period with this label, None if it is not a label of this kind."""
        match = re.fullmatch(self.pattern, label, re.ASCII)
        try:
            return None if match is None else self.parse(*match.groups())
        except ValueError:
            return None

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


def _count_units(unit: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda numbers: numbers.astype(f"datetime64[{unit}]").astype("datetime64[s]")


def _start_weeks(numbers: np.ndarray) -> np.ndarray:
    return (numbers * 7 - 3).astype("datetime64[D]").astype("datetime64[s]")


def _start_months(months: np.ndarray) -> np.ndarray:
    """Return the first instants of months, counted from the year 0."""
    return (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[s]")


def _start_dekads(numbers: np.ndarray) -> np.ndarray:
    return _start_months(numbers // 3) + (numbers % 3 * 10).astype("timedelta64[D]")


def _start_every(months: int, first: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda numbers: _start_months(numbers * months + first)


def _parse_hour(year: str, month: str, day: str, hour: str) -> int:
    if int(hour) > 23:
        raise ValueError(hour)
    days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
    return days * 24 + int(hour)


def _parse_day(year: str, day: str) -> int:
    last = date(int(year), 12, 31).timetuple().tm_yday
    return date(int(year), 1, 1).toordinal() - _EPOCH + _check_part(day, 1, last) - 1


def _parse_week(year: str, week: str) -> int:
    monday = date.fromisocalendar(int(year), 1, 1).toordinal() - _EPOCH
    return (monday + 3) // 7 + _check_part(week, 0, 53) - 1


def _parse_parts(per_year: int) -> Callable[[str, str], int]:
    return lambda year, part: int(year) * per_year + _check_part(part, 1, per_year) - 1


def _parse_season(names: tuple[str, ...]) -> Callable[[str, str], int]:
    return lambda year, name: int(year) * len(names) + names.index(name)


def _parse_years(step: int, first: int) -> Callable[[str], int]:
    def parse(year: str) -> int:
        number, remaining = divmod(int(year) - first, step)
        if remaining:
            raise ValueError(year)
        return number

    return parse


def _check_part(part: str, first: int, last: int) -> int:
    if not first <= int(part) <= last:
        raise ValueError(part)
    return int(part)


_EPOCH: Final = date(1970, 1, 1).toordinal()
_PARTS: Final = r"(\d{4})-(\d{2})"

PERIODS: Final = {
    "hour": Period(
        _number_since_epoch("h"),
        _format_labels("h", "%Y-%m-%d-%H"),
        _count_units("h"),
        r"(\d{4})-(\d{2})-(\d{2})-(\d{2})",
        _parse_hour,
        prefix=11,
    ),
    "day": Period(
        _number_since_epoch("D"),
        _format_labels("D", "%Y-%j"),
        _count_units("D"),
        r"(\d{4})-(\d{3})",
        _parse_day,
    ),
    "week": Period(_number_weeks, _label_weeks, _start_weeks, _PARTS, _parse_week),
    "dekad": Period(_number_dekads, _label_parts(36), _start_dekads, _PARTS, _parse_parts(36)),
    "month": Period(_number_months, _label_parts(12), _start_months, _PARTS, _parse_parts(12)),
    "season": Period(
        lambda times: (_number_months(times) + 1) // 3,
        _label_seasons(SEASONS),
        _start_every(3, -1),
        r"(\d{4})-(\w{3})",
        _parse_season(SEASONS),
    ),
    "tropical-season": Period(
        lambda times: (_number_months(times) + 2) // 6,
        _label_seasons(TROPICAL_SEASONS),
        _start_every(6, -2),
        r"(\d{4})-(\w{6})",
        _parse_season(TROPICAL_SEASONS),
    ),
    "year": Period(
        _number_years(1, 0), _label_years(1, 0), _start_every(12), r"(\d{4})", _parse_years(1, 0), prefix=0
    ),
    "decade": Period(
        _number_years(10, 0),
        _label_years(10, 0),
        _start_every(120),
        r"(\d{4})",
        _parse_years(10, 0),
        prefix=0,
    ),
    "decade-ad": Period(
        _number_years(10, 1),
        _label_years(10, 1),
        _start_every(120, 12),
        r"(\d{4})",
        _parse_years(10, 1),
        prefix=0,
    ),
}

_UNMISTAKABLE: Final = ("hour", "day", "month", "season", "tropical-season", "year")
"""Kinds that labels alone tell; those of weeks and dekads look like months, those of decades like years."""


def find_bounds(labels: Sequence[str], period: str | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the start and the end of the periods with these labels, as ``datetime64[s]``.

    Args:
        labels: labels of periods of one kind.
        period: the kind; None if it is unknown. Then ``2019-01`` is a month (as in ISO 8601) and ``2019`` a
            year.

    Returns:
        None if one of them is not the label of a period of that kind, or not of the kind of the others.
    """
    for name in _UNMISTAKABLE if period is None else (period,):
        numbers = [PERIODS[name].find_number(label) for label in labels]
        if all(number is not None for number in numbers):
            starts = np.array(numbers, dtype=np.int64)
            return PERIODS[name].start(starts), PERIODS[name].start(starts + 1)
    return None
