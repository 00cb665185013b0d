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
from odc_openeo.cube.budget import check_count
from odc_openeo.cube.calendar_periods import PERIODS
from odc_openeo.cube.concat import concat
from odc_openeo.cube.coordinates import make_coordinate, with_type
from odc_openeo.cube.instants import get_middle_times, get_times, mask_within, parse_interval
from odc_openeo.errors import (
    ArrayElementNotAvailable,
    DimensionMismatch,
    DistinctDimensionLabelsRequired,
    ProcessGraphComplexity,
    ProcessParameterInvalid,
    TemporalExtentEmpty,
)
from odc_openeo.processes.filters import INSTANT
from odc_openeo.registry.child_results import as_field, drop_dimensions, make_constant, restore_coordinates
from odc_openeo.registry.demand import Demand, along_dimensions, enclose_intervals
from odc_openeo.registry.grouped_reduction import reduce_groups
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import AnyValue, LabeledReducer, StringOrNull, TemporalCube

_MAX_DAYS = 100_000
"""Largest number of days that 64-bit nanoseconds can represent."""
MAX_INTERVALS = 5_000
"""Largest number of intervals of a node; the reducer is called for each of them."""
MAX_LABELS = 100_000
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


def _aggregation_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    intervals = arguments.get("intervals")
    if not isinstance(intervals, list) or arguments.get("dimension") not in (None, cube.T):
        return {"data": demand.at_all_times()}
    return {"data": replace(demand, interval=enclose_intervals(intervals))}


@process(categories=["cubes", "aggregate"], needs=_aggregation_needs, pointwise=True, raw_values_of=None)
def aggregate_temporal(
    data: TemporalCube,
    intervals: Intervals,
    reducer: LabeledReducer,
    labels: Labels = (),
    dimension: StringOrNull = None,
    context: AnyValue = None,
) -> TemporalCube:
    """Reduce the values in each temporal interval to one.

    Intervals include their start but not their end, and may overlap. An interval of two times of day covers
    that part of every day; it may span midnight.

    Args:
        data: A data cube.
        intervals: Pairs of start and end: dates, date-times, or times of day (HH:MM:SS); null is
            open-ended.
        reducer: Called with the values in an interval as the labelled array `data`, which may be empty;
            returns one value.
        labels: The labels of the intervals, one per interval. By default the start of each interval.
        dimension: The name of the temporal dimension; may be null if there is only one.
        context: Additional data passed to the reducer.

    Returns:
        The data cube with one label per interval along the temporal dimension.

    Raises:
        TooManyDimensions: The cube has several temporal dimensions and `dimension` is null.
        DimensionNotAvailable: The cube has no temporal dimension, or none with that name.
        DistinctDimensionLabelsRequired: Two labels are equal, or `labels` is empty and intervals have the
            same start or none.
        TemporalExtentEmpty: The end of an interval is not later than its start.
    """
    advice = "Split them over several nodes, or use aggregate_temporal_period."
    check_count(len(intervals), MAX_INTERVALS, "intervals", advice)
    name = cube.get_temporal_dimension(data, dimension)
    instants = get_times(data, name, "aggregate_temporal")
    groups = [np.flatnonzero(_in_interval(instants, pair)) for pair in intervals]
    new_labels = _interval_labels(intervals, labels)
    coord = make_coordinate(name, new_labels, cube.dimension_type(data, name))
    return _reduce_groups(data, name, groups, coord, reducer, context, "aggregate_temporal")


def _in_interval(instants: np.ndarray, pair: Sequence[str | None]) -> np.ndarray:
    are_times_of_day = [text is None or _TIME_OF_DAY.fullmatch(text) is not None for text in pair]
    if not all(are_times_of_day) or pair[0] is None and pair[1] is None:
        return mask_within(instants, *parse_interval(pair, "aggregate_temporal", "intervals"))
    start, end = (_seconds_of_day(text) for text in pair)
    days = instants.astype("datetime64[us]").astype("datetime64[D]")
    seconds = (instants.astype("datetime64[us]") - days) / np.timedelta64(1, "s")
    start, end = (0 if start is None else start), (86400 if end is None else end)
    if start == end:
        raise TemporalExtentEmpty(start=pair[0], end=pair[1])
    if start < end:
        return (seconds >= start) & (seconds < end)
    return (seconds >= start) | (seconds < end)


def _seconds_of_day(text: str | None) -> int | None:
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


