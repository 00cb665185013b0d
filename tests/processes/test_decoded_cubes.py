"""Cubes of integers as numbers to calculate with: floats with NaN for no-data, lazy or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube

VALUES = [[0, 1, 2], [7, 0, 100]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "bool"])
@pytest.mark.parametrize("missing", [None, 0, 100])
@pytest.mark.parametrize("lazy", [False, True])
def test_integers_become_floats_that_hold_them(dtype: str, missing: Any, lazy: bool) -> None:
    attrs = {"kept": 1} if missing is None else {cube.NODATA: missing, "kept": 1}
    data = xr.DataArray(np.array(VALUES, dtype), dims=("y", "x"), coords={"y": [3, 4]}, attrs=attrs)
    before = data.copy(deep=True)
    decoded = cube.decode(data.chunk({"x": 2}) if lazy else data)
    expected = data.values.astype("float32" if data.dtype.itemsize <= 2 else "float64")
    if missing is not None and dtype != "bool":
        expected[data.values == missing] = np.nan
    assert decoded.dtype == expected.dtype
    assert (decoded.chunks is not None) == lazy
    np.testing.assert_array_equal(decoded.values, expected)
    assert decoded.attrs == {"kept": 1}
    assert decoded.coords.identical(data.coords)
    assert data.identical(before)


@pytest.mark.parametrize("lazy", [False, True])
def test_single_values_are_decoded_too(lazy: bool) -> None:
    data = xr.DataArray(np.array([0, 5], "int16"), dims="x", attrs={cube.NODATA: 0})
    data = data.chunk({"x": 1}) if lazy else data
    assert cube.decode(data.max("x", keep_attrs=True)).values == 5
    assert np.isnan(cube.decode(data.min("x", keep_attrs=True)).values)


def test_each_band_has_its_own_nodata() -> None:
    missing = xr.DataArray([0, 9], dims="bands")
    data = xr.DataArray(np.array([[0, 9], [0, 9]], "uint8"), dims=("bands", "x"))
    decoded = cube.decode(data.assign_coords({cube.NODATA: missing}))
    np.testing.assert_array_equal(decoded.values, [[np.nan, 9], [0, np.nan]])
    assert cube.NODATA not in decoded.coords
