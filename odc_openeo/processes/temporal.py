"""Processes that aggregate and resample along time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Annotated, Any

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.budget import check_count
from odc_openeo.demand import Demand, hull, over
from odc_openeo.errors import (
    ArrayElementNotAvailable,
    DimensionMismatch,
    DistinctDimensionLabelsRequired,
    ProcessGraphComplexity,
    ProcessParameterInvalid,
    TemporalExtentEmpty,
)
from odc_openeo.process import Schema, process
from odc_openeo.processes.children import constant, field, restored, without_dimension
from odc_openeo.processes.concatenation import concat
from odc_openeo.processes.filters import INSTANT, OptionalName, times
from odc_openeo.processes.grouping import grouped
from odc_openeo.processes.instants import interval, within
from odc_openeo.processes.labels import coordinate, typed
from odc_openeo.processes.periods import PERIODS
from odc_openeo.processes.schemas import AnyValue, LabeledReducer, TemporalCube

_MOST_DAYS = 100_000
"""Days that nanoseconds in 64 bits can count."""
MOST_INTERVALS = 5_000
"""Intervals of a node, each of which the reducer is called for."""
MOST_LABELS = 100_000
"""Largest number of periods in one aggregation."""

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d|24:00:00")
_TIME: dict[str, Any] = {"type": "string", "subtype": "time", "pattern": r"^\d{2}:\d{2}:\d{2}$"}
_INTERVAL = {
    "type": "array",
    "subtype": "temporal-interval",
    "uniqueItems": True,
    "minItems": 2,
    "maxItems": 2,
    "items": {"anyOf": [*INSTANT["anyOf"][:2], _TIME, {"type": "null"}]},
}
Intervals = Annotated[
    Sequence[Sequence[str | None]],
    Schema({"type": "array", "subtype": "temporal-intervals", "minItems": 1, "items": _INTERVAL}),
]
Labels = Annotated[
    Sequence[int | float | str],
    Schema({"type": "array", "uniqueItems": True, "items": {"type": ["number", "string"]}}),
]
PeriodName = Annotated[
    str,
    Schema({"type": "string", "enum": list(PERIODS)}),
]
Days = Annotated[float | None, Schema({"type": ["number", "null"]})]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    intervals = arguments.get("intervals")
    if not isinstance(intervals, list) or arguments.get("dimension") not in (None, cube.T):
        return {"data": demand.at_all_times()}
    return {"data": replace(demand, interval=hull(intervals))}


@process(categories=["cubes", "aggregate"], needs=_needs, pointwise=True)
def aggregate_temporal(
    data: TemporalCube,
    intervals: Intervals,
    reducer: LabeledReducer,
    labels: Labels = (),
    dimension: OptionalName = None,
    context: AnyValue = None,
) -> TemporalCube:
    """Reduce the values of each of some temporal intervals to one.

    Intervals contain their start, not their end, and may overlap. If only times of day are given, an interval
    gathers that part of all days; it may go over midnight.

    Args:
        data: A data cube.
        intervals: Pairs of start and end: dates, date-times, or times of day (HH:MM:SS); null is open.
        reducer: Called with the values in an interval as the labelled array `data`, which may be empty;
            returns one value.
        labels: The labels of the intervals. By default their starts.
        dimension: The name of the temporal dimension; it may be null if there is only one.
        context: Anything to pass on to the reducer.

    Returns:
        The data cube with one label an interval along the temporal dimension.

    Raises:
        TooManyDimensions: The cube has several temporal dimensions and none is named.
        DimensionNotAvailable: The cube has no temporal dimension, or none of that name.
        DistinctDimensionLabelsRequired: Two labels are equal, or intervals have the same start and there are
            no labels.
        TemporalExtentEmpty: The end of an interval is not later than its start.
    """
    advice = "Split them over several nodes, or use aggregate_temporal_period."
    check_count(len(intervals), MOST_INTERVALS, "intervals", advice)
    name = cube.temporal_dimension(data, dimension)
    instants = times(data, name, "aggregate_temporal")
    groups = [np.flatnonzero(_in_interval(instants, pair)) for pair in intervals]
    new = _interval_labels(intervals, labels)
    return _aggregated(data, name, groups, new, reducer, context, "aggregate_temporal")


def _in_interval(instants: np.ndarray, pair: Sequence[str | None]) -> np.ndarray:
    of_day = [text is None or _TIME_OF_DAY.fullmatch(text) is not None for text in pair]
    if not all(of_day) or pair[0] is None and pair[1] is None:
        return within(instants, *interval(pair, "aggregate_temporal", "intervals"))
    start, end = (_seconds(text) for text in pair)
    days = instants.astype("datetime64[us]").astype("datetime64[D]")
    of_time = (instants.astype("datetime64[us]") - days) / np.timedelta64(1, "s")
    start, end = (0 if start is None else start), (86400 if end is None else end)
    if start == end:
        raise TemporalExtentEmpty(start=pair[0], end=pair[1])
    if start < end:
        return (of_time >= start) & (of_time < end)
    return (of_time >= start) | (of_time < end)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _interval_labels(intervals: Sequence[Sequence[str | None]], labels: Sequence[Any]) -> list[Any]:
    if labels:
        if len(labels) != len(intervals):
            reason = f"there are {len(labels)} labels for {len(intervals)} intervals."
            raise ProcessParameterInvalid(process="aggregate_temporal", parameter="labels", reason=reason)
        if len(set(labels)) != len(labels):
            raise DistinctDimensionLabelsRequired()
        return list(labels)
    starts = [pair[0] for pair in intervals]
    if len(set(starts)) != len(starts) or None in starts:
        raise DistinctDimensionLabelsRequired()
    return starts


@process(categories=["aggregate", "climatology", "cubes"], needs=over(cube.T), pointwise=True)
def aggregate_temporal_period(
    data: TemporalCube,
    period: PeriodName,
    reducer: LabeledReducer,
    dimension: OptionalName = None,
    context: AnyValue = None,
) -> TemporalCube:
    """Reduce the values of each calendar period to one.

    The result has a label for every period from the first to the last time of the cube; periods without
    any time get what the reducer makes of an empty array, mostly no-data.

    Labels are `2022-06-01-13` (`hour`), `2022-152` (`day` of the year), `2022-22` (`week`, ISO 8601, with
    the year the week belongs to), `2022-16` (`dekad`: ten days, 36 a year), `2022-06` (`month`),
    `2022-jja` (`season`: `djf`, `mam`, `jja`, `son`), `2022-mjjaso` (`tropical-season`: `ndjfma`,
    `mjjaso`), `2022` (`year`), `2020` (`decade` 2020-2029), `2021` (`decade-ad` 2021-2030). Seasons that
    begin in the year before have the year in which they end.

    Args:
        data: A data cube.
        period: The kind of period.
        reducer: Called with the values in a period as the labelled array `data`, which may be empty;
            returns one value.
        dimension: The name of the temporal dimension; it may be null if there is only one.
        context: Anything to pass on to the reducer.

    Returns:
        The data cube with one label a period along the temporal dimension.

    Raises:
        TooManyDimensions: The cube has several temporal dimensions and none is named.
        DimensionNotAvailable: The cube has no temporal dimension, or none of that name.
    """
    name = cube.temporal_dimension(data, dimension)
    instants = pd.DatetimeIndex(times(data, name, "aggregate_temporal_period"))
    kind = PERIODS[period]
    numbers = kind.number(instants)
    if not numbers.size:
        return _without_times(data, name)
    first, last = int(numbers.min()), int(numbers.max())
    if last - first >= MOST_LABELS:
        reason = f"{last - first + 1} periods of kind '{period}'. Filter the time or choose a longer period."
        raise ProcessGraphComplexity(reason=reason)
    labels = kind.labels(np.arange(first, last + 1))
    at_once = grouped(data, name, numbers - first, len(labels), reducer)
    if at_once is not None:
        return at_once.assign_coords({name: coordinate(name, labels, cube.dimension_type(data, name))})
    groups = _groups(numbers - first, len(labels))
    return _aggregated(data, name, groups, labels, reducer, context, "aggregate_temporal_period")


def _groups(numbers: np.ndarray, count: int) -> list[np.ndarray]:
    """The positions of each number from 0 to count - 1."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers, minlength=count))[:-1])


