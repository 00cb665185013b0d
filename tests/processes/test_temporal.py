"""Aggregation and resampling along time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from odc_openeo import cube, errors
from odc_openeo.cube import ARRAY
from odc_openeo.cube.calendar_periods import PERIODS
from odc_openeo.graph import evaluate
from odc_openeo.processes import temporal
from odc_openeo.processes.dimensions import dimension_labels
from odc_openeo.processes.temporal import (
    aggregate_temporal,
    aggregate_temporal_period,
    resample_cube_temporal,
)
from odc_openeo.registry import grouped_reduction
from tests.processes.rasters import grid, nothing_computes, raster

TIMES = ["2022-01-01", "2022-01-20T12:00", "2022-01-31T23:59", "2022-03-05", "2022-03-05T18:00", "2022-12-31"]


def series(times: list[str], values: Any = None, dtype: str = "uint16", nodata: Any = 0) -> xr.DataArray:
    """A (t, y, x) cube; by default the values of the i-th date are i + 1 … ."""
    shape = (len(times), 3, 4)
    if values is None:
        values = np.arange(1, np.prod(shape) + 1).reshape(shape)
    values = np.broadcast_to(
        np.asarray(values).reshape(len(times), *[-1] * 0, *np.shape(values)[1:] or (1, 1)), shape
    )
    cube = raster(values.astype(dtype), grid(3, 4), nodata=nodata)
    return cube.assign_coords(t=np.array(times, dtype="datetime64[ns]")).chunk({"t": 1})


def mean(data: Any, context: Any = None) -> Any:
    return None if isinstance(data, list) and not data else cube.decode(data).mean(ARRAY)


def largest(data: Any, context: Any = None) -> Any:
    return None if isinstance(data, list) else data.max(ARRAY)


def count(data: Any, context: Any = None) -> Any:
    return 0 if isinstance(data, list) else cube.valid(data).sum(ARRAY)


def element(data: Any, context: Any = None) -> Any:
    if isinstance(data, list):
        raise errors.ArrayElementNotAvailable.at_index(0, 0)
    return data.isel({ARRAY: 0}, drop=True)


@pytest.mark.parametrize(
    ("period", "time", "label"),
    [
        ("hour", "2022-06-01T13:59:59", "2022-06-01-13"),
        ("day", "2020-12-31", "2020-366"),
        ("day", "2022-01-05", "2022-005"),
        ("week", "2021-01-03", "2020-53"),
        ("week", "2021-01-04", "2021-01"),
        ("week", "2024-12-30", "2025-01"),
        ("dekad", "2024-01-10", "2024-01"),
        ("dekad", "2024-01-11", "2024-02"),
        ("dekad", "2024-02-29", "2024-06"),
        ("dekad", "2024-12-31", "2024-36"),
        ("month", "1969-12-31", "1969-12"),
        ("season", "2021-12-01", "2022-djf"),
        ("season", "2022-02-28", "2022-djf"),
        ("season", "2022-03-01", "2022-mam"),
        ("season", "2022-08-31", "2022-jja"),
        ("season", "2022-11-30", "2022-son"),
        ("tropical-season", "2021-11-01", "2022-ndjfma"),
        ("tropical-season", "2022-04-30", "2022-ndjfma"),
        ("tropical-season", "2022-05-01", "2022-mjjaso"),
        ("year", "2022-12-31T23:59:59", "2022"),
        ("decade", "2029-12-31", "2020"),
        ("decade-ad", "2030-12-31", "2021"),
        ("decade-ad", "2031-01-01", "2031"),
    ],
)
def test_labels_of_periods(period: str, time: str, label: str) -> None:
    result = aggregate_temporal_period(series([time]), period, mean)
    assert dimension_labels(result, "t") == [label]
    assert cube.dimension_type(result, "t") == "temporal"


@pytest.mark.parametrize("period", PERIODS)
def test_labels_of_successive_periods_are_distinct_and_sorted(period: str) -> None:
    times = pd.date_range("1999-12-01", "2001-02-01", freq="h")
    numbers = PERIODS[period].number(times)
    assert set(np.diff(numbers)) <= {0, 1}
    labels = PERIODS[period].labels(np.unique(numbers))
    assert len(set(labels)) == len(labels) == len(np.unique(numbers))


def test_every_period_in_between_has_a_label() -> None:
    data = series(TIMES)
    with nothing_computes():
        result = aggregate_temporal_period(data, "month", mean)
    assert dimension_labels(result, "t") == [f"2022-{m:02d}" for m in range(1, 13)]
    assert result.dims == data.dims
    assert result.odc.geobox == data.odc.geobox
    np.testing.assert_allclose(result.values[0], data.values[:3].mean(0))
    np.testing.assert_allclose(result.values[2], data.values[3:5].mean(0))
    np.testing.assert_allclose(result.values[11], data.values[5])
    assert np.isnan(result.values[[1, *range(3, 11)]]).all()


def test_integers_and_other_values_of_empty_periods() -> None:
    data = series(TIMES)
    with nothing_computes():
        maxima = aggregate_temporal_period(data, "month", largest)
        counts = aggregate_temporal_period(data, "month", count)
        firsts = aggregate_temporal_period(data, "month", element)
        bare = aggregate_temporal_period(cube.with_nodata(data, None), "month", largest)
    assert (maxima.dtype, maxima.attrs["nodata"]) == ("uint16", 0)
    assert not maxima.values[1].any()
    np.testing.assert_array_equal(counts.values[:4, 0, 0], [3, 0, 2, 0])
    np.testing.assert_array_equal(firsts.values[2], data.values[3])
    assert firsts.dtype == "uint16"
    assert np.isnan(bare.values[1]).all()


@pytest.mark.parametrize("reducer", ["mean", "sum"])
def test_many_groups_at_once_are_the_same_as_one_by_one(
    reducer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(3).integers(0, 9, (40, 3, 4))
    times = pd.date_range("2022-01-01", periods=40, freq="31h").delete(slice(10, 14))
    data = series([str(t) for t in times], values[: len(times)])
    node = {"process_id": reducer, "arguments": {"data": {"from_parameter": "data"}}, "result": True}
    arguments = {
        "data": {"from_parameter": "data"},
        "period": "day",
        "reducer": {"process_graph": {"r": node}},
    }
    graph = {"a": {"process_id": "aggregate_temporal_period", "arguments": arguments, "result": True}}
    with nothing_computes():
        quick = evaluate({"process_graph": graph}, parameters={"data": data})
        monkeypatch.setattr(grouped_reduction, "FEWEST", 10_000)
        slow = evaluate({"process_graph": graph}, parameters={"data": data})
    assert len(quick.__dask_graph__()) != len(slow.__dask_graph__())
    assert quick.dtype == slow.dtype
    xr.testing.assert_allclose(quick, slow)
    assert quick.t.identical(slow.t)
    assert quick.attrs == slow.attrs
    assert quick.odc.geobox == data.odc.geobox


def test_times_need_no_order() -> None:
    data = series(TIMES)
    mixed = data.isel(t=[5, 2, 0, 4, 1, 3])
    np.testing.assert_allclose(
        aggregate_temporal_period(mixed, "season", mean).values,
        aggregate_temporal_period(data, "season", mean).values,
    )


def test_bands_and_time() -> None:
    values = np.arange(1, 2 * 3 * 12 + 1, dtype="int16").reshape(2, 3, 3, 4)
    data = raster(values, grid(3, 4), chunks={"t": 1}, nodata=-1)
    result = aggregate_temporal_period(data.transpose("bands", "y", "t", "x"), "year", largest)
    assert result.dims == ("bands", "y", "t", "x")
    np.testing.assert_array_equal(result.isel(t=0).values, values.max(0))


def test_temporal_dimensions_of_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    data = series(TIMES)
    with pytest.raises(errors.DimensionNotAvailable):
        aggregate_temporal_period(data, "month", mean, "time")
    with pytest.raises(errors.DimensionNotAvailable):
        aggregate_temporal_period(data.isel(t=0, drop=True), "month", mean)
    two = data.expand_dims(t2=np.array(["2022-01-01"], dtype="datetime64[ns]"))
    with pytest.raises(errors.TooManyDimensions):
        aggregate_temporal_period(two, "month", mean)
    assert aggregate_temporal_period(two, "year", mean, "t").sizes == {"t2": 1, "t": 1, "y": 3, "x": 4}
    assert aggregate_temporal_period(data.isel(t=[]), "year", mean).sizes["t"] == 0
    monkeypatch.setattr(temporal, "MAX_LABELS", 100)
    with pytest.raises(errors.ProcessGraphComplexity):
        aggregate_temporal_period(data, "hour", mean)


def test_intervals_may_overlap_and_be_empty() -> None:
    data = series(TIMES)
    intervals = [["2022-01-01", "2022-01-31"], ["2022-01-20", None], ["2021-01-01", "2022-01-01"]]
    with nothing_computes():
        result = aggregate_temporal(data, intervals, mean)
    assert dimension_labels(result, "t") == [
        "2022-01-01T00:00:00Z",
        "2022-01-20T00:00:00Z",
        "2021-01-01T00:00:00Z",
    ]
    np.testing.assert_allclose(result.values[0], data.values[:2].mean(0))
    np.testing.assert_allclose(result.values[1], data.values[1:].mean(0))
    assert np.isnan(result.values[2]).all()


def test_intervals_of_the_day() -> None:
    data = series(TIMES)
    result = aggregate_temporal(
        data, [["06:00:00", "18:00:00"], ["18:00:00", "06:00:00"]], mean, ["day", "night"]
    )
    assert dimension_labels(result, "t") == ["day", "night"]
    assert cube.dimension_type(result, "t") == "temporal"
    np.testing.assert_allclose(result.values[0], data.values[1])
    np.testing.assert_allclose(result.values[1], data.values[[0, 2, 3, 4, 5]].mean(0))


@pytest.mark.parametrize(
    ("intervals", "labels", "error"),
    [
        ([["2022-01-02", "2022-01-01"]], [], errors.TemporalExtentEmpty),
        (
            [["2022-01-01", "2022-01-02"], ["2022-01-01", "2022-01-03"]],
            [],
            errors.DistinctDimensionLabelsRequired,
        ),
        (
            [["2022-01-01", "2022-01-02"], ["2022-01-02", "2022-01-03"]],
            ["a", "a"],
            errors.DistinctDimensionLabelsRequired,
        ),
        ([[None, "2022-01-02"]], [], errors.DistinctDimensionLabelsRequired),
        ([["2022-01-01", "2022-01-02"]], ["a", "b"], errors.ProcessParameterInvalid),
        ([["2022-01-01", "12:00:00"]], [], errors.ProcessParameterInvalid),
        ([["2022-13-01", "2022-14-01"]], [], errors.ProcessParameterInvalid),
    ],
)
def test_invalid_intervals_are_refused(intervals: list, labels: list, error: type) -> None:
    with pytest.raises(error):
        aggregate_temporal(series(TIMES), intervals, mean, labels)


def test_the_nearest_time_counts() -> None:
    data = series(["2022-01-01", "2022-01-03", "2022-01-10"])
    target = series(["2022-01-02", "2022-01-05", "2022-02-01"])
    with nothing_computes():
        result = resample_cube_temporal(data, target)
    np.testing.assert_array_equal(result.values, data.values[[0, 1, 2]])  # a tie goes to the earlier one
    assert dimension_labels(result, "t") == dimension_labels(target, "t")
    assert (result.dtype, result.attrs["nodata"]) == ("uint16", 0)


def test_the_nearest_valid_value_within_some_days() -> None:
    values = np.array([[[5, 0]], [[0, 0]], [[7, 8]]])
    data = series(["2022-01-01", "2022-01-03", "2022-01-10"], values.repeat(3, axis=1).repeat(2, axis=2))
    target = series(["2022-01-04", "2022-02-01"])
    with nothing_computes():
        result = resample_cube_temporal(data, target, valid_within=6)
        floats = resample_cube_temporal(cube.decode(data), target, "t", 6.5)
    assert result.dtype == "uint16"
    np.testing.assert_array_equal(result.values[0], [[5, 5, 0, 0]] * 3)  # exactly six days are too far
    np.testing.assert_array_equal(result.values[1], 0)
    np.testing.assert_array_equal(floats.values[0], [[5, 5, 8, 8]] * 3)
    assert np.isnan(floats.values[1]).all()


def test_temporal_dimensions_to_resample() -> None:
    data = series(TIMES)
    with pytest.raises(errors.DimensionNotAvailable):
        resample_cube_temporal(data, data, "time")
    with pytest.raises(errors.DimensionMismatch):
        resample_cube_temporal(data, data, "x")
    with pytest.raises(errors.DimensionMismatch):
        resample_cube_temporal(data, data.rename(t="time"))
    assert resample_cube_temporal(data, data.isel(t=[])).sizes["t"] == 0
    assert not resample_cube_temporal(data.isel(t=[]), data).values.any()