@process(
    categories=["aggregate", "climatology", "cubes"],
    needs=along_dimensions(cube.T),
    pointwise=True,
    raw_values_of=None,
)
def aggregate_temporal_period(
    data: TemporalCube,
    period: PeriodName,
    reducer: LabeledReducer,
    dimension: StringOrNull = None,
    context: AnyValue = None,
) -> TemporalCube:
    """Reduce the values in each calendar period to one.

    The result has a label for every period from the first to the last time of the cube; for periods without
    any times the reducer gets an empty array and usually returns no-data.

    Labels are `2022-06-01-13` (`hour`), `2022-152` (`day` of the year), `2022-22` (`week`, ISO 8601, with
    the year the week belongs to), `2022-16` (`dekad`: ten days, 36 per year), `2022-06` (`month`),
    `2022-jja` (`season`: `djf`, `mam`, `jja`, `son`), `2022-mjjaso` (`tropical-season`: `ndjfma`,
    `mjjaso`), `2022` (`year`), `2020` (`decade` 2020-2029), `2021` (`decade-ad` 2021-2030). Seasons that
    span two years are labelled with the year in which they end.

    The labels stand for times: other processes along time take the start of each period. Periods are
    aggregated to longer ones by the period that holds their middle, so that `2018-djf` is a part of `2018`.

    Args:
        data: A data cube.
        period: The kind of period.
        reducer: Called with the values in a period as the labelled array `data`, which may be empty;
            returns one value.
        dimension: The name of the temporal dimension; may be null if there is only one.
        context: Additional data passed to the reducer.

    Returns:
        The data cube with one label per period along the temporal dimension.

    Raises:
        TooManyDimensions: The cube has several temporal dimensions and `dimension` is null.
        DimensionNotAvailable: The cube has no temporal dimension, or none with that name.
    """
    name = cube.get_temporal_dimension(data, dimension)
    instants = pd.DatetimeIndex(get_middle_times(data, name, "aggregate_temporal_period"))
    kind = PERIODS[period]
    numbers = kind.number(instants)
    if not numbers.size:
        return _without_times(data, name, period)
    first, last = int(numbers.min()), int(numbers.max())
    if last - first >= MAX_LABELS:
        reason = f"{last - first + 1} periods of kind '{period}'. Filter the time or choose a longer period."
        raise ProcessGraphComplexity(reason=reason)
    labels = kind.labels(np.arange(first, last + 1))
    coord = make_coordinate(name, labels, cube.dimension_type(data, name), period)
    reduced = reduce_groups(data, name, numbers - first, len(labels), reducer)
    if reduced is not None:
        return reduced.assign_coords({name: coord})
    groups = _group_positions(numbers - first, len(labels))
    return _reduce_groups(data, name, groups, coord, reducer, context, "aggregate_temporal_period")


