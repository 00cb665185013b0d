"""Times of netCDF files: units and calendars of CF as instants of the standard calendar."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from xarray.coders import CFDatetimeCoder

MONTHS: Final = {"month": 1, "months": 1, "mon": 1, "year": 12, "years": 12, "yr": 12, "common_year": 12}
"""Units that have no fixed length, in months."""

STANDARD: Final = ("", "standard", "gregorian", "proleptic_gregorian")
_SINCE: Final = re.compile(r"\s*(\w+)\s+since\s+(\S.*)", re.IGNORECASE)
_DAYS_AS_NUMBERS: Final = "day as %y%m%d.%f"
LIMITS: Final = "dates from 1678 to 2261 can be used"


class TimesRefusedError(ValueError):
    """Times cannot be read; the message is a sentence that begins with "its"."""


def is_time(coordinate: xr.DataArray) -> bool:
    """Whether the unit of a coordinate is one of time since some date."""
    unit = str(coordinate.attrs.get("units", ""))
    return bool(_SINCE.match(unit)) or unit.strip().lower() == _DAYS_AS_NUMBERS


def decode_times(coordinate: xr.DataArray) -> xr.DataArray:
    """Decode the numbers of a coordinate with a unit of time to ``datetime64[ns]``.

    Months and years are those of the calendar, and must be whole. Dates of other calendars become the same
    dates of the standard one.

    Raises:
        TimesRefusedError: the unit or the calendar has no unambiguous meaning in the standard calendar.
    """
    unit = str(coordinate.attrs["units"])
    calendar = str(coordinate.attrs.get("calendar", "")).lower()
    if coordinate.dtype.kind not in "iuf":
        raise TimesRefusedError(f"its times in '{coordinate.name}' are not numbers.")
    match = _SINCE.match(unit)
    if coordinate.dtype.kind == "f" and not np.isfinite(coordinate.values).all():
        raise TimesRefusedError(f"its coordinate '{coordinate.name}' has missing times.")
    if match is None:
        times = _decode_days_as_numbers(coordinate)
    elif match[1].lower() in MONTHS:
        times = _decode_months(coordinate, match[1], match[2], calendar)
    else:
        times = _decode_units(coordinate, unit, calendar)
    return xr.DataArray(times, dims=coordinate.dims, name=coordinate.name)


def _decode_days_as_numbers(coordinate: xr.DataArray) -> np.ndarray:
    """Decode numbers such as 20240131.25, a quarter of the day after midnight."""
    days = np.floor(coordinate.values.astype(float))
    try:
        dates = pd.to_datetime([f"{int(day):08}" for day in days], format="%Y%m%d")
    except ValueError as error:
        reason = (
            f"its coordinate '{coordinate.name}' has numbers that are not dates (unit 'day as %Y%m%d.%f')."
        )
        raise TimesRefusedError(reason) from error
    return (dates + pd.to_timedelta(coordinate.values - days, "D")).to_numpy("datetime64[ns]")


def _decode_months(coordinate: xr.DataArray, unit: str, start: str, calendar: str) -> np.ndarray:
    months = coordinate.values.astype(float) * MONTHS[unit.lower()]
    whole = np.round(months)
    begin = _decode_units(xr.DataArray([0], name=coordinate.name), f"days since {start}", calendar)[0]
    if np.abs(months - whole).max(initial=0) > 1e-6 or pd.Timestamp(begin).day > 28:
        raise TimesRefusedError(
            f"its coordinate '{coordinate.name}' has the unit '{coordinate.attrs['units']}': only whole "
            f"{unit} since a day up to the 28th are unambiguous. Store the times in days since a date."
        )
    if np.abs(whole).max(initial=0) > 12_000:
        raise _make_range_error(coordinate)
    try:
        times = [pd.Timestamp(begin) + pd.DateOffset(months=int(n)) for n in whole]
        return pd.DatetimeIndex(times).to_numpy("datetime64[ns]")
    except (pd.errors.OutOfBoundsDatetime, OverflowError, ValueError) as error:
        raise _make_range_error(coordinate) from error


def _decode_units(coordinate: xr.DataArray, unit: str, calendar: str) -> np.ndarray:
    attrs = {"units": unit, **({"calendar": calendar} if calendar else {})}
    variable = xr.Variable(coordinate.dims, coordinate.values, attrs)
    times = _decode_variable(variable, coordinate, unit, calendar)
    if times.dtype.kind == "M":
        return times.astype("datetime64[ns]")
    if calendar in STANDARD:
        raise _make_range_error(coordinate)
    return _convert_dates(coordinate, times, calendar)


def _decode_variable(variable: xr.Variable, coordinate: xr.DataArray, unit: str, calendar: str) -> np.ndarray:
    """Decode to ``datetime64``, or to dates as objects if they are of another calendar or out of range."""
    for use_cftime in (None, True):
        coder = CFDatetimeCoder(use_cftime=use_cftime, time_unit="ns")
        try:
            return np.asarray(coder.decode(variable, str(coordinate.name)).values)
        except (ValueError, OverflowError, KeyError):
            continue
    raise TimesRefusedError(
        f"its coordinate '{coordinate.name}' has the unit '{unit[:80]}' in the calendar "
        f"'{calendar[:40] or 'standard'}', which cannot be read as dates. Store the times in days or seconds "
        "since a date."
    )


def _convert_dates(coordinate: xr.DataArray, dates: np.ndarray, calendar: str) -> np.ndarray:
    """Convert dates of another calendar to the same dates of the standard one."""
    if calendar == "julian":
        raise _make_calendar_error(coordinate, calendar, "whose dates are other days")
    times = []
    for date in dates.ravel():
        if not 1678 <= date.year <= 2261:
            raise _make_range_error(coordinate)
        try:
            times.append(_to_timestamp(date))
        except ValueError as error:
            day = f"{date.year:04}-{date.month:02}-{date.day:02}"
            reason = f"which has the day {day}; there is no such day"
            raise _make_calendar_error(coordinate, calendar, reason) from error
    return np.array(times, "datetime64[ns]").reshape(dates.shape)


def _to_timestamp(date: Any) -> pd.Timestamp:
    return pd.Timestamp(
        date.year, date.month, date.day, date.hour, date.minute, date.second, date.microsecond
    )


def _make_calendar_error(coordinate: xr.DataArray, calendar: str, reason: str) -> TimesRefusedError:
    return TimesRefusedError(
        f"its times in '{coordinate.name}' are in the calendar '{calendar}', {reason} in the standard "
        "calendar. Convert them first, with xarray's convert_calendar for example."
    )


def _make_range_error(coordinate: xr.DataArray) -> TimesRefusedError:
    return TimesRefusedError(f"its coordinate '{coordinate.name}' has times out of range: {LIMITS}.")
