"""Instants and left-closed intervals of time, as clients write them: RFC 3339 dates and date-times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from odc_openeo.errors import ProcessParameterInvalid, TemporalExtentEmpty

_DATE = r"\d{4}-\d{2}-\d{2}"
_INSTANT = re.compile(rf"{_DATE}([Tt ]\d{{2}}:\d{{2}}(:\d{{2}}(\.\d+)?)?([Zz]|[+-]\d{{2}}:?\d{{2}})?)?")


def parse_instant(text: str) -> np.datetime64 | None:
    """Parse a date or date-time as ``datetime64[us]`` in UTC; None if the string is neither.

    The time zone defaults to UTC, the time to midnight.
    """
    if not _INSTANT.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text.upper())
        if time.tzinfo is not None:
            time = time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return np.datetime64(time, "us")


def parse_interval(
    extent: Sequence[str | None], process: str, parameter: str
) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """Parse both ends of a temporal interval, in UTC; None is an open end.

    Raises:
        TemporalExtentEmpty: the end is not later than the start.
        ProcessParameterInvalid: an end is not a valid date or date-time, or both are open.
    """
    start, end = (_parse_end(text, process, parameter) for text in extent)
    if start is None and end is None:
        reason = "both ends are null. Give a start or an end, or leave the filter out."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    if start is not None and end is not None and end <= start:
        raise TemporalExtentEmpty(start=extent[0], end=extent[1])
    return start, end


def _parse_end(text: Any, process: str, parameter: str) -> np.datetime64 | None:
    if text is None:
        return None
    instant = parse_instant(text) if isinstance(text, str) else None
    if instant is None:
        reason = f"{text!r} is neither a date (2022-06-01) nor a date-time (2022-06-01T12:00:00Z)."
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
    return instant


def mask_within(times: np.ndarray, start: np.datetime64 | None, end: np.datetime64 | None) -> np.ndarray:
    """Mask of the times (``datetime64``) that are at or after the start and before the end."""
    # Floored to microseconds, the unit of the ends: nanoseconds would not hold years outside 1678-2262.
    floored = times.astype("datetime64[us]")
    inside = np.ones(times.shape, dtype=bool)
    if start is not None:
        inside &= floored >= start
    if end is not None:
        inside &= floored < end
    return inside