def _without_times(data: xr.DataArray, name: str) -> xr.DataArray:
    coord = typed(xr.DataArray(np.array([], dtype=str), dims=name), name, "temporal")
    return data.assign_coords({name: coord})


def _aggregated(
    data: xr.DataArray,
    name: str,
    groups: Sequence[np.ndarray],
    labels: Sequence[Any],
    reducer: Callable[..., Any],
    context: Any,
    process: str,
) -> xr.DataArray:
    """One value for each group of positions along a dimension, with these labels."""
    like = without_dimension(data, name)

    def reduced(positions: np.ndarray) -> xr.DataArray:
        part = data.isel({name: cube.as_slice(positions)})
        result = reducer(data=cube.to_array(part, name), context=context)
        return field(result, like, process, "reducer").expand_dims(name)

    found = {i: reduced(g) for i, g in enumerate(groups) if g.size}
    empty = None
    if len(found) < len(groups):
        empty = _of_nothing(reducer, context, next(iter(found.values()), like.expand_dims(name)))
    joined = concat(list(_parts(groups, found, empty, name)), name).transpose(*data.dims)
    # Coordinates of single times mean nothing for a period.
    lost = [n for n, c in joined.coords.items() if name in c.dims and n != cube.NODATA]
    coord = coordinate(name, labels, cube.dimension_type(data, name))
    return joined.drop_vars(lost).assign_coords({name: coord})


