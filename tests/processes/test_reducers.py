"""Reducers and running totals, on JSON and on cubes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.errors import (
    AscendingProbabilitiesRequired,
    ProcessParameterInvalid,
    QuantilesParameterConflict,
    QuantilesParameterMissing,
)
from tests.processes.pixels import assert_lazy_and_equal, floats, integers, run, values

NUMPY: dict[str, Callable[..., Any]] = {
    "min": np.nanmin,
    "max": np.nanmax,
    "sum": np.nansum,
    "product": np.nanprod,
    "mean": np.nanmean,
    "median": np.nanmedian,
    "variance": lambda a, axis: np.nanvar(a, axis=axis, ddof=1),
    "sd": lambda a, axis: np.nanstd(a, axis=axis, ddof=1),
}


def reference(process: str, data: np.ndarray) -> np.ndarray:
    """What numpy says, in 64 bits, NaN where a pixel has nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = NUMPY[process](data.astype(np.float64), axis=0)
    return np.where(np.isnan(data).all(axis=0), np.nan, result)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("process", NUMPY)
def test_equals_numpy_whatever_the_chunks(process: str, dtype: Any) -> None:
    data = floats(dtype=dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12

    def check(result: xr.DataArray) -> None:
        assert result.dtype == dtype
        assert result.dims == ("y", "x")
        assert list(result.coords) == ["y", "x"]
        np.testing.assert_allclose(result.values, reference(process, data.values), rtol=tolerance)

    assert_lazy_and_equal(process, data, check)


@pytest.mark.parametrize("process", NUMPY)
def test_no_data_counts_if_it_is_not_ignored(process: str) -> None:
    data = floats()
    complete = ~np.isnan(data.values).any(axis=0)

    def check(result: xr.DataArray) -> None:
        np.testing.assert_array_equal(~np.isnan(result.values), complete)

    assert_lazy_and_equal(process, data, check, ignore_nodata=False)


@pytest.mark.parametrize("nodata", [0, 14, 65535])
@pytest.mark.parametrize(("process", "function"), [("min", np.nanmin), ("max", np.nanmax)])
def test_extremes_of_integers_are_integers_and_never_no_data(
    process: str, function: Any, nodata: int
) -> None:
    data = integers(nodata=nodata)
    valid = np.where(data.values == nodata, np.nan, data.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nan_to_num(function(valid, axis=0), nan=nodata)

    def check(result: xr.DataArray) -> None:
        assert result.dtype == np.uint16
        assert result.attrs["nodata"] == nodata
        np.testing.assert_array_equal(result.values, expected)

    assert_lazy_and_equal(process, data, check)


@pytest.mark.parametrize(("process", "index"), [("first", 0), ("last", -1)])
def test_first_and_last_valid_value(process: str, index: int) -> None:
    for data, missing in ((integers(nodata=7), 7), (floats(), np.nan)):

        def pick(pixel: np.ndarray, missing: Any = missing) -> Any:
            valid = pixel[~np.isnan(pixel)] if pixel.dtype.kind == "f" else pixel[pixel != missing]
            return valid[index] if valid.size else missing

        expected = np.apply_along_axis(pick, 0, data.values)

        def check(result: xr.DataArray, data: xr.DataArray = data, expected: Any = expected) -> None:
            assert result.dtype == data.dtype
            assert result.attrs == data.attrs
            np.testing.assert_array_equal(result.values, expected)

        assert_lazy_and_equal(process, data, check)


def test_extremes_of_bands_with_no_data_values_of_their_own() -> None:
    raw = np.array([[[0, 9], [5, 5]], [[3, 9], [9, 9]]], np.uint8)
    array = xr.DataArray(np.array([0, 9], np.uint8), dims="bands")
    data = xr.DataArray(raw, dims=(ARRAY, "bands", "x"), coords={"nodata": array})
    result = run("min", data=data.chunk({"x": 1}))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(values(result), [[3, 9], [5, 5]])
    np.testing.assert_array_equal(values(cube.decode(result)), [[3, 9], [5, 5]])
    across = run("max", data=data.rename({ARRAY: "t", "bands": ARRAY}))
    np.testing.assert_array_equal(values(across), [[5, 9], [3, 9]])


def test_extrema_and_quantiles_give_arrays() -> None:
    data = floats()

    def check_extrema(result: xr.DataArray) -> None:
        assert result.dims == (ARRAY, "y", "x")
        np.testing.assert_array_equal(result.values[0], reference("min", data.values).astype(np.float32))
        np.testing.assert_array_equal(result.values[1], reference("max", data.values).astype(np.float32))

    assert_lazy_and_equal("extrema", data, check_extrema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanquantile(data.values.astype(np.float64), [0.1, 0.5, 0.9], axis=0)

    def check_quantiles(result: xr.DataArray) -> None:
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.values, expected, rtol=1e-5)

    assert_lazy_and_equal("quantiles", data, check_quantiles, probabilities=[0.1, 0.5, 0.9])


def test_sums_of_float32_run_in_float64() -> None:
    data = xr.DataArray(np.full((10_000, 1), 0.1, np.float32), dims=(ARRAY, "x"))
    exact = 10_000 * float(np.float32(0.1))
    assert float(run("sum", data=data)[0]) == pytest.approx(exact, rel=1e-7)
    assert float(run("mean", data=data)[0]) == np.float32(0.1)


def test_whole_arrays_are_gathered_by_splitting_pixels() -> None:
    zeros = da.zeros((40, 2000, 2000), chunks=(1, 2000, 2000), dtype=np.float32)
    lazy = xr.DataArray(zeros, dims=(ARRAY, "y", "x"))
    result = run("median", data=lazy)
    largest = max(result.chunks[0]) * max(result.chunks[1]) * 40 * 4
    assert largest <= 64 * 2**20


def test_reductions_do_not_rechunk_the_array() -> None:
    lazy = floats(length=8).chunk({ARRAY: 1})
    for process in ("mean", "sum", "min", "max", "first", "last", "variance", "count", "cumsum", "cummax"):
        names = {str(k) for k in run(process, data=lazy).data.dask.layers}
        assert not any("rechunk" in name for name in names), process


def test_count_of_valid_elements_and_by_condition() -> None:
    data = floats()
    expected = np.isfinite(data.values).sum(axis=0)
    assert_lazy_and_equal("count", data, lambda r: np.testing.assert_array_equal(r.values, expected))

    def positive(x: Any, context: Any) -> Any:
        return run("gt", x=x, y=context)

    expected_values = (data.values > 3).sum(axis=0)
    assert_lazy_and_equal(
        "count",
        data,
        lambda r: np.testing.assert_array_equal(r.values, expected_values),
        condition=positive,
        context=3,
    )
    assert (values(run("count", data=data, condition=True)) == 7).all()


def test_lists_of_scalars_and_cubes() -> None:
    field = floats().isel({ARRAY: 2}, drop=True)
    result = run("max", data=[field.chunk({"y": 1}), 3, None])
    assert result.dtype == np.float32
    np.testing.assert_array_equal(values(result), np.fmax(field.values, 3))
    mean = run("mean", data=[field, field, 4.5])
    np.testing.assert_allclose(
        values(mean), np.nanmean([field, field, np.full_like(field, 4.5)], axis=0), rtol=1e-6
    )


def test_empty_arrays_have_no_data() -> None:
    empty = floats().isel({ARRAY: slice(0, 0)})
    for process in NUMPY:
        for data in (empty, empty.chunk({"y": 2})):
            assert np.isnan(values(run(process, data=data))).all()


def test_values_that_are_not_arrays_are_refused() -> None:
    for wrong in (floats().isel({ARRAY: 0}, drop=True), ["a"], [True]):
        with pytest.raises(ProcessParameterInvalid):
            run("mean", data=wrong)


def test_quantiles_check_their_parameters() -> None:
    with pytest.raises(QuantilesParameterMissing):
        run("quantiles", data=[1])
    with pytest.raises(QuantilesParameterConflict):
        run("quantiles", data=[1], probabilities=[0.5], q=4)
    with pytest.raises(AscendingProbabilitiesRequired):
        run("quantiles", data=[1], probabilities=[0.5, 0.1])
    with pytest.raises(ProcessParameterInvalid):
        run("quantiles", data=[1], probabilities=1)


# --- JSON ----------------------------------------------------------------------------------------


def test_integers_beyond_53_bits_are_exact() -> None:
    big = 2**60 + 1
    assert run("sum", data=[big, 1]) == big + 1
    assert run("max", data=[big, big - 1]) == big
    assert run("mean", data=[big, big + 2]) == big + 1
    assert run("median", data=[big]) == big
    assert run("product", data=[big, 3]) == big * 3


def test_large_floats_do_not_overflow() -> None:
    assert run("sum", data=[1e308, 1e308]) == math.inf
    assert run("mean", data=[1e308, 1e308]) == 1e308
    assert math.isnan(run("sum", data=[math.inf, -math.inf]))


json_numbers = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), max_size=12)


