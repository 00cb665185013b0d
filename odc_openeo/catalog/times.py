"""Times and intervals as STAC and CQL2 write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from odc_openeo.errors import RequestInvalid

Bounds = tuple[datetime | None, datetime | None]

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")
OPEN = ("", "..")


def parse_interval(text: str) -> Bounds:
    """Parse a time, a date or an interval (``2022-06-01T00:00:00Z/..``) into its first and last moment.

    Both belong to the interval; a date is the whole day. None is open.

    Raises:
        RequestInvalid: it is not valid, open on both sides, or its end is before its start.
    """
    ends = text.strip().split("/")
    if len(ends) > 2 or all(end in OPEN for end in ends):
        raise _invalid_time(text)
    start = None if ends[0] in OPEN else parse_instant(ends[0])
    end = None if ends[-1] in OPEN else _parse_last(ends[-1])
    if start is not None and end is not None and end < start:
        raise RequestInvalid(f"The interval '{text}' ends before it starts. Swap its ends.")
    return start, end


def parse_instant(text: str) -> datetime:
    """Parse an RFC 3339 time to UTC; a date is the start of that day.

    Raises:
        RequestInvalid: it is not a valid time.
    """
    try:
        if DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if MOMENT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _invalid_time(text)


def _parse_last(text: str) -> datetime:
    moment = parse_instant(text)
    return moment + timedelta(days=1, microseconds=-1) if DATE.fullmatch(text) else moment


def _invalid_time(text: str) -> RequestInvalid:
    return RequestInvalid(
        f"'{text[:100]}' is not a valid time. Write 2022-06-01T00:00:00Z, or an interval such as "
        "2022-06-01T00:00:00Z/2022-07-01T00:00:00Z or 2022-06-01T00:00:00Z/.. ."
    )


def shift_moment(moment: datetime, by: timedelta) -> datetime:
    """Shift a time in UTC, at most to the first or last moment of the calendar."""
    try:
        return moment + by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if by < timedelta() else datetime.max.replace(tzinfo=UTC)
