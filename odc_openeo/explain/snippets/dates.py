"""Dates and times as strings of RFC 3339."""

import datetime
import re

import pandas as pd

MONTHS = {"month": 1, "year": 12}


def parse_date(text):
    """The local time of a date or date-time, its zone as written, and whether it has a time."""
    match = re.fullmatch(r"([^Tt ]+)(?:[Tt ](\d\d:\d\d:\d\d)(\.\d+)?(.*))?", text)
    clock = match[2] or "00:00:00"
    leap = clock.endswith(":60")
    clock = f"{clock[:-2]}59" if leap else clock
    fraction = (match[3] or ".0")[1:7].ljust(6, "0")
    local = datetime.datetime.fromisoformat(f"{match[1]}T{clock}.{fraction}")
    return local, match[4] or "", match[2] is not None, leap


def find_instant(text):
    """The instant of a date or date-time in UTC."""
    local, zone, _, leap = parse_date(text)
    offset = datetime.timedelta()
    if zone not in ("", "Z", "z"):
        offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        offset = -offset if zone[0] == "-" else offset
    return local - offset + datetime.timedelta(seconds=leap)


def write_date(local, zone, has_time):
    """A date or date-time as a string, with fractions of seconds if there are any."""
    if not has_time:
        return local.date().isoformat()
    micro = local.microsecond
    digits = "seconds" if not micro else "microseconds" if micro % 1000 else "milliseconds"
    return f"{local.isoformat(timespec=digits)}{zone}"


def add_period(start, value, unit):
    """A time that is so many units later; short months end earlier."""
    if unit in MONTHS:
        return (pd.Timestamp(start) + pd.DateOffset(months=value * MONTHS[unit])).to_pydatetime()
    return start + datetime.timedelta(**{f"{unit}s": value})


def shift_date(text, value, unit):
    """Shift a date by a number of units; zone and format stay."""
    local, zone, has_time, _ = parse_date(text)
    return write_date(add_period(local, int(value), unit), zone, has_time)


def replace_component(text, value, component):
    """Replace a component of a date; short months end earlier."""
    local, zone, has_time, _ = parse_date(text)
    if component in ("year", "month", "day"):
        parts = {"year": local.year, "month": local.month, "day": local.day, component: int(value)}
        last = pd.Period(year=parts["year"], month=parts["month"], freq="M").days_in_month
        local = local.replace(**{**parts, "day": min(parts["day"], last)})
    elif component == "millisecond":
        local = local.replace(microsecond=int(value) * 1000)
    else:
        local = local.replace(**{component: int(value)})
    return write_date(local, zone, has_time)


def is_date_between(text, start, end, exclude_end=False):
    """Whether a date is in a period; times of day are compared as such."""
    if text is None:
        return None
    if re.fullmatch(r"\d\d:\d\d:\d\d", start):
        is_clock = re.fullmatch(r"\d\d:\d\d:\d\d", text)
        text = text if is_clock else find_instant(text).time().isoformat()
    else:
        text, start, end = (find_instant(value) for value in (text, start, end))
    return start <= text < end if exclude_end else start <= text <= end


def subtract_dates(first, second, unit):
    """How much later the second date is, in units; months and years are those of the calendar."""
    start, end = find_instant(first), find_instant(second)
    if unit not in MONTHS:
        return (end - start) / datetime.timedelta(**{f"{unit}s": 1})
    if start > end:
        return -subtract_dates(second, first, unit)
    count = ((end.year - start.year) * 12 + end.month - start.month) // MONTHS[unit]
    if add_period(start, count, unit) > end:
        count -= 1
    lower, upper = add_period(start, count, unit), add_period(start, count + 1, unit)
    return count + (end - lower) / (upper - lower)
