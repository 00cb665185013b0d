"""The graphs of the bridge on another implementation of openEO: openeo-processes-dask by `openeo.local`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

import openeo_xarray
from openeo_xarray import UnsupportedOperation
from tests.bridge.expressions import EXPRESSIONS, Expression

SUPPORTED = """
add subtract multiply divide floor_divide remainder power negative absolute three_bands evi
different_times reverse_power astype integers boolean_sum sqrt exp log log10 log2 log1p expm1 sin
cos tan arcsin arctan arctan2 hypot tanh deg2rad floor ceil trunc rint round sign square reciprocal
minimum fmax greater less_equal not_equal_nan and_or_not xor where where_value where_array xr_where
xr_where_arrays where_broadcast  mean mean_nan mean_no_skip median minimum_of
maximum_of sum prod std_ddof any all quantile argmax argmin max_of_rows sum_of_all count_of_all
range_of to_array_mean to_array_max cumsum cumprod isel_time isel_last isel_slice sel_day sel_month
sel_slice sel_nearest sel_box isel_row boolean_times head loc reversed_time sortby_y first_of_time
groupby_month_mean groupby_month_max groupby_season groupby_weekday groupby_sum resample_month
resample_median resample_sum roll dot_bands interpolate_na transpose expand_dims squeeze rename
assign_coords full_like zeros_like swap climatology_of_july last_clear months_cumsum
"""
CHOSEN = [e for e in EXPRESSIONS if e.code in SUPPORTED.split()]


@pytest.fixture(scope="module")
def pixels() -> xr.Dataset:
    """Three bands of noise in 14 weeks."""
    times = np.arange("2022-06-01T10:10:31", "2022-09-02", np.timedelta64(7, "D"), "datetime64[s]")
    random = np.random.default_rng(7)
    bands = {
        name: (("t", "y", "x"), random.uniform(0.01, 0.5, (14, 12, 20))) for name in ("B04", "B08", "B11")
    }
    coords = {
        "t": times.astype("datetime64[ns]"),
        "y": 5151195.0 - 10 * np.arange(12),
        "x": 679725.0 + 10 * np.arange(20),
    }
    return xr.Dataset(bands, coords)


@pytest.fixture(scope="module")
def local(pixels: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The recorded dataset of a file."""
    pytest.importorskip("openeo_processes_dask", reason="openeo-processes-dask is not installed")
    pytest.importorskip("openeo_pg_parser_networkx", reason="openeo-pg-parser-networkx is not installed")
    pytest.importorskip("rioxarray")
    from openeo.local import LocalConnection

    folder = tmp_path_factory.mktemp("local")
    pixels.rio.write_crs(32632).to_netcdf(folder / "pixels.nc")
    connection = LocalConnection(str(folder))
    return openeo_xarray.open(connection, str(folder / "pixels.nc"), bands=["B04", "B08", "B11"])


def name_bands(ds: xr.Dataset) -> xr.Dataset:
    """The variables of the expressions; the classes are made of a band."""
    ds = ds.rename(B04="red", B08="nir", B11="swir")
    return ds.assign(scl=ds.red * 0 + xr.where(ds.red > 0.1, 4, 5))


@pytest.mark.parametrize("code", ["isel_list", "shift", "rolling_mean", "resample_10_days"])
def test_what_would_give_other_values_is_refused(code: str, local: xr.Dataset) -> None:
    """The graph parser calls the reducer of `aggregate_temporal` once, whatever the intervals are."""
    (expression,) = [e for e in EXPRESSIONS if e.code == code]
    result = expression.function(name_bands(local))
    with pytest.raises(UnsupportedOperation, match=r"intervals of time with openeo\.local"):
        result.compute()


@pytest.mark.parametrize("expression", CHOSEN, ids=lambda e: e.code)
def test_on_processes_dask(expression: Expression, local: xr.Dataset, pixels: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = expression.function(name_bands(local)).compute()
        expected = expression.function(name_bands(pixels.rename(t="time")))
    np.testing.assert_allclose(
        result.values.astype(float), expected.values.astype(float), rtol=1e-6, atol=1e-9
    )
