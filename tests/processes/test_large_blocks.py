"""Blocks that are calculated piece by piece have the values of blocks that are calculated whole."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.elementwise import elementwise
from odc_openeo.formats.statistics import Statistics

SHAPE = (3, 257, 513)


def draw_numbers(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(0.3, 2, SHAPE).astype("float32")
    values[random.random(SHAPE) < 0.1] = np.nan
    return values


def compute_ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x - y) / (x + y)


@pytest.mark.parametrize("chunks", [None, (1, 257, 513), (3, 200, 513)])
@pytest.mark.parametrize("order", [("t", "y", "x"), ("x", "t", "y")])
def test_numbers_of_two_cubes(order: tuple[str, ...], chunks: tuple[int, ...] | None) -> None:
    one, other = (xr.DataArray(draw_numbers(seed), dims=("t", "y", "x")) for seed in (1, 2))
    expected = compute_ratio(one.values, other.values)
    if chunks is not None:
        one, other = one.chunk(dict(zip(one.dims, chunks, strict=True))), other.chunk()
    result = elementwise(compute_ratio, compute_ratio, one.transpose(*order), other)
    np.testing.assert_array_equal(result.transpose("t", "y", "x").values, expected)
    assert result.dtype == np.float32


@pytest.mark.parametrize("number", [0.5, None])
def test_a_cube_with_a_number_or_with_one_date(number: float | None) -> None:
    one = xr.DataArray(draw_numbers(1), dims=("t", "y", "x"))
    result = elementwise(compute_ratio, compute_ratio, one, number)
    np.testing.assert_array_equal(
        result.values, compute_ratio(one.values, np.nan if number is None else number)
    )
    of_one_date = elementwise(compute_ratio, compute_ratio, one, one[0])
    np.testing.assert_array_equal(of_one_date.values, compute_ratio(one.values, one.values[:1]))


def test_results_of_another_type() -> None:
    one = xr.DataArray(draw_numbers(1), dims=("t", "y", "x"))
    result = elementwise(np.isnan, np.isnan, one)
    assert result.dtype == bool
    np.testing.assert_array_equal(result.values, np.isnan(one.values))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64"])
@pytest.mark.parametrize("missing", [0, 7, -9999, 70000])
@pytest.mark.parametrize("lazy", [False, True])
def test_decoded_integers_equal_numpy(dtype: str, missing: int, lazy: bool) -> None:
    values = np.random.default_rng(3).integers(0, 9, (40, 50)).astype(dtype)
    data = xr.DataArray(values, dims=("y", "x"), attrs={"nodata": missing, "source": "a grid"})
    decoded = cube.decode(data.chunk({"y": 17}) if lazy else data)
    floats = np.float32 if np.dtype(dtype).itemsize <= 2 else np.float64
    np.testing.assert_array_equal(decoded.values, np.where(values == missing, np.nan, values).astype(floats))
    assert decoded.dtype == floats
    assert decoded.attrs == {"source": "a grid"}
    np.testing.assert_array_equal(data.values, values)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_statistics_of_many_numbers_equal_numpy(dtype: str) -> None:
    numbers = np.nan_to_num(draw_numbers(4) * 1000, nan=5).astype(dtype)
    if dtype != "int32":
        numbers[1, :200] = np.nan
    statistics = Statistics()
    statistics.add(numbers, 5 if dtype == "int32" else None)
    good = numbers[numbers != 5] if dtype == "int32" else numbers[np.isfinite(numbers)]
    found = statistics.to_dict()
    assert found["minimum"] == good.min()
    assert found["maximum"] == good.max()
    assert found["mean"] == pytest.approx(good.mean(dtype=float), rel=1e-9)
    assert found["stddev"] == pytest.approx(good.std(dtype=float), rel=1e-9)
    assert found["valid_percent"] == pytest.approx(100 * good.size / numbers.size)
