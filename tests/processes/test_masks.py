"""Masking with raster cubes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube, errors
from odc_openeo.processes.masks import mask
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.arange(1, 2 * 3 * 8 * 10 + 1, dtype="uint16").reshape(2, 3, 8, 10)
MARKS = (np.arange(80).reshape(8, 10) % 3 == 0).astype("uint8") * 4


@pytest.fixture
def data() -> xr.DataArray:
    return raster(VALUES, grid(8, 10), chunks={"t": 1, "x": 4}, nodata=0)


def marks(values: np.ndarray = MARKS, **options: Any) -> xr.DataArray:
    return raster(values, options.pop("geobox", grid(8, 10)), chunks={"y": 3}, **options)


def test_marked_pixels_become_no_data(data: xr.DataArray) -> None:
    with nothing_computes():
        masked = mask(data, marks())
    assert (masked.dtype, masked.dims, masked.attrs["nodata"]) == ("uint16", data.dims, 0)
    assert masked.odc.geobox == data.odc.geobox
    assert masked.chunks == data.chunks or masked.chunks[0] == data.chunks[0]
    np.testing.assert_array_equal(masked.values, np.where(MARKS, 0, VALUES))


@pytest.mark.parametrize(
    ("replacement", "dtype"), [(7, "uint16"), (-5, "int32"), (70000, "uint32"), (0.5, "float32")]
)
def test_replacements_keep_integers_where_they_fit(
    data: xr.DataArray, replacement: float, dtype: str
) -> None:
    masked = mask(data, marks(), replacement)
    assert masked.dtype == dtype
    np.testing.assert_array_equal(masked.values, np.where(MARKS, np.array(replacement, dtype), VALUES))


def test_cubes_without_a_no_data_value_become_floats(data: xr.DataArray) -> None:
    masked = mask(cube.with_nodata(data, None), marks())
    assert masked.dtype == "float32"
    np.testing.assert_array_equal(masked.values, np.where(MARKS, np.nan, VALUES))
    truth = mask(data > 100, marks())
    np.testing.assert_array_equal(truth.values, np.where(MARKS, np.nan, VALUES > 100))
    assert mask(data > 100, marks(), True).dtype == bool


def test_no_data_values_per_band(data: xr.DataArray) -> None:
    several = cube.with_nodata(data, xr.DataArray([0, 500, 600], dims="bands"))
    masked = mask(several, marks())
    assert masked.dtype == "uint16"
    filler = np.array([0, 500, 600])[:, None, None]
    np.testing.assert_array_equal(masked.values, np.where(MARKS, filler, VALUES))


def test_masks_along_other_dimensions(data: xr.DataArray) -> None:
    in_time = np.stack([MARKS, np.zeros_like(MARKS)])
    masked = mask(data, marks(in_time).isel(t=[1, 0]))
    np.testing.assert_array_equal(masked.values, np.where(in_time[:, None], 0, VALUES))
    truth = xr.DataArray([True, False, True], dims="bands", coords={"bands": data.bands}) & (marks() > 0)
    by_band = mask(data, truth)
    assert by_band.dims == data.dims
    np.testing.assert_array_equal(by_band.values, np.where(truth.values, 0, VALUES))


def test_no_data_in_the_mask_masks_nothing(data: xr.DataArray) -> None:
    floats = np.where(MARKS, np.nan, 1.0)
    np.testing.assert_array_equal(mask(data, marks(floats)).values, np.where(MARKS, VALUES, 0))
    np.testing.assert_array_equal(mask(data, marks(nodata=4)).values, VALUES)


def test_a_mask_on_a_coarser_grid_is_aligned(data: xr.DataArray) -> None:
    coarse = np.arange(20).reshape(4, 5) % 2
    with nothing_computes():
        masked = mask(data, marks(coarse, geobox=grid(4, 5, size=20)))
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(masked.values, np.where(fine, 0, VALUES))


def test_a_mask_of_another_extent_on_the_same_grid(data: xr.DataArray) -> None:
    larger = np.ones((20, 20), dtype="uint8")
    np.testing.assert_array_equal(mask(data, marks(larger, geobox=grid(20, 20))).values, 0)
    smaller = mask(data, marks(larger[:4, :5], geobox=grid(8, 10)[2:6, 3:8])).values
    expected = VALUES.copy()
    expected[..., 2:6, 3:8] = 0
    np.testing.assert_array_equal(smaller, expected)


@pytest.mark.parametrize("label", ["SCL", "B02"])
def test_a_single_band_masks_all_bands(data: xr.DataArray, label: str) -> None:
    scl = raster(np.stack([MARKS, 4 - MARKS])[:, None], grid(8, 10), chunks={"y": 3}, nodata=7)
    scl = scl.assign_coords(bands=[label]).drop_vars("common_name")
    with nothing_computes():
        masked = mask(data, scl == 4)
        with_own_nodata = mask(data, scl)
    marked = np.stack([MARKS, 4 - MARKS])[:, None] == 4
    np.testing.assert_array_equal(masked.values, np.where(marked, 0, VALUES))
    np.testing.assert_array_equal(with_own_nodata.values, masked.values)
    assert masked.bands.values.tolist() == ["B01", "B02", "B03"]
    index = data.isel(bands=0, drop=True)
    np.testing.assert_array_equal(mask(index, scl).values, np.where(marked[:, 0], 0, VALUES[:, 0]))


def test_incompatible_masks_are_refused(data: xr.DataArray) -> None:
    with pytest.raises(errors.IncompatibleDataCubes, match="has the dimension 'what'"):
        mask(data, marks().expand_dims(what=2))
    with pytest.raises(errors.IncompatibleDataCubes, match="labels"):
        mask(data, marks().expand_dims(bands=["B01", "B02"]))
    with pytest.raises(errors.IncompatibleDataCubes, match="'t' differ .* Drop it"):
        mask(data, marks().expand_dims(t=data.t.values[:1]))
    with pytest.raises(errors.IncompatibleDataCubes, match="grid"):
        mask(data, marks().drop_vars(["spatial_ref", "x", "y"]).assign_coords(x=range(10), y=range(8)))
    with pytest.raises(errors.ProcessParameterInvalid):
        mask(data, marks(), "text")
    with pytest.raises(errors.ProcessParameterInvalid):
        mask(data, marks(), True)
