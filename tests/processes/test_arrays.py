"""Processes on arrays of any values, sorting, on JSON and on cubes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.errors import (
    ArrayElementNotAvailable,
    ArrayLabelConflict,
    ArrayNotLabeled,
    LabelExists,
    ProcessParameterInvalid,
)
from odc_openeo.graph import evaluate
from tests.processes.pixels import assert_lazy_and_equal, floats, integers, labelled, run, values
from tests.support.graphs import child


def bands() -> xr.DataArray:
    array = xr.DataArray(np.array([0, 7], np.uint8), dims=ARRAY)
    raw = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    return xr.DataArray(raw, dims=(ARRAY, "y", "x"), coords={ARRAY: ["B04", "B08"], "nodata": array})


def test_an_element_keeps_dtype_and_its_own_no_data_value() -> None:
    for by in ({"index": 1}, {"label": "B08"}):
        result = run("array_element", data=bands().chunk({"x": 1}), **by)
        assert result.dtype == np.uint8
        assert result.attrs["nodata"] == 7
        assert set(result.coords) == set()
        np.testing.assert_array_equal(values(result), bands().values[1])


def test_elements_by_time_in_any_notation() -> None:
    data = floats(3).assign_coords({ARRAY: np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[ns]")})
    for label in ("2020-01-02T00:00:00Z", "2020-01-02", "2020-01-02T01:00:00+01:00"):
        np.testing.assert_array_equal(values(run("array_element", data=data, label=label)), data.values[1])


def test_missing_elements_are_refused() -> None:
    with pytest.raises(ArrayElementNotAvailable, match="B04"):
        run("array_element", data=bands(), label="B4")
    with pytest.raises(ArrayElementNotAvailable, match=r"Index 3 is out of range: .* 3 elements \(0 to 2\)"):
        run("array_element", data=[1, 2, 3], index=3)
    with pytest.raises(ArrayElementNotAvailable, match="the array is empty"):
        run("array_element", data=[], index=0)
    with pytest.raises(ArrayNotLabeled):
        run("array_element", data=floats(), label="B4")
    missing = run("array_element", data=bands().chunk({"x": 1}), index=9, return_nodata=True)
    assert missing.dtype == np.uint8
    assert not run("is_valid", x=missing).any().compute(scheduler="synchronous")


def test_labels_of_any_kind() -> None:
    assert run("array_labels", data=bands()) == ["B04", "B08"]
    assert run("array_labels", data=floats(3)) == [0, 1, 2]
    assert run("array_find_label", data=bands(), label="B08") == 1
    assert run("array_find_label", data=floats(), label="B08") is None
    result = run("array_create_labeled", data=bands(), labels=[1, 2])
    assert run("array_labels", data=result) == [1, 2]


def test_find_and_contain() -> None:
    data = integers(nodata=21)
    hits = data.values == 14

    def find(reverse: bool) -> np.ndarray:
        place = hits.shape[0] - 1 - np.flip(hits, 0).argmax(axis=0) if reverse else hits.argmax(axis=0)
        return np.where(hits.any(axis=0), place, np.nan)

    for reverse in (False, True):
        expected = find(reverse)

        def check(result: xr.DataArray, expected: np.ndarray = expected) -> None:
            np.testing.assert_array_equal(result.values, expected)

        assert_lazy_and_equal(
            "array_find",
            data,
            lambda r, e=expected: np.testing.assert_array_equal(r.values, e),
            value=14,
            reverse=reverse,
        )
    assert_lazy_and_equal(
        "array_contains", data, lambda r: np.testing.assert_array_equal(r.values, hits.any(axis=0)), value=14
    )
    assert np.isnan(values(run("array_find", data=data, value=21))).all()
    field = data.isel({ARRAY: 3}, drop=True)
    assert (values(run("array_contains", data=[7, 14, 0], value=field)) == np.isin(field, [7, 14, 0])).all()


def test_appending_and_joining_arrays_in_cubes() -> None:
    data = floats(3)
    field = data.isel({ARRAY: 0}, drop=True)
    longer = run("array_append", data=data.chunk({"y": 2}), value=field * 2)
    np.testing.assert_array_equal(values(longer), np.concatenate([data, [field * 2]]))
    assert longer.dtype == np.float32
    joined = run("array_concat", array1=[1, None], array2=data.chunk({"y": 2}))
    assert joined.chunks is not None
    assert joined.dtype == np.float32
    assert joined.dims == data.dims
    wide = np.broadcast_to(np.array([1, np.nan]).reshape(2, 1, 1), (2, 4, 5))
    np.testing.assert_array_equal(values(joined), np.concatenate([wide, data]))
    same = run("array_concat", array1=integers(), array2=integers())
    assert same.dtype == np.uint16
    assert same.attrs["nodata"] == 0


def test_labels_of_joined_arrays() -> None:
    a, b = labelled({"a": 1}), labelled({"b": 2})
    assert run("array_concat", array1=a, array2=b) == LabeledArray(["a", "b"], [1, 2])
    assert run("array_concat", array1=a, array2=[2]) == [1, 2]
    with pytest.raises(ArrayLabelConflict):
        run("array_concat", array1=a, array2=a)
    with pytest.raises(LabelExists):
        run("array_append", data=bands(), value=1, label="B04")
    more = run("array_append", data=bands(), value=1, label="B11")
    assert run("array_labels", data=more) == ["B04", "B08", "B11"]
    replaced = run(
        "array_modify", data=labelled({"a": 1, "b": 2}), values=labelled({"b": 5}), index=1, length=1
    )
    assert replaced == LabeledArray(["a", "b"], [1, 5])
    assert run("array_modify", data=labelled({"a": 1, "b": 2}), values=[], index=0, length=1) == LabeledArray(
        ["b"], [2]
    )


def test_modifying_an_array_in_a_cube() -> None:
    data = floats(4)
    result = run("array_modify", data=data.chunk({"y": 2}), values=[0], index=1, length=2)
    np.testing.assert_array_equal(values(result), np.stack([data[0], np.zeros((4, 5)), data[3]]))


def test_repeating_is_limited() -> None:
    assert run("array_create", data=[1], repeat=3) == [1, 1, 1]
    assert run("array_create", data=floats(2).chunk({"y": 1}), repeat=3).sizes[ARRAY] == 6
    with pytest.raises(ProcessParameterInvalid):
        run("array_create", data=[1, 2], repeat=10**9)


# --- Child processes -----------------------------------------------------------------------------


def graph(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "process_graph": {
            "it": {
                "process_id": name,
                "arguments": {"data": {"from_parameter": "data"}, **arguments},
                "result": True,
            }
        }
    }


def test_apply_to_each_element_with_context() -> None:
    data = floats()
    negate = child("multiply", x={"from_parameter": "x"}, y={"from_parameter": "context"})
    for source in (data, data.chunk({ARRAY: 2})):
        result = evaluate(graph("array_apply", process=negate, context=-1), parameters={"data": source})
        assert result.dims == data.dims
        np.testing.assert_array_equal(values(result), -data.values)


def test_apply_with_index_and_label() -> None:
    data = bands()
    by_index = child("add", x={"from_parameter": "x"}, y={"from_parameter": "index"})
    result = evaluate(
        graph("array_apply", process=by_index), parameters={"data": data.drop_vars(["nodata", ARRAY])}
    )
    np.testing.assert_array_equal(values(result), data.values + np.array([0, 1]).reshape(2, 1, 1))
    is_red = child("eq", x={"from_parameter": "label"}, y="B04")
    result = evaluate(graph("array_filter", condition=is_red), parameters={"data": data.chunk({"x": 1})})
    assert run("array_labels", data=result) == ["B04"]
    early = child("date_between", x={"from_parameter": "label"}, min="2020-01-01", max="2020-01-02")
    series = floats(3).assign_coords({ARRAY: np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[ns]")})
    result = evaluate(graph("array_filter", condition=early), parameters={"data": series})
    np.testing.assert_array_equal(values(result), series.values[:2])


def test_filter_on_values_makes_the_rest_no_data() -> None:
    condition = child("gt", x={"from_parameter": "x"}, y=7)
    data = integers(nodata=0)
    result = evaluate(graph("array_filter", condition=condition), parameters={"data": data.chunk({ARRAY: 1})})
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(values(result), np.where(data.values > 7, data.values, 0))


# --- Gaps and sorting ----------------------------------------------------------------------------


def test_gaps_are_filled_by_distance_in_time() -> None:
    times = np.array(["2020-01-01", "2020-01-02", "2020-01-11"], "M8[ns]")
    data = xr.DataArray(np.array([[0], [np.nan], [10]], np.float32), dims=(ARRAY, "x"), coords={ARRAY: times})
    result = run("array_interpolate_linear", data=data.chunk({ARRAY: 1}))
    np.testing.assert_allclose(values(result), [[0], [1], [10]])
    assert (result.coords[ARRAY].values == times).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=1, max_size=10))
def test_filling_gaps_equals_numpy(data: list[int | None]) -> None:
    present = [i for i, v in enumerate(data) if v is not None]
    expected = np.array([np.nan if v is None else v for v in data], float)
    if len(present) > 1:
        inside = slice(present[0], present[-1] + 1)
        expected[inside] = np.interp(np.arange(len(data))[inside], present, [data[i] for i in present])
    as_json = run("array_interpolate_linear", data=data)
    np.testing.assert_allclose([np.nan if v is None else v for v in as_json], expected)
    raw = np.array([[np.nan if v is None else v for v in data]] * 2, float)
    cube = xr.DataArray(raw, dims=("x", ARRAY)).chunk({ARRAY: 3})
    np.testing.assert_allclose(values(run("array_interpolate_linear", data=cube)), [expected, expected])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=10),
    st.booleans(),
    st.sampled_from([True, False]),
)
def test_sorting_cubes_equals_sorting_json(data: list[int | None], asc: bool, nodata: bool) -> None:
    expected = run("sort", data=data, asc=asc, nodata=nodata)
    whole = np.array([9 if v is None else v for v in data], np.uint8)
    integer = xr.DataArray(np.stack([whole] * 2, axis=1), dims=(ARRAY, "x"), attrs={"nodata": 9})
    if 9 not in data:
        result = run("sort", data=integer.chunk({ARRAY: 2}), asc=asc, nodata=nodata)
        assert result.dtype == np.uint8
        assert values(result)[:, 1].tolist() == [9 if v is None else v for v in expected]
    real = xr.DataArray([np.nan if v is None else v for v in data], dims=ARRAY) * xr.DataArray(
        [1.0, 1.0], dims="x"
    )
    expected_values = [np.nan if v is None else v for v in expected]
    np.testing.assert_array_equal(
        values(run("sort", data=real, asc=asc, nodata=nodata))[:, 0], expected_values
    )
    ranks = run("order", data=real.chunk({ARRAY: 2}), asc=asc, nodata=nodata)
    assert values(ranks)[:, 0].tolist() == run("order", data=data, asc=asc, nodata=nodata)
    np.testing.assert_array_equal(
        values(run("rearrange", data=real.chunk({ARRAY: 3}), order=ranks))[:, 1], expected_values
    )


def test_removed_no_data_is_at_the_end_in_a_cube() -> None:
    data = floats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.sort(data.values, axis=0)
    assert_lazy_and_equal("sort", data, lambda r: np.testing.assert_array_equal(r.values, expected))
    order = run("order", data=data.chunk({ARRAY: 2}))
    assert np.isnan(values(order)).sum() == np.isnan(data.values).sum()
    again = run("rearrange", data=data.chunk({ARRAY: 2}), order=order)
    np.testing.assert_array_equal(values(again), expected)


def test_rearranging_with_one_order_keeps_labels() -> None:
    result = run("rearrange", data=bands(), order=[1, 0])
    assert run("array_labels", data=result) == ["B08", "B04"]
    with pytest.raises(ArrayElementNotAvailable, match=r"Index 1 is out of range: .* 1 element \(index 0\)"):
        run("rearrange", data=[1], order=[1])


def test_dates_are_sorted_as_points_in_time() -> None:
    data = ["2020-01-02T00:00:00Z", "2020-01-01T23:00:00-02:00", None, "2020-01-01"]
    assert run("order", data=data) == [3, 0, 1]
    with pytest.raises(ProcessParameterInvalid):
        run("sort", data=["2020-01-01", 5])
