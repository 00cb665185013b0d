"""Spectral indices."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from odc_openeo import errors
from odc_openeo.processes.indices import ndvi
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.random.default_rng(1).integers(1, 10_000, (2, 3, 8, 10)).astype("uint16")


@pytest.fixture
def data() -> xr.DataArray:
    values = VALUES.copy()
    values[0, 0, 0, 0] = 0
    cube = raster(values, grid(8, 10), chunks={"t": 1, "x": 4}, nodata=0)
    return cube.assign_coords(common_name=("bands", ["red", "nir", "green"]))


def expected() -> np.ndarray:
    red, nir = VALUES[:, 0].astype("float64"), VALUES[:, 1].astype("float64")
    index = (nir - red) / (nir + red)
    index[0, 0, 0] = np.nan
    return index


def test_bands_by_common_name(data: xr.DataArray) -> None:
    with nothing_computes():
        result = ndvi(data)
    assert result.dims == ("t", "y", "x")
    assert result.dtype == "float32"
    assert result.odc.geobox == data.odc.geobox
    np.testing.assert_allclose(result.values, expected(), atol=1e-6)
    named = ndvi(data.drop_vars("common_name"), nir="B02", red="B01")
    np.testing.assert_allclose(named.values, expected(), atol=1e-6)


def test_the_index_as_one_more_band(data: xr.DataArray) -> None:
    with nothing_computes():
        result = ndvi(data, target_band="ndvi")
    assert result.dims == data.dims
    assert list(result.bands.values) == ["B01", "B02", "B03", "ndvi"]
    assert list(result.common_name.values) == ["red", "nir", "green", ""]
    np.testing.assert_allclose(result.values[:, 3], expected(), atol=1e-6)
    np.testing.assert_array_equal(result.values[:, 1], VALUES[:, 1])


def test_ambiguous_or_existing_bands_are_refused(data: xr.DataArray) -> None:
    with pytest.raises(errors.BandExists):
        ndvi(data, target_band="B01")
    with pytest.raises(errors.NirBandAmbiguous):
        ndvi(data, nir="B9")
    with pytest.raises(errors.RedBandAmbiguous):
        ndvi(data.drop_vars("common_name"), nir="B02")
    with pytest.raises(errors.NirBandAmbiguous):
        ndvi(data.assign_coords(common_name=("bands", ["red", "nir", "nir"])))
    with pytest.raises(errors.DimensionAmbiguous):
        ndvi(data.isel(bands=0, drop=True))