def _of_nothing(reducer: Callable[..., Any], context: Any, like: xr.DataArray) -> xr.DataArray:
    """What the reducer makes of no values at all: no-data unless it has something else to say (as count
    has)."""
    try:
        value = reducer(data=[], context=context)
    except ArrayElementNotAvailable:
        value = None
    if isinstance(value, xr.DataArray):
        return xr.broadcast(value, like)[0].transpose(*like.dims)
    if isinstance(value, float) and np.isnan(value):
        value = None
    return constant(value, like)


def _parts(
    groups: Sequence[np.ndarray], found: dict[int, xr.DataArray], empty: xr.DataArray | None, name: str
) -> Iterator[xr.DataArray]:
    """The reduced groups in order; a run of empty groups is one part."""
    for is_empty, run in groupby(range(len(groups)), key=lambda i: not groups[i].size):
        members = list(run)
        if is_empty and empty is not None:
            yield empty.isel({name: 0}, drop=True).expand_dims({name: len(members)})
        else:
            yield from (found[i] for i in members)


def _needs_of_resampling(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Of the target the times count only.
    needed = demand.at_all_times()
    return {"data": needed, "target": replace(needed.of_all_bands(), grid=None)}


@process(categories=["cubes", "reproject"], needs=_needs_of_resampling, pointwise=True)
def resample_cube_temporal(
    data: TemporalCube, target: TemporalCube, dimension: OptionalName = None, valid_within: Days = None
) -> TemporalCube:
    """Take the values nearest to the times of another cube.

    Of two times equally near the earlier one counts.

    Args:
        data: The data cube to resample.
        target: The data cube that has the times wanted.
        dimension: The name of a temporal dimension of both cubes; all that both have if it is null.
        valid_within: If given, only values that are valid and nearer than so many days are taken, pixel by
            pixel; where there are none the result is no-data.

    Returns:
        The data cube with the temporal labels of the target.

    Raises:
        DimensionMismatch: A dimension is not temporal in one of the cubes, or they have none in common.
        DimensionNotAvailable: A cube has no dimension of that name.
    """
    for name in _shared_times(data, target, dimension):
        own, wanted = (
            times(c, name, "resample_cube_temporal").astype("datetime64[ns]") for c in (data, target)
        )
        picked = _nearest(data, name, own, wanted, valid_within)
        coord = typed(target.coords[name].reset_coords(drop=True), name, "temporal")
        lost = [n for n, c in picked.coords.items() if name in c.dims]
        data = picked.drop_vars(lost).assign_coords({name: coord})
    return data


def _shared_times(data: xr.DataArray, target: xr.DataArray, dimension: str | None) -> list[str]:
    if dimension is not None:
        for one in (data, target):
            cube.require_dimension(one, dimension)
            if cube.dimension_type(one, dimension) != "temporal":
                raise DimensionMismatch(reason=f"'{dimension}' is not temporal in both cubes.")
        return [dimension]
    shared = [
        name
        for name in cube.dimensions_of_type(data, "temporal")
        if name in target.dims and cube.dimension_type(target, name) == "temporal"
    ]
    if not shared:
        raise DimensionMismatch(reason="they have no temporal dimension of the same name in common.")
    return shared


def _nearest(
    data: xr.DataArray, name: str, own: np.ndarray, wanted: np.ndarray, days: float | None
) -> xr.DataArray:
    if not own.size and wanted.size:
        return (
            constant(None, without_dimension(data, name))
            .expand_dims({name: wanted.size})
            .transpose(*data.dims)
        )
    early_first = np.argsort(own, kind="stable")
    if days is None:
        distances = np.abs(own[early_first][None, :] - wanted[:, None])
        return data.isel({name: early_first[distances.argmin(axis=1)] if wanted.size else []})
    # Nothing is further away than the times that there are: more, or less than none, makes no difference.
    limit = np.timedelta64(round(min(max(days, 0), _MOST_DAYS) * 86_400_000_000_000), "ns")
    parts = []
    for time in wanted:
        distance = np.abs(own[early_first] - time)
        order = early_first[np.argsort(distance, kind="stable")]
        near = order[np.abs(own[order] - time) < limit]
        parts.append(_first_valid(data, name, near).expand_dims(name))
    return concat(parts, name).transpose(*data.dims) if parts else data.isel({name: []})


def _first_valid(data: xr.DataArray, name: str, positions: np.ndarray) -> xr.DataArray:
    """The first valid value at these positions; no-data where there is none."""
    bare = data.drop_vars([n for n, c in data.coords.items() if name in c.dims and n != cube.NODATA])
    if not positions.size:
        return constant(None, without_dimension(data, name))
    found = bare.isel({name: int(positions[0])}, drop=True)
    for i in positions[1:]:
        if not cube.has_nodata(found):
            break
        found = restored(found.where(_is_valid(found), bare.isel({name: int(i)}, drop=True)), found)
    if found.dtype.kind == "f":
        return restored(found.where(_is_valid(found)), found)
    return found


def _is_valid(data: xr.DataArray) -> xr.DataArray:
    valid = cube.valid(data)
    if data.dtype.kind == "f":
        valid = valid & np.isfinite(data)
    return valid.drop_vars(list(valid.coords))
