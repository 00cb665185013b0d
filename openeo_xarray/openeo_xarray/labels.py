"""Labels of dimensions as process graphs have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from openeo_xarray.errors import UnsupportedOperation

SECOND = np.timedelta64(1, "s")


def format_time(time: np.datetime64) -> str:
    """A time as RFC 3339, in UTC."""
    return f"{np.datetime_as_string(time, unit='ms')}Z".replace(".000Z", "Z")


def format_label(label: Any) -> Any:
    """A label as JSON."""
    if isinstance(label, np.datetime64):
        return format_time(label)
    return label.item() if isinstance(label, np.generic) else label


def format_labels(labels: np.ndarray) -> list[Any]:
    """Labels as JSON."""
    return [format_label(label) for label in labels]


def describe_interval(labels: np.ndarray, first: int, last: int) -> list[str]:
    """The half-open interval with the labels from one to another position, and no further ones."""
    chosen = labels[first : last + 1]
    start, latest = chosen.min(), chosen.max()
    later = labels[labels > latest]
    end = min(later.min(), latest + SECOND) if later.size else latest + SECOND
    if ((labels >= start) & (labels < end)).sum() > len(chosen):
        raise UnsupportedOperation(
            "a group of times that are not consecutive", "sort by time before grouping"
        )
    return [format_time(start), format_time(end)]


def describe_group(labels: np.ndarray, first: int, last: int) -> list[str]:
    """An interval with the labels from one to another position that has none of them at its ends.

    openEO's intervals have their start and not their end; openeo-processes-dask takes those of
    `aggregate_temporal` the other way round. Without labels there, it makes no difference.
    """
    _, end = describe_interval(labels, first, last)
    earliest = labels[first : last + 1].min()
    earlier = labels[labels < earliest]
    gap = min(SECOND, (earliest - earlier.max()) // 2) if earlier.size else SECOND
    begin = format_time(earliest - gap)
    later = labels[labels > labels[first : last + 1].max()]
    if later.size and format_time(later.min()) == end:
        latest = labels[first : last + 1].max()
        end = format_time(latest + (later.min() - latest) // 2)
    return [begin, end]
