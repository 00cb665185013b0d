"""Comparing what the bridge computed with what xarray makes of the pixels."""

from __future__ import annotations

import numpy as np
import xarray as xr

# The back-end decodes integers to float32.
RTOL, ATOL = 2e-4, 1e-6


def check_equal(result: xr.Dataset | xr.DataArray, expected: xr.Dataset | xr.DataArray) -> None:
    """Values, dimensions, coordinates and dtypes are the same."""
    assert type(result) is type(expected)
    if isinstance(result, xr.Dataset):
        assert isinstance(expected, xr.Dataset)
        assert list(result.data_vars) == list(expected.data_vars)
        for name in result.data_vars:
            check_equal(result[name], expected[name])
        return
    assert isinstance(expected, xr.DataArray)
    assert result.dims == expected.dims
    assert isinstance(result.variable._data, np.ndarray)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(
        result.values.astype(float), expected.values.astype(float), rtol=RTOL, atol=ATOL
    )
    for name in set(expected.coords) - {"spatial_ref"}:
        assert result[name].variable.equals(expected[name].variable), name
