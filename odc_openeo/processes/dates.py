"""Dates and times as strings (RFC 3339): shift, compare, subtract.

A date without a time means midnight UTC. Daylight saving time and leap seconds are not considered.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import xarray as xr

from odc_openeo.cube.elementwise import labelwise
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Boolean, BooleanOrNull, Integer, Number

_UNITS: Final = ["millisecond", "second", "minute", "hour", "day", "week", "month", "year"]
_MICROSECONDS: Final = {
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_MONTHS: Final = {"month": 1, "year": 12}
_COMPONENTS: Final = {
    "millisecond": (0, 999),
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "year": (1, 9999),
}
"""The components of a date and time, and the smallest and largest value of each."""
_DATE_COMPONENTS: Final = ("year", "month", "day")

_DATE_TIME = {"type": "string", "format": "date-time", "subtype": "date-time"}
_DATE = {"type": "string", "format": "date", "subtype": "date"}
_TIME = {"type": "string", "subtype": "time", "pattern": "^\\d{2}:\\d{2}:\\d{2}$"}

Date = Annotated[str | xr.DataArray, Schema([_DATE_TIME, _DATE])]
DateOrTime = Annotated[str | xr.DataArray, Schema([_DATE_TIME, _DATE, _TIME])]
Limit = Annotated[str, Schema([_DATE_TIME, _DATE, _TIME])]
Component = Annotated[str, Schema({"type": "string", "enum": list(_COMPONENTS)})]
Unit = Annotated[str, Schema({"type": "string", "enum": _UNITS})]

_PATTERN = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?P<time>\d{2}:\d{2}:\d{2})(?P<fraction>\.\d+)?(?P<zone>[Zz]|[+-]\d{2}:\d{2})?)?"
)
_TIME_ONLY = re.compile(r"\d{2}:\d{2}:\d{2}")


@dataclass(frozen=True)
class Moment:
    """A date with or without time as written: the local date and time, and the time zone as a string."""

    local: datetime
    zone: str
    has_time: bool
    leap_second: bool = False

    @property
    def instant(self) -> datetime:
        """The instant in UTC."""
        offset = timedelta()
        if self.zone not in ("", "Z", "z"):
            hours, minutes = int(self.zone[1:3]), int(self.zone[4:6])
            offset = timedelta(hours=hours, minutes=minutes) * (-1 if self.zone[0] == "-" else 1)
        leap = timedelta(seconds=1) if self.leap_second else timedelta()
        return self.local.replace(tzinfo=UTC) - offset + leap

    def __str__(self) -> str:
        if not self.has_time:
            return self.local.date().isoformat()
        micro = self.local.microsecond
        unit = "seconds" if not micro else "microseconds" if micro % 1000 else "milliseconds"
        return f"{self.local.isoformat(timespec=unit)}{self.zone}"


def parse_moment(text: str) -> Moment:
    """Parse an RFC 3339 date or date and time.

    Raises:
        ValueError: the string is neither.
    """
    match = _PATTERN.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r:.60} is not a date like 2020-01-31 or a time like 2020-01-31T12:00:00Z")
    clock = match["time"] or "00:00:00"
    is_leap_second = clock.endswith(":60")
    local = datetime.fromisoformat(
        f"{match['date']}T{clock[:-2]}59" if is_leap_second else f"{match['date']}T{clock}"
    )
    microsecond = int((match["fraction"] or ".0")[1:7].ljust(6, "0"))
    return Moment(
        local.replace(microsecond=microsecond), match["zone"] or "", match["time"] is not None, is_leap_second
    )


# --- Processes -----------------------------------------------------------------------------------


@process(
    categories=["date & time"],
    examples=[
        Example({"date": "2020-02-01T17:22:45Z", "value": 6, "unit": "month"}, "2020-08-01T17:22:45Z"),
        Example({"date": "2020-01-31", "value": 1, "unit": "month"}, "2020-02-29"),
        Example({"date": "2018-01-01", "value": -1, "unit": "hour"}, "2017-12-31"),
        Example(
            {"date": "2018-12-31T17:22:45Z", "value": 1150, "unit": "millisecond"}, "2018-12-31T17:22:46.150Z"
        ),
    ],
)
def date_shift(date: Date, value: Integer, unit: Unit) -> Date:
    """Shift a date.

    Adds a period to a date or subtracts it. Time zone and format are kept: a date stays a date. If the
    resulting month is too short for the day, the last day of the month is used.

    Args:
        date: A date, with or without time.
        value: How many units to add; negative to subtract.
        unit: The unit of `value`.

    Returns:
        The shifted date.
    """
    return labelwise(lambda text: _shift_date(text, int(value), unit), date)


@process(
    categories=["comparison", "date & time"],
    examples=[
        Example({"x": "2020-01-01", "min": "2021-01-01", "max": "2022-01-01"}, False),
        Example({"x": "2020-01-01T01:00:00+01:00", "min": "2020-01-01", "max": "2020-01-02"}, True),
    ],
)
def date_between(x: DateOrTime, min: Limit, max: Limit, exclude_max: Boolean = False) -> BooleanOrNull:
    """Check whether a date is within a period.

    The period includes both limits. If they are swapped, no date is within it. If the limits are times of
    day, the time of day of `x` (in UTC) is compared.

    Args:
        x: A date, a date with time, or a time of day.
        min: The start of the period.
        max: The end of the period.
        exclude_max: Whether to exclude the end from the period.

    Returns:
        True or false.
    """
    return labelwise(lambda text: _is_date_between(text, min, max, exclude_max), x)


@process(
    categories=["comparison", "date & time"],
    examples=[
        Example({"date1": "2020-01-01T00:00:00.0Z", "date2": "2020-01-01T00:00:15.5Z"}, 15.5),
        Example({"date1": "2020-01-02", "date2": "2020-01-01", "unit": "day"}, -1),
    ],
    experimental=True,
)
def date_difference(date1: Date, date2: Date, unit: Unit = "second") -> Number:
    """Time between two dates.

    How much later `date2` is than `date1`. Months and years are calendar months and years; a remainder counts
    as a fraction of the month or year in which it falls.

    Args:
        date1: The date to subtract, with or without time.
        date2: The date to subtract from, with or without time.
        unit: The unit of the result.

    Returns:
        The difference, positive if `date2` is later.
    """
    return labelwise(lambda a, b: _subtract_dates(a, b, unit), date1, date2)


@process(
    categories=["date & time"],
    experimental=True,
    examples=[
        Example({"date": "2020-02-01T17:22:45Z", "value": 15, "component": "day"}, "2020-02-15T17:22:45Z"),
        Example({"date": "2020-01-31", "value": 2, "component": "month"}, "2020-02-29"),
    ],
)
def date_replace_component(date: Date, value: Integer, component: Component) -> Date:
    """Replace a component of a date.

    Sets the year, month, day, hour, minute, second or millisecond to a value. The other components, the time
    zone and the format are kept: a date stays a date. If the resulting month is too short for the day, the
    last day of the month is used.

    Args:
        date: A date, with or without time.
        value: The new value of the component: months and days are counted from 1, all others from 0.
        component: The component to replace. A date without time has no hours, minutes, seconds and
            milliseconds.

    Returns:
        The date with the new component.
    """
    return labelwise(lambda text: _replace_component(text, int(value), component), date)


# --- Calculation ---------------------------------------------------------------------------------


def _parse_argument(text: str, name: str, parameter: str) -> Moment:
    try:
        moment = parse_moment(text)
        moment.instant  # noqa: B018  (the time zone may shift it beyond the years 1 to 9999)
        return moment
    except (ValueError, TypeError, OverflowError) as error:
        raise ProcessParameterInvalid(process=name, parameter=parameter, reason=f"{error}.") from error


def _shift_date(text: str, value: int, unit: str) -> str:
    moment = _parse_argument(text, "date_shift", "date")
    try:
        shifted = add_period(moment.local, value, unit)
    except OverflowError as error:
        reason = "the shifted date is outside the years 1 to 9999."
        raise ProcessParameterInvalid(process="date_shift", parameter="value", reason=reason) from error
    return str(Moment(shifted, moment.zone, moment.has_time))


def _replace_component(text: str, value: int, component: str) -> str:
    moment = _parse_argument(text, "date_replace_component", "date")
    if component not in _DATE_COMPONENTS and not moment.has_time:
        reason = f"{text!r} has no time of day whose {component} could be replaced."
        raise ProcessParameterInvalid(process="date_replace_component", parameter="date", reason=reason)
    low, high = _COMPONENTS[component]
    if not low <= value <= high:
        reason = f"{value} is not a valid {component}; it must be from {low} to {high}."
        raise ProcessParameterInvalid(process="date_replace_component", parameter="value", reason=reason)
    parts: dict[str, Any] = {"year": moment.local.year, "month": moment.local.month, "day": moment.local.day}
    if component in parts:
        parts[component] = value
        last = calendar.monthrange(parts["year"], parts["month"])[1]
        replaced = moment.local.replace(**{**parts, "day": min(parts["day"], last)})
    elif component == "millisecond":
        replaced = moment.local.replace(microsecond=value * 1000)
    else:
        clock: dict[str, Any] = {component: value}
        replaced = moment.local.replace(**clock)
    return str(Moment(replaced, moment.zone, moment.has_time))


def add_period(start: datetime, value: int, unit: str) -> datetime:
    """Add a number of units to a time; the day is capped at the last day of the resulting month.

    Raises:
        OverflowError: the result is outside the years 1 to 9999.
    """
    if unit not in _MONTHS:
        return start + timedelta(microseconds=value * _MICROSECONDS[unit])
    year, month = divmod(start.year * 12 + start.month - 1 + value * _MONTHS[unit], 12)
    if not 1 <= year <= 9999:
        raise OverflowError(year)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


def _is_date_between(x: str | None, low: str, high: str, exclude_max: bool) -> bool | None:
    if x is None:
        return None
    limits = [("min", low), ("max", high)]
    are_times_of_day = [bool(_TIME_ONLY.fullmatch(text)) for _, text in limits]
    if any(are_times_of_day) or _TIME_ONLY.fullmatch(x):
        if not all(are_times_of_day):
            reason = "times of day can't be compared with dates."
            raise ProcessParameterInvalid(process="date_between", parameter="x", reason=reason)
        return _is_in_range(_time_of_day(x), low, high, exclude_max)
    start, end = (_parse_argument(text, "date_between", name).instant for name, text in limits)
    return _is_in_range(_parse_argument(x, "date_between", "x").instant, start, end, exclude_max)


def _time_of_day(text: str) -> str:
    if _TIME_ONLY.fullmatch(text):
        return text
    return _parse_argument(text, "date_between", "x").instant.time().isoformat()


def _is_in_range(value: Any, low: Any, high: Any, exclude_max: bool) -> bool:
    return bool(low <= value < high if exclude_max else low <= value <= high)


def _subtract_dates(first: str, second: str, unit: str) -> float:
    start = _parse_argument(first, "date_difference", "date1").instant
    end = _parse_argument(second, "date_difference", "date2").instant
    if unit in _MONTHS:
        return (
            _calendar_difference(start, end, unit)
            if start <= end
            else -_calendar_difference(end, start, unit)
        )
    microseconds = (end - start) // timedelta(microseconds=1)
    count, remainder = divmod(microseconds, _MICROSECONDS[unit])
    return microseconds / _MICROSECONDS[unit] if remainder else count


def _calendar_difference(start: datetime, end: datetime, unit: str) -> float:
    count = ((end.year - start.year) * 12 + end.month - start.month) // _MONTHS[unit]
    if add_period(start, count, unit) > end:
        count -= 1
    lower = add_period(start, count, unit)
    try:
        upper = add_period(start, count + 1, unit)
    except OverflowError:
        upper = lower + timedelta(days=31 * _MONTHS[unit])
    fraction = (end - lower) / (upper - lower)
    return count + fraction if fraction else count
