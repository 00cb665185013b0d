"""Calendar periods and intervals of times."""

import re

import numpy as np
import pandas as pd
import xarray as xr


def label_weeks(times):
    """Labels of ISO weeks: 2022-23."""
    calendar = pd.DatetimeIndex(times.values).isocalendar()
    labels = [f"{year:04d}-{week:02d}" for year, week in zip(calendar.year, calendar.week)]
    return times.copy(data=labels)


def label_dekads(times):
    """Labels of dekads, of which a month has three: 2022-16."""
    number = (times.dt.month - 1) * 3 + np.minimum((times.dt.day - 1) // 10, 2) + 1
    return times.copy(data=[f"{y:04d}-{n:02d}" for y, n in zip(times.dt.year.values, number.values)])


def label_seasons(times, names=("djf", "mam", "jja", "son")):
    """Labels of seasons; the first of a year begins in the year before: 2022-jja."""
    length = 12 // len(names)
    months = times.dt.year * 12 + times.dt.month - 1 + length // 3
    number = (months // length).values
    return times.copy(data=[f"{n // len(names):04d}-{names[n % len(names)]}" for n in number])


def label_tropical_seasons(times):
    """Labels of tropical seasons, of which a year has two: 2022-mjjaso."""
    return label_seasons(times, ("ndjfma", "mjjaso"))


def label_decades(times):
    """Labels of decades that begin with years ending in 0: 2020."""
    return times.copy(data=[f"{year // 10 * 10:04d}" for year in times.dt.year.values])


def label_decades_ad(times):
    """Labels of decades that begin with years ending in 1: 2021."""
    return times.copy(data=[f"{(year - 1) // 10 * 10 + 1:04d}" for year in times.dt.year.values])


def is_within(times, start, end):
    """Whether times are in a half-open interval of dates, or of times of day if these are given."""
    values = times.values
    if all(limit is None or re.fullmatch(r"\d\d:\d\d:\d\d", limit) for limit in (start, end)):
        seconds = (values - values.astype("datetime64[D]")) / np.timedelta64(1, "s")
        limits = [
            None if t is None else sum(int(p) * f for p, f in zip(t.split(":"), (3600, 60, 1)))
            for t in (start, end)
        ]
        low, high = 0 if limits[0] is None else limits[0], 86400 if limits[1] is None else limits[1]
        if low < high:
            return (seconds >= low) & (seconds < high)
        return (seconds >= low) | (seconds < high)
    after = True if start is None else values >= pd.Timestamp(start).tz_localize(None).to_datetime64()
    before = True if end is None else values < pd.Timestamp(end).tz_localize(None).to_datetime64()
    return np.broadcast_to(after & before, values.shape)


def reduce_groups(data, dimension, groups, reduce, empty=np.nan):
    """Reduce groups of labels, given by masks, and put the results along the dimension."""
    reduced = [reduce(data.isel({dimension: np.flatnonzero(mask)})) for mask in groups if mask.any()]
    like = reduced[0] if reduced else data.isel({dimension: 0}, drop=True)
    parts = iter(reduced)
    filled = [next(parts) if mask.any() else xr.full_like(like, empty, dtype=float) for mask in groups]
    return xr.concat(filled, dim=dimension)


def take_nearest(data, times, dimension):
    """The values at the nearest times; the earlier of two that are as near."""
    order = np.argsort(data[dimension].values, kind="stable")
    distance = np.abs(data[dimension].values[order][None, :] - times.values[:, None])
    return data.isel({dimension: order[distance.argmin(axis=1)]}).assign_coords({dimension: times})


def take_nearest_valid(data, times, dimension, days):
    """The valid value at the nearest time that is less than some days away; NaN if there is none."""
    source = data[dimension].values
    order = np.argsort(source, kind="stable")
    limit = np.timedelta64(round(max(days, 0) * 86_400_000_000_000), "ns")
    parts = []
    for time in times.values:
        nearest = order[np.argsort(np.abs(source[order] - time), kind="stable")]
        part = xr.full_like(data.isel({dimension: 0}, drop=True), np.nan, dtype=float)
        for position in nearest[np.abs(source[nearest] - time) < limit]:
            values = data.isel({dimension: position}, drop=True)
            part = part.where(part.notnull(), values.where(np.isfinite(values)))
        parts.append(part)
    return xr.concat(parts, dim=dimension).assign_coords({dimension: times})
