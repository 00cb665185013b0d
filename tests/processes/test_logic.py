"""Comparison and three-valued logic, on JSON and on cubes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.graph import evaluate
from odc_openeo.registry.process import PROCESSES
from tests.processes.pixels import assert_lazy_and_equal, integers, run, values

THREE = (True, False, None)


def three_valued() -> tuple[xr.DataArray, xr.DataArray]:
    pairs = list(itertools.product([1, 0, np.nan], repeat=2))
    return tuple(
        xr.DataArray(np.array(v, np.float32), dims="x").chunk({"x": 2}) for v in zip(*pairs, strict=True)
    )


def as_float(value: bool | None) -> float:
    return np.nan if value is None else float(value)


@pytest.mark.parametrize("process", ["and", "or", "xor"])
def test_cubes_follow_the_same_truth_table_as_json(process: str) -> None:
    x, y = three_valued()
    expected = [as_float(run(process, x=a, y=b)) for a, b in itertools.product(THREE, repeat=2)]
    result = run(process, x=x, y=y)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(values(result), expected)


@pytest.mark.parametrize(
    ("process", "function"), [("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor)]
)
def test_logic_of_booleans_stays_boolean(process: str, function: Any) -> None:
    x, y = (xr.DataArray(v, dims="x") for v in ([True, True, False], [True, False, False]))
    result = run(process, x=x, y=y)
    assert result.dtype == bool
    np.testing.assert_array_equal(values(result), function(x, y))
    np.testing.assert_array_equal(values(run("not", x=x)), [False, False, True])


@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("process", ["any", "all"])
def test_any_and_all_of_a_cube_equal_those_of_json(process: str, ignore: bool) -> None:
    rows = list(itertools.product(THREE, repeat=3))
    data = xr.DataArray(np.array([[as_float(v) for v in row] for row in rows], np.float32), dims=("x", ARRAY))
    expected = [as_float(run(process, data=list(row), ignore_nodata=ignore)) for row in rows]

    def check(result: xr.DataArray) -> None:
        assert result.dtype == (bool if ignore else np.float32)
        np.testing.assert_array_equal(result.values, expected)

    for chunks in ({}, {ARRAY: 1}, {"x": 4, ARRAY: 2}):
        check(run(process, data=data.chunk(chunks), ignore_nodata=ignore).compute(scheduler="synchronous"))


def test_comparison_of_integers_without_no_data_is_boolean() -> None:
    data = integers(nodata=None).isel({ARRAY: 0}, drop=True)
    for process, function in (
        ("eq", np.equal),
        ("neq", np.not_equal),
        ("gt", np.greater),
        ("lte", np.less_equal),
    ):
        result = run(process, x=data.chunk({"y": 2}), y=7)
        assert result.dtype == bool
        np.testing.assert_array_equal(values(result), function(data.values, 7))


def test_comparison_keeps_no_data() -> None:
    data = integers(nodata=21).isel({ARRAY: 1}, drop=True)
    result = run("gt", x=data, y=7)
    expected = np.where(data.values == 21, np.nan, data.values > 7)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(values(result), expected)
    np.testing.assert_array_equal(
        values(run("between", x=data, min=7, max=14)),
        np.where(data.values == 21, np.nan, (data.values >= 7) & (data.values <= 14)),
    )
    assert np.isnan(values(run("eq", x=data, y=None))).all()


def test_numbers_outside_the_dtype_compare_correctly() -> None:
    data = xr.DataArray(np.array([0, 255], np.uint8), dims="x")
    np.testing.assert_array_equal(values(run("lt", x=data, y=300)), [True, True])
    np.testing.assert_array_equal(values(run("gt", x=data, y=-1)), [True, True])
    np.testing.assert_array_equal(values(run("eq", x=data, y=10**30)), [False, False])


def test_booleans_and_numbers_of_cubes_are_different_types() -> None:
    numbers = xr.DataArray(np.array([1, 0, np.nan], np.float32), dims="x")
    booleans = run("gt", x=numbers, y=0)
    np.testing.assert_array_equal(values(run("eq", x=numbers, y=True)), [0, 0, np.nan])
    np.testing.assert_array_equal(values(run("eq", x=booleans, y=True)), [1, 0, np.nan])
    np.testing.assert_array_equal(values(run("eq", x=booleans, y=1)), [0, 0, np.nan])
    np.testing.assert_array_equal(values(run("add", x=booleans, y=1)), [2, 1, np.nan])
    assert cube.TYPE not in run("add", x=booleans, y=1).attrs


def test_scalar_nan_is_a_value_while_nan_in_a_cube_is_no_data() -> None:
    data = xr.DataArray(np.array([1, np.nan], np.float32), dims="x")
    np.testing.assert_array_equal(values(run("eq", x=data, y=float("nan"))), [0, np.nan])
    np.testing.assert_array_equal(values(run("neq", x=data, y=float("nan"))), [1, np.nan])


def test_kinds_of_values_in_cubes() -> None:
    data = xr.DataArray(np.array([1, np.nan, np.inf], np.float32), dims="x").chunk({"x": 1})
    expected = {"is_nan": [0, 1, 0], "is_nodata": [0, 1, 0], "is_valid": [1, 0, 0], "is_infinite": [0, 0, 1]}
    for process, expected_values in expected.items():
        result = run(process, x=data)
        assert result.dtype == bool
        np.testing.assert_array_equal(values(result), np.array(expected_values, bool))
    whole = integers(nodata=7).isel({ARRAY: 0}, drop=True)
    np.testing.assert_array_equal(values(run("is_nodata", x=whole)), whole.values == 7)


# --- if ------------------------------------------------------------------------------------------


def test_if_of_a_cube_keeps_dtype_and_no_data_of_integers() -> None:
    data = integers(nodata=0).isel({ARRAY: 0}, drop=True)
    condition = run("gt", x=data.chunk({"y": 2}), y=7)
    result = run("if", value=condition, accept=data.chunk({"y": 2}))
    assert result.dtype == np.uint16
    assert result.attrs["nodata"] == 0
    np.testing.assert_array_equal(values(result), np.where(data.values > 7, data.values, 0))


@pytest.mark.parametrize(
    ("accept", "reject", "dtype"),
    [(1, 0, np.float32), (1, None, np.float32), (0.1, 0, np.float64), (True, False, bool)],
)
def test_if_of_a_cube_between_scalars(accept: Any, reject: Any, dtype: Any) -> None:
    condition = xr.DataArray([True, False], dims="x").chunk({"x": 1})
    result = run("if", value=condition, accept=accept, reject=reject)
    assert result.dtype == dtype
    np.testing.assert_array_equal(values(result), [accept, np.nan if reject is None else reject])


def test_if_of_a_cube_between_a_cube_and_a_number() -> None:
    data = xr.DataArray(np.array([5, np.nan, 7], np.float32), dims="x")
    condition = xr.DataArray(np.array([1, 1, np.nan], np.float32), dims="x")
    result = run("if", value=condition, accept=data, reject=-1)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(values(result), [5, np.nan, -1])


def fails() -> dict[str, Any]:
    return {"process_id": "clip", "arguments": {"x": 1, "min": 2, "max": 1}}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"process_id": "if", "arguments": {"value": True, "accept": 1, "reject": {"from_node": "bad"}}}, 1),
        ({"process_id": "if", "arguments": {"value": False, "accept": {"from_node": "bad"}, "reject": 2}}, 2),
        ({"process_id": "if", "arguments": {"value": None, "accept": {"from_node": "bad"}}}, None),
        ({"process_id": "and", "arguments": {"x": False, "y": {"from_node": "test"}}}, False),
        ({"process_id": "or", "arguments": {"x": True, "y": {"from_node": "test"}}}, True),
    ],
)
def test_only_chosen_branch_is_evaluated(node: dict[str, Any], expected: Any) -> None:
    graph = {"it": {**node, "result": True}, "bad": fails()}
    if node["arguments"].get("y"):
        graph["test"] = {"process_id": "gt", "arguments": {"x": {"from_node": "bad"}, "y": 0}}
    assert evaluate({"process_graph": graph}) is expected


@pytest.mark.parametrize("process", ["and", "or", "xor"])
def test_numbers_are_no_booleans(process: str) -> None:
    x = process == "and"
    with pytest.raises(ProcessParameterInvalid):
        run(process, x=x, y=5)


def test_any_stays_lazy_on_integers() -> None:
    data = integers(nodata=7)
    expected = ((data.values != 7) & (data.values != 0)).any(axis=0)
    assert_lazy_and_equal("any", data, lambda r: np.testing.assert_array_equal(r.values, expected))


@pytest.mark.parametrize("process", ["eq", "neq", "gt", "gte", "lt", "lte"])
@pytest.mark.parametrize("x", [-np.inf, -1.0, np.inf])
@pytest.mark.parametrize("y", [-np.inf, 2.0, np.inf])
def test_infinities_compare_as_in_ieee_754(process: str, x: float, y: float) -> None:
    names = {"eq": "equal", "neq": "not_equal", "gt": "greater", "gte": "greater_equal"}
    ufunc = getattr(np, {**names, "lt": "less", "lte": "less_equal"}[process])
    function = PROCESSES[process].function
    assert function(x, y) is bool(ufunc(x, y))
    data = xr.DataArray([x, x], dims="x").chunk({"x": 1})
    assert function(data, y).values.tolist() == [ufunc(x, y)] * 2
    if process in ("eq", "neq"):
        assert function(x, y, 0.5) is bool(ufunc(x, y))
        assert function(data, y, 0.5).values.tolist() == [ufunc(x, y)] * 2


def test_infinity_is_between_infinities() -> None:
    between = PROCESSES["between"].function
    assert between(np.inf, 0, np.inf) is True
    assert between(np.inf, 0, np.inf, exclude_max=True) is False
    assert between(-np.inf, -np.inf, 0) is True
    data = xr.DataArray([-np.inf, 0.0, np.inf], dims="x")
    assert between(data, 0, np.inf).values.tolist() == [0, 1, 1]
    assert between(data, -np.inf, 0).values.tolist() == [1, 1, 0]
