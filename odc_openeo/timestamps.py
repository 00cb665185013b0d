"""Times as RFC 3339 strings in UTC: one function per precision."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np


def format_rfc3339(time: datetime) -> str:
    """Format a time to the second, as in the documents of jobs and services."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def format_rfc3339_ms(time: datetime) -> str:
    """Format a time to the millisecond, without a fraction if that is zero; a naive time is taken as UTC.

    Used for extents, which are compared with times of the same precision.
    """
    precision = "milliseconds" if time.microsecond else "seconds"
    return time.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def format_rfc3339_exact(time: datetime) -> str:
    """Format a time with all the digits it has: seconds, milliseconds or microseconds."""
    precision = (
        "seconds" if not time.microsecond else "milliseconds" if time.microsecond % 1000 == 0 else "auto"
    )
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def format_datetime64(time: np.datetime64) -> str:
    """Format a UTC time to the second, or to the millisecond if it has a fraction of a second."""
    seconds = time.astype("datetime64[s]")
    precise = seconds if seconds == time else time.astype("datetime64[ms]")
    return f"{np.datetime_as_string(precise)}Z"