@settings(max_examples=10, deadline=None)
@given(json_numbers)
def test_json_and_cubes_agree(data: list[float | None]) -> None:
    pixels = xr.DataArray(np.array([np.nan if v is None else v for v in data]), dims=ARRAY)
    cube_of_one = (pixels * xr.DataArray([1.0], dims="x")).chunk({ARRAY: 3})
    for process in (*NUMPY, "first", "last"):
        if process == "product":
            continue
        expected = run(process, data=data)
        actual = float(values(run(process, data=cube_of_one))[0])
        expected_values = math.nan if expected is None else expected
        assert actual == pytest.approx(expected_values, rel=1e-9, abs=1e-6, nan_ok=True), process


# --- Running totals ------------------------------------------------------------------------------

RUNNING = {"cumsum": np.add, "cumproduct": np.multiply, "cummax": np.maximum, "cummin": np.minimum}


@pytest.mark.parametrize("process", RUNNING)
def test_running_totals_skip_no_data_and_keep_it(process: str) -> None:
    data = floats()
    neutral = {"cumsum": 0, "cumproduct": 1, "cummax": -np.inf, "cummin": np.inf}[process]
    gaps = np.isnan(data.values)
    run_through = RUNNING[process].accumulate(np.where(gaps, neutral, data.values.astype(np.float64)), axis=0)
    expected = np.where(gaps, np.nan, run_through)

    def check(result: xr.DataArray) -> None:
        assert result.dims == data.dims
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.values, expected, rtol=1e-5)

    assert_lazy_and_equal(process, data, check)


@pytest.mark.parametrize("process", RUNNING)
def test_running_totals_end_at_no_data_that_is_not_ignored(process: str) -> None:
    data = floats()
    ended = np.maximum.accumulate(np.isnan(data.values), axis=0)
    assert_lazy_and_equal(
        process, data, lambda r: np.testing.assert_array_equal(np.isnan(r.values), ended), ignore_nodata=False
    )
