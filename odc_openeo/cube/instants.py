"""Instants and left-closed intervals of time, as clients write them: RFC 3339 dates and date-times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo.cube import PERIOD
from odc_openeo.cube.calendar_periods import find_bounds
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


# --- The instants of labels ----------------------------------------------------------------------


def find_instants(coordinate: xr.DataArray) -> np.ndarray | None:
    """Find the instants of the labels of a dimension as ``datetime64``; None if they have none.

    Labels are times, strings with a date or date-time, or the labels of calendar periods, whose instant is
    their start.
    """
    values = coordinate.values
    if values.dtype.kind == "M":
        return values
    instants = [parse_instant(v) if isinstance(v, str) else None for v in values.tolist()]
    if all(instant is not None for instant in instants):
        return np.array(instants, dtype="datetime64[us]")
    bounds = find_period_bounds(coordinate)
    return None if bounds is None else bounds[0].astype("datetime64[us]")


def find_period_bounds(coordinate: xr.DataArray) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the starts and ends of the calendar periods that a dimension is labelled with, if it is."""
    values = coordinate.values.tolist() if coordinate.dtype.kind in "OU" else []
    if not values or not all(isinstance(v, str) for v in values):
        return None
    return find_bounds(values, coordinate.attrs.get(PERIOD))


def get_times(data: xr.DataArray | xr.Dataset, dimension: str, process: str) -> np.ndarray:
    """Get the instants of the labels of a dimension as ``datetime64``.

    Raises:
        ProcessParameterInvalid: they are neither times, nor dates, nor labels of calendar periods.
    """
    coordinate = data.coords.get(dimension, xr.DataArray(np.arange(data.sizes[dimension]), dims=dimension))
    instants = find_instants(coordinate)
    if instants is None:
        example = coordinate.values.tolist()[0]
        reason = (
            f"the labels of dimension '{dimension}' are neither dates or times nor calendar periods, e.g. "
            f"{example!r}. Rename them with rename_labels."
        )
        raise ProcessParameterInvalid(process=process, parameter="data", reason=reason)
    return instants


def get_middle_times(data: xr.DataArray | xr.Dataset, dimension: str, process: str) -> np.ndarray:
    """Like `get_times`, with the middle of each calendar period: it lies in the year of the label."""
    coordinate = data.coords.get(dimension)
    bounds = None if coordinate is None else find_period_bounds(coordinate)
    return get_times(data, dimension, process) if bounds is None else bounds[0] + (bounds[1] - bounds[0]) // 2