def _group_positions(numbers: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the positions of each number from 0 to count - 1."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers, minlength=count))[:-1])


def _without_times(data: xr.DataArray, name: str, period: str) -> xr.DataArray:
    empty = xr.DataArray(np.array([], dtype=str), dims=name, attrs={cube.PERIOD: period})
    coord = with_type(empty, name, "temporal")
    return data.assign_coords({name: coord})


def _reduce_groups(
    data: xr.DataArray,
    name: str,
    groups: Sequence[np.ndarray],
    coord: xr.DataArray,
    reducer: Callable[..., Any],
    context: Any,
    process: str,
) -> xr.DataArray:
    """Reduce each group of positions along a dimension to one value, with the given coordinate."""
    like = drop_dimensions(data, name)

    def reduce_group(positions: np.ndarray) -> xr.DataArray:
        part = data.isel({name: cube.as_slice(positions)})
        result = reducer(data=cube.to_array(part, name), context=context)
        return as_field(result, like, process, "reducer").expand_dims(name)

    reduced_groups = {i: reduce_group(g) for i, g in enumerate(groups) if g.size}
    empty = None
    if len(reduced_groups) < len(groups):
        empty = _reduce_empty_array(
            reducer, context, next(iter(reduced_groups.values()), like.expand_dims(name))
        )
    joined = concat(list(_arrange_parts(groups, reduced_groups, empty, name)), name).transpose(*data.dims)
    # Coordinates of single times are meaningless for a period.
    dropped = [n for n, c in joined.coords.items() if name in c.dims and n != cube.NODATA]
    return joined.drop_vars(dropped).assign_coords({name: coord})


def _reduce_empty_array(reducer: Callable[..., Any], context: Any, like: xr.DataArray) -> xr.DataArray:
    """Reduce an empty array: the result is no-data, unless the reducer returns a value (as count does)."""
    try:
        value = reducer(data=[], context=context)
    except ArrayElementNotAvailable:
        value = None
    if isinstance(value, xr.DataArray):
        return xr.broadcast(value, like)[0].transpose(*like.dims)
    if isinstance(value, float) and np.isnan(value):
        value = None
    return make_constant(value, like)


def _arrange_parts(
    groups: Sequence[np.ndarray],
    reduced_groups: dict[int, xr.DataArray],
    empty: xr.DataArray | None,
    name: str,
) -> Iterator[xr.DataArray]:
    """Yield the reduced groups in order; a run of empty groups is one part."""
    for is_empty, run in groupby(range(len(groups)), key=lambda i: not groups[i].size):
        indices = list(run)
        if is_empty and empty is not None:
            yield empty.isel({name: 0}, drop=True).expand_dims({name: len(indices)})
        else:
            yield from (reduced_groups[i] for i in indices)


def _resampling_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Only the times of the target matter.
    needed = demand.at_all_times()
    return {"data": needed, "target": replace(needed.of_all_bands(), grid=None)}


@process(categories=["cubes", "reproject"], needs=_resampling_needs, pointwise=True, raw_values_of=("data",))
def resample_cube_temporal(
    data: TemporalCube, target: TemporalCube, dimension: StringOrNull = None, valid_within: Days = None
) -> TemporalCube:
    """Take the values nearest to the times of another cube.

    If two times are equally near, the earlier one is used.

    Args:
        data: The data cube to resample.
        target: The data cube whose times to use.
        dimension: The name of a temporal dimension of both cubes; null for all they have in common.
        valid_within: If set, take for each pixel only values that are valid and less than this number of days
            away; the result is no-data where there are none.

    Returns:
        The data cube with the temporal labels of the target.

    Raises:
        DimensionMismatch: A dimension is not temporal in one of the cubes, or they have none in common.
        DimensionNotAvailable: A cube has no dimension with that name.
    """
    for name in _shared_times(data, target, dimension):
        source_times, target_times = (
            get_times(c, name, "resample_cube_temporal").astype("datetime64[ns]") for c in (data, target)
        )
        resampled = _take_nearest(data, name, source_times, target_times, valid_within)
        coord = with_type(target.coords[name].reset_coords(drop=True), name, "temporal")
        dropped = [n for n, c in resampled.coords.items() if name in c.dims]
        data = resampled.drop_vars(dropped).assign_coords({name: coord})
    return data


def _shared_times(data: xr.DataArray, target: xr.DataArray, dimension: str | None) -> list[str]:
    if dimension is not None:
        for c in (data, target):
            cube.require_dimension(c, dimension)
            if cube.dimension_type(c, dimension) != "temporal":
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


def _take_nearest(
    data: xr.DataArray, name: str, source_times: np.ndarray, target_times: np.ndarray, days: float | None
) -> xr.DataArray:
    if not source_times.size and target_times.size:
        return (
            make_constant(None, drop_dimensions(data, name))
            .expand_dims({name: target_times.size})
            .transpose(*data.dims)
        )
    early_first = np.argsort(source_times, kind="stable")
    if days is None:
        distances = np.abs(source_times[early_first][None, :] - target_times[:, None])
        return data.isel({name: early_first[distances.argmin(axis=1)] if target_times.size else []})
    # Clamp the limit: no times are further apart, and a negative limit selects nothing, as 0 does.
    limit = np.timedelta64(round(min(max(days, 0), _MAX_DAYS) * 86_400_000_000_000), "ns")
    parts = []
    for time in target_times:
        distance = np.abs(source_times[early_first] - time)
        order = early_first[np.argsort(distance, kind="stable")]
        near = order[np.abs(source_times[order] - time) < limit]
        parts.append(_first_valid(data, name, near).expand_dims(name))
    return concat(parts, name).transpose(*data.dims) if parts else data.isel({name: []})


def _first_valid(data: xr.DataArray, name: str, positions: np.ndarray) -> xr.DataArray:
    """Return the first valid value at these positions; no-data where there is none."""
    values = data.drop_vars([n for n, c in data.coords.items() if name in c.dims and n != cube.NODATA])
    if not positions.size:
        return make_constant(None, drop_dimensions(data, name))
    result = values.isel({name: int(positions[0])}, drop=True)
    for i in positions[1:]:
        if not cube.has_nodata(result):
            break
        result = restore_coordinates(
            result.where(_is_valid(result), values.isel({name: int(i)}, drop=True)), result
        )
    if result.dtype.kind == "f":
        return restore_coordinates(result.where(_is_valid(result)), result)
    return result


def _is_valid(data: xr.DataArray) -> xr.DataArray:
    valid = cube.valid(data)
    if data.dtype.kind == "f":
        valid = valid & np.isfinite(data)
    return valid.drop_vars(list(valid.coords))
