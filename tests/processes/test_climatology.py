"""Climatological normals and anomalies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from odc_openeo import cube, errors
from odc_openeo.cube import ARRAY
from odc_openeo.processes.climatology import anomaly, climatological_normal
from odc_openeo.processes.dimensions import dimension_labels
from odc_openeo.processes.temporal import aggregate_temporal_period
from tests.processes.rasters import grid, nothing_computes, raster


def daily(first: str, last: str) -> xr.DataArray:
    """Values of every day of a span (last excluded): the number of the day, other in each pixel."""
    times = pd.date_range(first, last, freq="D", inclusive="left")
    values = np.arange(len(times))[:, None, None] + np.array([[0.0, 1000.0]])
    return raster(values, grid(1, 2)).assign_coords(t=times.to_numpy()).chunk({"t": 100})


def mean(data: Any, context: Any = None) -> Any:
    return None if isinstance(data, list) else data.mean(ARRAY)


def by_hand(data: xr.DataArray, chosen: np.ndarray) -> float:
    return float(data.values[chosen, 0, 0].mean())


@pytest.fixture
def data() -> xr.DataArray:
    return daily("2000-12-01", "2005-01-01")


def test_months(data: xr.DataArray) -> None:
    with nothing_computes():
        normals = climatological_normal(data, "month", [2001, 2004])
    assert dimension_labels(normals, "t") == [f"{m:02d}" for m in range(1, 13)]
    assert cube.dimension_type(normals, "t") == "temporal"
    assert normals.odc.geobox == data.odc.geobox
    times = pd.DatetimeIndex(data.t.values)
    for month in (1, 2, 12):
        expected = by_hand(data, (times.month == month) & (times.year > 2000))
        assert normals.values[month - 1, 0] == pytest.approx([expected, expected + 1000])


def test_days_and_all(data: xr.DataArray) -> None:
    days = climatological_normal(data, "day", [2001, 2004])
    assert dimension_labels(days, "t")[-1] == "366"
    assert dimension_labels(climatological_normal(data, "day", [2001, 2003]), "t")[-1] == "365"
    whole = climatological_normal(data, "climatology-period", [2001, 2004])
    assert dimension_labels(whole, "t") == ["climatology-period"]
    assert float(whole[0, 0, 0]) == pytest.approx(by_hand(data, np.arange(data.sizes["t"]) >= 31))


def test_winters_need_the_months_before(data: xr.DataArray) -> None:
    times = pd.DatetimeIndex(data.t.values)
    winter = times.month.isin([12, 1, 2]) & (times < "2004-12-01")
    normals = climatological_normal(data, "season", [2001, 2004])
    assert dimension_labels(normals, "t") == ["djf", "mam", "jja", "son"]
    assert float(normals[0, 0, 0]) == pytest.approx(by_hand(data, winter))
    late = climatological_normal(data.isel(t=slice(31, None)), "season", [2001, 2004])
    assert float(late[0, 0, 0]) == pytest.approx(by_hand(data, winter & (times >= "2001-12-01")))
    tropical = climatological_normal(data, "tropical-season", [2001, 2004])
    first = times.month.isin([11, 12, 1, 2, 3, 4]) & (times >= "2001-11-01") & (times < "2004-11-01")
    assert float(tropical[0, 0, 0]) == pytest.approx(by_hand(data, first))


def test_labels_of_periods_serve_too(data: xr.DataArray) -> None:
    months = aggregate_temporal_period(data, "month", mean)
    normals = climatological_normal(months, "month", [2001, 2004])
    np.testing.assert_allclose(normals.values[0], months.values[1:49:12].mean(0))


def test_years_outside_the_data_are_refused(data: xr.DataArray) -> None:
    with pytest.raises(errors.ProcessParameterInvalid, match="covers 2000 to 2004"):
        climatological_normal(data, "month")
    with pytest.raises(errors.ProcessParameterInvalid, match="Swap"):
        climatological_normal(data, "month", [2004, 2001])
    with pytest.raises(errors.DimensionNotAvailable):
        climatological_normal(data.isel(t=0, drop=True), "month", [2001, 2004])


@pytest.mark.parametrize("period", ["month", "season", "tropical-season"])
def test_anomalies_of_aggregated_cubes(data: xr.DataArray, period: str) -> None:
    with nothing_computes():
        aggregated = aggregate_temporal_period(data.isel(t=slice(31, None)), period, mean)
        normals = climatological_normal(data, period, [2001, 2004])
        result = anomaly(aggregated, normals, period)
    assert dimension_labels(result, "t") == dimension_labels(aggregated, "t")
    assert result.dims == aggregated.dims
    assert result.odc.geobox == data.odc.geobox
    keys = [label[5:] for label in dimension_labels(aggregated, "t")]
    positions = [dimension_labels(normals, "t").index(key) for key in keys]
    np.testing.assert_allclose(result.values, aggregated.values - normals.values[positions])


def test_anomalies_of_times_and_of_a_single_normal(data: xr.DataArray) -> None:
    months = climatological_normal(data, "month", [2001, 2004])
    np.testing.assert_allclose(
        anomaly(data, months, "month").values[:31], data.values[:31] - months.values[11]
    )
    whole = climatological_normal(data, "climatology-period", [2001, 2004])
    np.testing.assert_allclose(anomaly(data, whole, "single-period").values, data.values - whole.values)
    with pytest.raises(errors.IncompatibleDataCubes):
        anomaly(data, months, "climatology-period")
    with pytest.raises(errors.LabelNotAvailable):
        anomaly(data, months.isel(t=slice(0, 5)), "month")
    years = aggregate_temporal_period(data, "year", mean)
    np.testing.assert_array_equal(anomaly(years, years, "year").values, 0)
