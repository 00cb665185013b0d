"""Processes of single numbers, on JSON and on cubes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo.cube import ARRAY
from odc_openeo.errors import DimensionMismatch, MinMaxSwapped
from tests.processes.pixels import floats, integers, run, values

UNARY = {
    "absolute": np.abs,
    "sgn": np.sign,
    "ceil": np.ceil,
    "floor": np.floor,
    "int": np.trunc,
    "round": np.round,
    "sqrt": np.sqrt,
    "ln": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arsinh": np.arcsinh,
    "arcosh": np.arccosh,
    "artanh": np.arctanh,
}
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "arctan2": np.arctan2,
}


@pytest.mark.parametrize("process", UNARY)
def test_one_argument_equals_numpy_eager_and_lazy(process: str) -> None:
    cube = floats() / 10
    with np.errstate(all="ignore"):
        expected = UNARY[process](cube.values)
    for data in (cube, cube.chunk({"y": 2})):
        result = run(process, x=data)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(values(result), expected)


@pytest.mark.parametrize("process", BINARY)
def test_two_arguments_equal_numpy_in_any_mix(process: str) -> None:
    x, y = floats(), floats(gaps=0.1)
    names = ("y", "x") if process == "arctan2" else ("x", "y")
    for a, b in ((x, y), (x.chunk({ARRAY: 1}), y), (x, 2.5), (2, y.chunk({"x": 2}))):
        raw = [v.values if isinstance(v, xr.DataArray) else np.float32(v) for v in (a, b)]
        with np.errstate(all="ignore"):
            expected = BINARY[process](*raw)
        result = run(process, **dict(zip(names, (a, b), strict=True)))
        assert result.dtype == np.float32
        np.testing.assert_array_equal(values(result), expected)


def test_unsigned_integers_do_not_wrap_and_their_no_data_becomes_nan() -> None:
    x = xr.DataArray(np.array([1, 2, 65535], np.uint16), dims="x", attrs={"nodata": 65535})
    result = run("subtract", x=x, y=2)
    assert result.dtype == np.float32
    assert "nodata" not in result.attrs
    np.testing.assert_array_equal(values(result), [-1, 0, np.nan])


def test_null_with_a_cube_makes_everything_no_data() -> None:
    assert np.isnan(values(run("add", x=floats().chunk({"y": 1}), y=None))).all()


def test_nan_to_the_power_of_zero_stays_no_data() -> None:
    x = xr.DataArray([np.nan, 2.0], dims="x")
    np.testing.assert_array_equal(values(run("power", base=x, p=0)), [np.nan, 1])
    np.testing.assert_array_equal(values(run("power", base=1, p=x)), [np.nan, 1])


@pytest.mark.parametrize("process", ["int", "floor", "ceil", "round"])
def test_rounding_leaves_integers_with_their_no_data_value(process: str) -> None:
    data = integers()
    xr.testing.assert_identical(run(process, x=data), data)


def test_mod_of_a_cube_follows_the_rules_for_zero_and_infinity() -> None:
    x = xr.DataArray(np.array([2, -2, 0, np.nan, -27], np.float32), dims="x")
    np.testing.assert_array_equal(values(run("mod", x=x, y=0)), [np.inf, -np.inf, np.nan, np.nan, -np.inf])
    result = run("mod", x=x, y=5)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(values(result), [2, 3, 0, np.nan, 3])
    np.testing.assert_array_equal(values(run("mod", x=x, y=math.inf)), x.values)


@pytest.mark.parametrize("base", [2, 10, 3])
def test_log_of_a_cube(base: int) -> None:
    x = xr.DataArray(np.array([1, base, 0, -1], np.float32), dims="x")
    result = run("log", x=x, base=base)
    assert result.dtype == np.float32
    np.testing.assert_allclose(values(result), [0, 1, -np.inf, np.nan])


def test_clip_and_scale_keep_no_data() -> None:
    x = xr.DataArray(np.array([-5, 5, np.nan], np.float32), dims="x")
    np.testing.assert_array_equal(values(run("clip", x=x, min=-1, max=1)), [-1, 1, np.nan])
    scaled = run("linear_scale_range", x=x, inputMin=0, inputMax=10, outputMin=100, outputMax=0)
    np.testing.assert_array_equal(values(scaled), [100, 50, np.nan])
    with pytest.raises(MinMaxSwapped):
        run("clip", x=x, min=1, max=-1)


def test_normalized_difference_of_raw_bands() -> None:
    red, nir = integers(), integers(length=7) * np.uint16(3)
    nir.attrs["nodata"] = 0
    a, b = (np.where(v.values == 0, np.nan, v.values).astype(np.float32) for v in (nir, red))
    result = run("normalized_difference", x=nir.chunk({"y": 1}), y=red.chunk({"y": 1}))
    assert result.dtype == np.float32
    np.testing.assert_allclose(values(result), (a - b) / (a + b), rtol=1e-6)


def test_cubes_with_other_labels_are_refused() -> None:
    x = floats()
    with pytest.raises(DimensionMismatch):
        run("add", x=x, y=x.assign_coords(x=x.x + 0.5))


def test_large_integers_are_exact_and_bounded() -> None:
    assert run("add", x=2**70, y=1) == 2**70 + 1
    assert run("divide", x=2**70, y=2) == 2**69
    assert run("power", base=3, p=50) == 3**50
    assert run("power", base=10, p=10**9) == math.inf
    assert run("multiply", x=-(2**999), y=2**999) == -math.inf
    assert run("add", x=2**900, y=0.5) == float(2**900)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e9, 1e9), st.integers(-5, 8))
def test_round_equals_decimal_rounding_to_even(x: float, p: int) -> None:
    result = run("round", x=x, p=p)
    assert abs(result - x) <= 0.5 * 10.0**-p + 1e-15 * (1 + abs(x))
    assert run("round", x=result, p=p) == result


@settings(max_examples=30, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_no_arithmetic_raises_on_floats(x: float, y: float) -> None:
    for process in ("add", "subtract", "multiply", "divide", "mod", "arctan2", "normalized_difference"):
        assert isinstance(run(process, x=x, y=y), int | float)
    assert isinstance(run("power", base=x, p=y), int | float)
    assert isinstance(run("log", x=x, base=y), float)
