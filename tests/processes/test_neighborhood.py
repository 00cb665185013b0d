from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.calendar_periods import PERIODS
from odc_openeo.errors import (
    DataCubePropertiesImmutable,
    DimensionNotAvailable,
    ProcessGraphComplexity,
    ProcessParameterInvalid,
)
from odc_openeo.graph import evaluate
from odc_openeo.processes.neighborhood import apply_neighborhood
from tests.processes.rasters import grid, nothing_computes, raster
from tests.support.graphs import child, value

VALUES = np.random.default_rng(0).normal(size=(6, 25, 30))


def px(**sizes: Any) -> list[dict[str, Any]]:
    return [{"dimension": d, "value": v, "unit": "px"} for d, v in sizes.items()]


def block_mean(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return xr.zeros_like(data) + data.mean(("y", "x"))


def same(data: Any, context: Any = None) -> Any:
    return data


@pytest.mark.parametrize("chunks", [None, {"t": 1, "y": 7, "x": 11}])
def test_blocks_without_overlap(chunks: Any) -> None:
    data = raster(VALUES, grid(25, 30), chunks)
    with nothing_computes():
        result = apply_neighborhood(data, block_mean, px(y=10, x=10))
    expected = VALUES.copy()
    for y in range(0, 25, 10):
        for x in range(0, 30, 10):
            part = np.s_[:, y : y + 10, x : x + 10]
            expected[part] = VALUES[part].mean((1, 2), keepdims=True)
    np.testing.assert_allclose(result.values, expected)
    assert result.odc.geobox == data.odc.geobox


def smoothed(values: np.ndarray) -> np.ndarray:
    return scipy.ndimage.uniform_filter(values, (0, 3, 3), mode="constant")


def test_overlap_hides_the_borders_of_blocks() -> None:
    def smooth(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        return data.copy(
            data=scipy.ndimage.uniform_filter(np.nan_to_num(data.values), (0, 3, 3), mode="constant")
        )

    data = raster(VALUES, grid(25, 30))
    size = [{"dimension": "y", "value": 100, "unit": "m"}, {"dimension": "x", "value": 100}]
    result = apply_neighborhood(data, smooth, size, px(y=2, x=2))
    np.testing.assert_allclose(
        result.values, scipy.ndimage.uniform_filter(VALUES, (0, 3, 3), mode="constant")
    )


def test_durations() -> None:
    seen = []

    def note(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        seen.append(data.sizes["t"])
        return data * 2

    data = raster(VALUES, grid(25, 30), {})
    result = apply_neighborhood(
        data, note, [{"dimension": "t", "value": "P10D"}, *px(x=30)], [{"dimension": "t", "value": "P5D"}]
    )
    assert seen == [3, 4, 3]
    np.testing.assert_allclose(result.values, VALUES * 2)


def test_one_dimension_is_an_array() -> None:
    def reversed_(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        assert cube.is_array(data)
        return data.copy(data=data.data[::-1] if data.dims[0] == cube.ARRAY else data.data[..., ::-1])

    data = raster(VALUES, grid(25, 30), {"y": 10})
    result = apply_neighborhood(data, reversed_, px(x=1, y=1))
    np.testing.assert_array_equal(result.values, VALUES[::-1])


def test_integers_keep_their_no_data() -> None:
    data = raster(np.ones((4, 4), "uint8"), grid(4, 4), {}, nodata=255)
    result = apply_neighborhood(data, same, px(x=2, y=2), px(x=1, y=1))
    assert result.dtype == np.uint8
    assert result.attrs["nodata"] == 255
    assert (result.values == 1).all()


def test_invalid_neighborhoods_are_refused() -> None:
    data = raster(VALUES, grid(25, 30), {})
    with pytest.raises(DimensionNotAvailable):
        apply_neighborhood(data, same, px(z=1))
    with pytest.raises(DataCubePropertiesImmutable):
        apply_neighborhood(data, lambda data, context: data.isel(x=0), px(x=5))
    with pytest.raises(ProcessParameterInvalid, match="not temporal"):
        apply_neighborhood(data, same, [{"dimension": "x", "value": "P1D"}])
    with pytest.raises(ProcessParameterInvalid, match="smaller than one"):
        apply_neighborhood(data, same, [{"dimension": "x", "value": 1, "unit": "m"}])
    big = raster(np.zeros((2, 300, 300)), grid(300, 300), {})
    with pytest.raises(ProcessGraphComplexity, match="larger blocks"):
        apply_neighborhood(big, same, px(x=2, y=2))


# --- Calendar periods ----------------------------------------------------------------------------


def scored(count: int = 40, step: str = "7D") -> xr.DataArray:
    """A cube with a single band of scores, and a gap in time."""
    times = pd.date_range("2021-11-20", periods=count, freq=step)
    times = times[(times < "2022-02-01") | (times >= "2022-04-01")]
    scores = np.random.default_rng(3).normal(size=(len(times), 1, 4, 5))
    return raster(scores, grid(4, 5), {"t": 3, "x": 2}).assign_coords(t=times.to_numpy())


def subtract_largest(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return data - data.max(cube.ARRAY)


@pytest.mark.parametrize("period", list(PERIODS))
@pytest.mark.parametrize("pixels", [px(x=1, y=1), []])
@pytest.mark.parametrize("overlap", [None, []])
def test_blocks_of_calendar_periods(period: str, pixels: list, overlap: Any) -> None:
    data = scored()
    size = [{"dimension": "t", "value": period}, *pixels]
    if pixels:
        with nothing_computes():
            result = apply_neighborhood(data, subtract_largest, size, overlap)
    else:
        result = apply_neighborhood(data, lambda data, context: data - data.max("t"), size, overlap)
    groups = PERIODS[period].labels(PERIODS[period].number(pd.DatetimeIndex(data.t.values)))
    expected = data.values.copy()
    for label in set(groups):
        inside = np.array(groups) == label
        expected[inside] -= expected[inside].max(axis=0)
    np.testing.assert_allclose(result.values, expected)
    assert result.t.equals(data.t)


def test_overlaps_of_periods_and_durations_and_pixels() -> None:
    data = scored()
    lengths = []

    def remember(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        lengths.append(tuple(data.t.values[[0, -1]].astype("datetime64[D]").astype(str)))
        return data

    size = [{"dimension": "t", "value": "month", "unit": None}, *px(x=5, y=4)]
    for overlap in ("month", "P40D"):
        lengths.clear()
        around = [{"dimension": "t", "value": overlap}, *px(x=2, y=1)]
        result = apply_neighborhood(data, remember, size, around)
        np.testing.assert_array_equal(result.values, data.values)
        times = pd.DatetimeIndex(data.t.values)
        for (first, last), month in zip(lengths, times.to_period("M").unique(), strict=True):
            if overlap == "month":
                low, high = (month - 1).start_time, (month + 2).start_time
            else:
                low, high = (
                    month.start_time - pd.Timedelta("40D"),
                    (month + 1).start_time + pd.Timedelta("40D"),
                )
            inside = times[(times >= low) & (times < high)]
            assert (first, last) == (str(inside[0].date()), str(inside[-1].date()))


def test_periods_where_they_make_no_sense() -> None:
    with pytest.raises(ProcessParameterInvalid, match="not temporal"):
        apply_neighborhood(scored(), same, [{"dimension": "x", "value": "month"}])
    with pytest.raises(ProcessParameterInvalid, match="in order"):
        apply_neighborhood(scored().isel(t=[2, 1, 0]), same, [{"dimension": "t", "value": "month"}])
    node = {"process_id": "apply_neighborhood", "result": True}
    node["arguments"] = {
        "data": value("data"),
        "process": child("sort", data=value("data")),
        "size": [{"dimension": "t", "value": "fortnight"}],
    }
    with pytest.raises(ProcessParameterInvalid, match="fortnight"):
        evaluate({"process_graph": {"it": node}}, parameters={"data": scored()})


def score_by_distance() -> dict[str, Any]:
    """Score each date by its distance from the 15th of its month."""
    label = {"from_parameter": "label"}
    nodes = {
        "middle": ("date_replace_component", {"date": label, "value": 15, "component": "day"}),
        "days": ("date_difference", {"date1": label, "date2": {"from_node": "middle"}, "unit": "day"}),
        "size": ("absolute", {"x": {"from_node": "days"}}),
        "score": ("multiply", {"x": {"from_node": "size"}, "y": -1}),
    }
    score = {"process_graph": link(nodes)}
    return child("array_apply", data=value("data"), process=score)


def mark_all_but_best() -> dict[str, Any]:
    """Mark all but the largest score, which the inner process is handed as its context."""
    differs = child("neq", x=value("x"), y=value("context"))
    best = {"from_node": "max"}
    nodes = {
        "max": ("max", {"data": value("data")}),
        "rest": ("array_apply", {"data": value("data"), "process": differs, "context": best}),
    }
    return {"process_graph": link(nodes)}


def link(nodes: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Build nodes, the last of which is the result."""
    built = {id_: {"process_id": p, "arguments": a} for id_, (p, a) in nodes.items()}
    built[list(built)[-1]]["result"] = True
    return built


def test_the_best_available_pixel_of_each_month() -> None:
    data, scores, rank = scored(), {"from_node": "scores"}, {"from_node": "rank"}
    along = {"dimension": "t", "process": score_by_distance()}
    size = [{"dimension": "t", "value": "month"}, *px(x=1, y=1)]
    best = {"process": mark_all_but_best(), "size": size, "overlap": []}
    first = child("first", data=value("data"))
    nodes = {
        "scores": ("apply_dimension", {"data": value("data"), **along}),
        "rank": ("apply_neighborhood", {"data": scores, **best}),
        "masked": ("mask", {"data": value("data"), "mask": rank}),
        "months": (
            "aggregate_temporal_period",
            {"data": {"from_node": "masked"}, "period": "month", "reducer": first},
        ),
    }
    with nothing_computes():
        result = evaluate({"process_graph": link(nodes)}, parameters={"data": data})
    times = pd.DatetimeIndex(data.t.values)
    for number, month in enumerate(result.t.values):
        days = np.flatnonzero(times.strftime("%Y-%m") == month)
        if not days.size:
            assert np.isnan(result.values[number]).all()
            continue
        nearest = days[np.argmin(np.abs(times[days].day - 15))]
        np.testing.assert_array_equal(result.values[number], data.values[nearest])
