"""Labels of calendar periods stand for times, in processes and in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo import cube, errors
from odc_openeo.cube.calendar_periods import PERIODS, find_bounds
from odc_openeo.formats import Target
from odc_openeo.formats.read_netcdf import read_netcdf
from odc_openeo.formats.write import Output
from odc_openeo.graph import evaluate
from odc_openeo.processes.climatology import anomaly, climatological_normal
from odc_openeo.processes.dimensions import dimension_labels, rename_labels
from odc_openeo.processes.filters import filter_labels, filter_temporal
from odc_openeo.processes.masks import mask
from odc_openeo.processes.merge import merge_cubes
from odc_openeo.processes.temporal import (
    aggregate_temporal,
    aggregate_temporal_period,
    resample_cube_temporal,
)
from tests.processes.rasters import grid, nothing_computes, raster
from tests.support.graphs import child, value

SECONDS = st.integers(-(2**33), 2**33 - 1)
"""Times in the years 1697 to 2242."""


def daily(first: str, last: str, step: int = 1) -> xr.DataArray:
    """A cube with two bands whose values count the days from the first one; every ``step``-th day."""
    times = np.arange(np.datetime64(first), np.datetime64(last) + 1, step).astype("datetime64[ns]")
    values = np.arange(times.size, dtype="float64")[:, None, None, None] + np.zeros((1, 2, 2, 3))
    data = raster(values, grid(2, 3), {"t": 200})
    return data.assign_coords(t=times)


def mean(data: Any, context: Any = None) -> Any:
    return None if isinstance(data, list) else data.mean(cube.ARRAY)


def largest(data: Any, context: Any = None) -> Any:
    return None if isinstance(data, list) else data.max(cube.ARRAY)


def by(data: xr.DataArray, period: str, reducer: Any = mean) -> xr.DataArray:
    return aggregate_temporal_period(data, period, reducer)


def frame(data: xr.DataArray) -> pd.Series:
    """The values of one pixel by time, for pandas."""
    return pd.Series(data.isel(bands=0, y=0, x=0).values, pd.DatetimeIndex(data.t.values))


@pytest.mark.parametrize("period", list(PERIODS))
@given(seconds=st.lists(SECONDS, min_size=1, max_size=20))
@settings(deadline=None, max_examples=40)
def test_each_time_is_in_the_period_of_its_label(period: str, seconds: list[int]) -> None:
    times = np.array(seconds, "datetime64[s]")
    kind = PERIODS[period]
    numbers = kind.number(pd.DatetimeIndex(times))
    labels = kind.labels(numbers)
    assert [kind.find_number(label) for label in labels] == numbers.tolist()
    bounds = find_bounds(labels, period)
    assert bounds is not None
    assert (bounds[0] <= times).all()
    assert (times < bounds[1]).all()
    middle = bounds[0] + (bounds[1] - bounds[0]) // 2
    if period not in ("decade", "decade-ad"):
        assert [str(m)[:4] for m in middle] == [label[:4] for label in labels]


@pytest.mark.parametrize(
    ("period", "label", "start", "end"),
    [
        ("hour", "2019-12-31-23", "2019-12-31T23", "2020-01-01T00"),
        ("day", "2020-366", "2020-12-31", "2021-01-01"),
        ("week", "2019-01", "2018-12-31", "2019-01-07"),
        ("week", "2019-00", "2018-12-24", "2018-12-31"),
        ("week", "2020-53", "2020-12-28", "2021-01-04"),
        ("dekad", "2019-06", "2019-02-21", "2019-03-01"),
        ("dekad", "2019-36", "2019-12-21", "2020-01-01"),
        ("month", "2019-12", "2019-12-01", "2020-01-01"),
        ("season", "2018-djf", "2017-12-01", "2018-03-01"),
        ("season", "2018-son", "2018-09-01", "2018-12-01"),
        ("tropical-season", "2018-ndjfma", "2017-11-01", "2018-05-01"),
        ("tropical-season", "2018-mjjaso", "2018-05-01", "2018-11-01"),
        ("year", "2018", "2018-01-01", "2019-01-01"),
        ("decade", "2010", "2010-01-01", "2020-01-01"),
        ("decade-ad", "2011", "2011-01-01", "2021-01-01"),
    ],
)
def test_bounds_of_periods(period: str, label: str, start: str, end: str) -> None:
    bounds = find_bounds([label], period)
    assert bounds is not None
    assert [str(b[0]) for b in bounds] == [str(np.datetime64(t, "s")) for t in (start, end)]


@pytest.mark.parametrize("label", ["2019-13", "2019-366", "2019-00", "2019-winter", "2019-01-01-24", "١٢٣٤"])
def test_labels_that_are_no_period(label: str) -> None:
    assert find_bounds([label]) is None


def test_labels_of_several_kinds_are_no_periods() -> None:
    assert find_bounds(["2019", "2019-01"]) is None


@pytest.mark.parametrize("period", list(PERIODS))
def test_filters_take_the_start_of_each_period(period: str) -> None:
    short = period in ("hour", "day", "week", "dekad")
    data = by(daily("2018-12-20", "2019-01-10") if short else daily("2018-11-05", "2021-02-10"), period)
    labels = dimension_labels(data, "t")
    assert all(isinstance(label, str) for label in labels)
    bounds = find_bounds(labels, period)
    assert bounds is not None
    low, high = np.datetime64("2019-01-01"), np.datetime64("2020-01-01")
    with nothing_computes():
        filtered = filter_temporal(data, ["2019-01-01", "2020-01-01"])
    inside = (bounds[0] >= low) & (bounds[0] < high)
    assert dimension_labels(filtered, "t") == [n for n, i in zip(labels, inside, strict=True) if i]
    np.testing.assert_array_equal(filtered.values, data.values[inside])


def test_daily_means_to_monthly_maxima_to_yearly_means() -> None:
    data = by(daily("2019-12-01", "2020-02-28"), "day")
    assert dimension_labels(data, "t")[0] == "2019-335"
    with nothing_computes():
        yearly = by(by(data, "month", largest), "year")
    assert dimension_labels(yearly, "t") == ["2019", "2020"]
    expected = frame(daily("2019-12-01", "2020-02-28")).resample("MS").max().groupby(lambda t: t.year).mean()
    np.testing.assert_allclose(yearly.isel(bands=0, y=0, x=0).values, expected.values)


@pytest.mark.parametrize("period", ["season", "week", "tropical-season"])
def test_periods_are_parts_of_the_year_of_their_label(period: str) -> None:
    """Winters and first weeks begin in the year before."""
    parts = by(daily("2017-12-01", "2020-11-30"), period)
    yearly = by(parts, "year")
    labels = dimension_labels(parts, "t")
    years = [label[:4] for label in labels]
    assert dimension_labels(yearly, "t") == sorted(set(years))
    pixel = parts.isel(bands=0, y=0, x=0).values
    expected = pd.Series(pixel).groupby(np.array(years)).mean()
    np.testing.assert_allclose(yearly.isel(bands=0, y=0, x=0).values, expected.values)


def test_weeks_that_are_interpolated_and_filtered() -> None:
    """Weeks without scenes are filled between their neighbours."""
    days = pd.DatetimeIndex(["2019-01-02", "2019-01-22", "2019-02-12", "2019-02-20"])
    values = np.array([1.0, 4.0, 10.0, 20.0])[:, None, None, None] + np.zeros((1, 1, 2, 3))
    data = raster(values, grid(2, 3), {"t": 1}).assign_coords(t=days.to_numpy())
    graph = {
        "weeks": {
            "process_id": "aggregate_temporal_period",
            "arguments": {
                "data": value("cube"),
                "period": "week",
                "reducer": child("median", data=value("data")),
            },
        },
        "filled": {
            "process_id": "apply_dimension",
            "arguments": {
                "data": {"from_node": "weeks"},
                "dimension": "t",
                "process": child("array_interpolate_linear", data=value("data")),
            },
        },
        "part": {
            "process_id": "filter_temporal",
            "arguments": {"data": {"from_node": "filled"}, "extent": ["2019-01-07", "2019-02-18"]},
            "result": True,
        },
    }
    result = evaluate({"process_graph": graph}, parameters={"cube": data})
    assert dimension_labels(result, "t") == ["2019-02", "2019-03", "2019-04", "2019-05", "2019-06", "2019-07"]
    np.testing.assert_allclose(result.isel(bands=0, y=0, x=0).values, [2, 3, 4, 6, 8, 10])


def test_intervals_and_other_times() -> None:
    data = daily("2019-01-01", "2019-12-31")
    months = by(data, "month")
    halves = aggregate_temporal(months, [["2019-01-01", "2019-07-01"], ["2019-07-01", "2020-01-01"]], mean)
    expected = frame(data).resample("MS").mean()
    np.testing.assert_allclose(halves.isel(bands=0, y=0, x=0), [expected[:6].mean(), expected[6:].mean()])
    assert halves.t.dtype.kind == "M"
    nearest = resample_cube_temporal(data, months)
    assert dimension_labels(nearest, "t") == dimension_labels(months, "t")
    firsts = [f"2019-{m:02d}-01" for m in range(1, 13)]
    np.testing.assert_array_equal(nearest.values, data.sel(t=firsts).values)
    assert dimension_labels(by(nearest, "year"), "t") == ["2019"]


def test_normals_and_anomalies_of_other_periods() -> None:
    data = daily("2018-12-01", "2020-11-30")
    months = by(data, "month")
    normals = climatological_normal(months, "season", [2019, 2020])
    monthly = frame(data).resample("MS").mean()
    season = monthly.groupby((monthly.index.month % 12) // 3).mean()
    np.testing.assert_allclose(normals.isel(bands=0, y=0, x=0).values, season.values)
    differences = anomaly(months, normals, "season")
    expected = monthly.values - season.values[(monthly.index.month % 12) // 3]
    np.testing.assert_allclose(differences.isel(bands=0, y=0, x=0).values, expected)
    assert dimension_labels(differences, "t") == dimension_labels(months, "t")
    assert filter_temporal(differences, ["2020-01-01", None]).sizes["t"] == 11


def test_merged_seasons_are_in_the_order_of_time() -> None:
    one = by(daily("2018-12-01", "2019-05-31"), "season")
    other = by(daily("2019-06-01", "2019-11-30"), "season")
    merged = merge_cubes(other, one)
    assert dimension_labels(merged, "t") == ["2019-djf", "2019-mam", "2019-jja", "2019-son"]
    assert filter_temporal(merged, ["2019-01-01", "2019-07-01"]).sizes["t"] == 2
    dated = one.assign_coords(t=np.array(["2018-12-01", "2019-03-01"], "datetime64[ns]"))
    both = merge_cubes(dated, other)
    assert dimension_labels(both, "t")[::3] == ["2018-12-01T00:00:00Z", "2019-09-01T00:00:00Z"]


def test_weeks_and_months_with_the_same_labels_are_different() -> None:
    data = daily("2019-01-07", "2019-02-17")
    weeks, months = by(data, "week"), by(data, "month")
    merged = merge_cubes(weeks, months)
    assert merged.sizes["t"] == weeks.sizes["t"] + 2
    with pytest.raises(errors.IncompatibleDataCubes, match="labels of dimension 't'"):
        mask(months, weeks.isel(t=[0, 1]))


def test_masks_with_dates_of_the_same_months() -> None:
    months = by(daily("2019-01-01", "2019-02-28"), "month")
    marks = (months == months.max("t")).assign_coords(
        t=np.array(["2019-01-01", "2019-02-01"], "datetime64[ns]")
    )
    masked = mask(months, marks)
    assert dimension_labels(masked, "t") == ["2019-01", "2019-02"]
    assert np.isnan(masked.values).mean(axis=(1, 2, 3)).tolist() == [0, 1]


def test_months_survive_what_keeps_labels() -> None:
    months = by(daily("2019-01-01", "2019-06-30"), "week")
    graph = {
        "a": {
            "process_id": "apply",
            "arguments": {"data": value("cube"), "process": child("add", x=value("x"), y=1)},
        },
        "b": {
            "process_id": "apply_dimension",
            "arguments": {
                "data": {"from_node": "a"},
                "dimension": "t",
                "process": child("cumsum", data=value("data")),
            },
        },
        "c": {"process_id": "filter_bands", "arguments": {"data": {"from_node": "b"}, "bands": ["B01"]}},
        "d": {
            "process_id": "reduce_dimension",
            "arguments": {
                "data": {"from_node": "c"},
                "dimension": "bands",
                "reducer": child("mean", data=value("data")),
            },
        },
        "e": {
            "process_id": "resample_spatial",
            "arguments": {"data": {"from_node": "d"}, "resolution": 5, "projection": 32632},
        },
        "f": {
            "process_id": "merge_cubes",
            "arguments": {
                "cube1": {"from_node": "e"},
                "cube2": {"from_node": "e"},
                "overlap_resolver": child("max", data=[value("x"), value("y")]),
            },
        },
        "g": {
            "process_id": "rename_dimension",
            "arguments": {"data": {"from_node": "f"}, "source": "t", "target": "time"},
        },
        "h": {
            "process_id": "filter_temporal",
            "arguments": {"data": {"from_node": "g"}, "extent": ["2019-01-07", "2019-01-21"]},
            "result": True,
        },
    }
    result = evaluate({"process_graph": graph}, parameters={"cube": months})
    assert dimension_labels(result, "time") == ["2019-02", "2019-03"]


def test_labels_that_users_give_may_be_months_or_years() -> None:
    data = daily("2019-01-01", "2019-12-31")
    spans = [["2019-01-01", "2019-02-01"], ["2019-02-01", "2019-03-01"]]
    named = aggregate_temporal(data, spans, mean, ["2019-01", "2019-02"])
    assert filter_temporal(named, ["2019-02-01", None]).sizes["t"] == 1
    renamed = rename_labels(named, "t", ["2020-05-01", "2020-06-01"], ["2019-01", "2019-02"])
    assert dimension_labels(renamed, "t") == ["2020-05-01T00:00:00Z", "2020-06-01T00:00:00Z"]
    kept = filter_labels(named, lambda value, context: value == "2019-02", "t")
    assert dimension_labels(kept, "t") == ["2019-02"]
    seasons = aggregate_temporal(data, spans, mean, ["cold", "colder"])
    with pytest.raises(errors.ProcessParameterInvalid, match="nor calendar periods, e.g. 'cold'"):
        filter_temporal(seasons, ["2019-02-01", None])


def test_normals_are_no_times() -> None:
    normals = climatological_normal(daily("2019-01-01", "2020-12-31"), "month", [2019, 2020])
    with pytest.raises(errors.ProcessParameterInvalid, match="nor calendar periods"):
        filter_temporal(normals, ["2019-02-01", None])


def test_cubes_without_any_time_stay_temporal() -> None:
    empty = by(daily("2019-01-01", "2019-01-31").isel(t=[]), "month")
    assert cube.dimension_type(empty, "t") == "temporal"
    assert filter_temporal(empty, ["2019-01-01", None]).sizes["t"] == 0
    with dask.config.set(scheduler="synchronous"):
        assert by(empty, "year").compute().sizes["t"] == 0


def test_masks_and_filters_in_one_graph() -> None:
    """What the filter leaves of months and of dates is the same."""
    months = by(daily("2019-01-01", "2019-06-30"), "month")
    dates = np.array([f"2019-{m:02d}-01" for m in range(1, 7)], "datetime64[ns]")
    marks = (months > 100).assign_coords(t=dates)
    nodes = {
        "scale": {
            "process_id": "apply",
            "arguments": {"data": value("marks"), "process": child("add", x=value("x"), y=0)},
        },
        "masked": {
            "process_id": "mask",
            "arguments": {"data": value("data"), "mask": {"from_node": "scale"}},
        },
        "part": {
            "process_id": "filter_temporal",
            "arguments": {"data": {"from_node": "masked"}, "extent": ["2019-03-01", "2019-06-01"]},
            "result": True,
        },
    }
    parameters = {"data": months, "marks": marks.astype("float32")}
    result = evaluate({"process_graph": nodes}, parameters=parameters)
    assert dimension_labels(result, "t") == ["2019-03", "2019-04", "2019-05"]
    expected = months.where(months <= 100).isel(t=slice(2, 5))
    np.testing.assert_array_equal(result.values, expected.values)


@pytest.mark.parametrize("period", ["month", "season", "week"])
def test_files_with_periods_are_read_as_times(tmp_path: Path, period: str) -> None:
    data = by(daily("2018-12-31", "2019-04-28"), period)
    output = Output.from_data(data, "netCDF")
    (asset,) = output.format.write(data, Target(tmp_path), output.options)
    read = read_netcdf([asset.path])
    assert read.t.dtype.kind == "M"
    extent = ["2019-01-01", "2019-03-01"]
    np.testing.assert_array_equal(filter_temporal(read, extent).values, filter_temporal(data, extent).values)
    plain = xr.open_dataset(asset.path)
    assert (
        plain.sel(t=slice("2019-01-01", "2019-02-28")).sizes["t"] == filter_temporal(data, extent).sizes["t"]
    )
    for picture in ("GTiff", "PNG"):
        folder = tmp_path / picture
        folder.mkdir()
        single = (data.isel(bands=0, drop=True) % 200).astype("uint8")
        output = Output.from_data(single, picture)
        assets = output.format.write(single, Target(folder), output.options)
        starts = [np.datetime64(a.datetime.rstrip("Z")) for a in assets]
        assert starts == read.t.values.astype("datetime64[s]").tolist()
