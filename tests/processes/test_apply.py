"""Child processes on values, along dimensions and over areas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube, errors
from odc_openeo.cube import ARRAY
from odc_openeo.processes.apply import apply, apply_dimension, reduce_dimension, reduce_spatial
from odc_openeo.processes.dimensions import dimension_labels
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.arange(1, 2 * 3 * 8 * 10 + 1, dtype="uint16").reshape(2, 3, 8, 10)


@pytest.fixture
def data() -> xr.DataArray:
    return raster(VALUES, grid(8, 10), chunks={"t": 1, "x": 4}, nodata=1)


def mean(data: Any, context: Any = None) -> Any:
    return cube.decode(data).mean(ARRAY)


def test_values_are_replaced(data: xr.DataArray) -> None:
    with nothing_computes():
        result = apply(data, lambda x, context: cube.decode(x) * context, 10)
    np.testing.assert_array_equal(result.values, np.where(VALUES == 1, np.nan, VALUES * 10.0))
    assert result.dims == data.dims
    assert result.odc.geobox == data.odc.geobox
    assert result.chunks == data.chunks
    assert "nodata" not in result.attrs


@pytest.mark.parametrize(("value", "dtype"), [(5, "int64"), (2.5, "float64"), (True, "bool")])
def test_constants_fill_the_cube(data: xr.DataArray, value: Any, dtype: str) -> None:
    with nothing_computes():
        result = apply(data, lambda x, context: value)
    assert result.dtype == dtype
    assert "nodata" not in result.attrs
    assert (result == value).all()


def test_null_fills_the_cube_with_no_data(data: xr.DataArray) -> None:
    result = apply(data, lambda x, context: None)
    assert (result.dtype, result.attrs["nodata"]) == ("uint16", 1)
    assert not cube.valid(result).any()
    bare = apply(cube.with_nodata(data, None), lambda x, context: None)
    assert np.isnan(bare.values).all()


def test_apply_refuses_invalid_results(data: xr.DataArray) -> None:
    with pytest.raises(errors.ProcessParameterInvalid, match="array"):
        apply(data, lambda x, context: [x, x])
    with pytest.raises(errors.ProcessParameterInvalid, match="additional dimensions"):
        apply(data, lambda x, context: x.expand_dims("more"))


@pytest.mark.parametrize("dimension", ["t", "bands", "y"])
def test_a_dimension_is_reduced(data: xr.DataArray, dimension: str) -> None:
    labels: list[Any] = []

    def reducer(data: Any, context: Any) -> Any:
        labels.extend(cube.labels(data, ARRAY))
        return mean(data)

    with nothing_computes():
        result = reduce_dimension(data, reducer, dimension)
    assert labels == dimension_labels(data, dimension)
    assert result.dims == tuple(d for d in data.dims if d != dimension)
    axis = data.dims.index(dimension)
    expected = np.nanmean(np.where(VALUES == 1, np.nan, VALUES), axis)
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert dimension == "y" or result.odc.geobox == data.odc.geobox


def test_reducers_of_other_kinds(data: xr.DataArray) -> None:
    assert (reduce_dimension(data, lambda data, context: context, "t", 3) == 3).all()
    with pytest.raises(errors.ProcessParameterInvalid, match="returns an array"):
        reduce_dimension(data, lambda data, context: data, "t")
    with pytest.raises(errors.DimensionNotAvailable):
        reduce_dimension(data, mean, "time")


def test_values_along_a_dimension_keep_their_labels(data: xr.DataArray) -> None:
    def cumulated(data: Any, context: Any) -> Any:
        return cube.decode(data).cumsum(ARRAY).drop_vars(ARRAY, errors="ignore")

    with nothing_computes():
        result = apply_dimension(data, cumulated, "t")
    assert result.dims == data.dims
    assert dimension_labels(result, "t") == dimension_labels(data, "t")
    np.testing.assert_array_equal(
        result.values, np.nancumsum(np.where(VALUES == 1, np.nan, VALUES.astype("float32")), 0)
    )


def test_another_number_of_values_is_counted(data: xr.DataArray) -> None:
    def two(data: Any, context: Any) -> Any:
        return [mean(data), 4, None]

    with nothing_computes():
        result = apply_dimension(data, two, "t")
    assert result.dims == data.dims
    assert dimension_labels(result, "t") == [0, 1, 2]
    assert cube.dimension_type(result, "t") == "temporal"
    assert (result.isel(t=1) == 4).all()
    assert result.isel(t=2).isnull().all()


def test_a_new_target_dimension(data: xr.DataArray) -> None:
    result = apply_dimension(data, lambda data, context: data, "bands", "t2")
    assert result.dims == ("t", "t2", "y", "x")
    assert cube.dimension_type(result, "t2") == "other"
    assert dimension_labels(result, "t2") == [0, 1, 2]
    assert (result.dtype, result.attrs["nodata"]) == ("uint16", 1)
    np.testing.assert_array_equal(result.values, VALUES)


def test_an_existing_target_dimension(data: xr.DataArray) -> None:
    single = data.isel(bands=[1])
    result = apply_dimension(single, lambda data, context: data, "t", "bands")
    assert result.dims == ("bands", "y", "x")
    assert cube.dimension_type(result, "bands") == "bands"
    np.testing.assert_array_equal(result.values, VALUES[:, 1])


@pytest.mark.parametrize("process", ["eager", "lazy"])
def test_an_existing_target_dimension_receives_the_values_of_each_label(
    data: xr.DataArray, process: str
) -> None:
    source = data.compute() if process == "eager" else data
    with nothing_computes():
        result = apply_dimension(source, lambda data, context: data.isel({ARRAY: [1, 0]}), "t", "bands")
    assert result.dims == ("bands", "y", "x")
    assert result.bands.values.tolist() == list(range(2 * VALUES.shape[1]))
    assert cube.dimension_type(result, "bands") == "bands"
    assert result.dtype == VALUES.dtype
    expected = VALUES[[1, 0]].swapaxes(0, 1).reshape(-1, *VALUES.shape[2:])
    np.testing.assert_array_equal(result.values, expected)
    single = apply_dimension(source, mean, "t", "bands")
    expected = np.nanmean(np.where(VALUES == 1, np.nan, VALUES), axis=0)
    np.testing.assert_allclose(single.values, expected, rtol=1e-6)


def test_target_dimensions_that_can_receive_nothing(data: xr.DataArray) -> None:
    with pytest.raises(errors.TargetDimensionExists, match="Choose 'bands' or a new name"):
        apply_dimension(data, lambda data, context: data, "t", "x")


def test_single_values_along_a_dimension(data: xr.DataArray) -> None:
    with nothing_computes():
        index = apply_dimension(data, mean, "bands")
        named = apply_dimension(data, mean, "bands", "index")
    expected = np.nanmean(np.where(VALUES == 1, np.nan, VALUES), axis=1)
    for result, dimension, type_ in ((index, "bands", "bands"), (named, "index", "other")):
        assert result[dimension].values.tolist() == [0]
        assert cube.dimension_type(result, dimension) == type_
        np.testing.assert_allclose(result.isel({dimension: 0}).values, expected, rtol=1e-6)
    kept = apply_dimension(data.isel(bands=[1]), mean, "bands")
    assert kept.bands.values.tolist() == ["B02"]
    constant = apply_dimension(data, lambda data, context: 3, "t")
    assert (constant.dims, constant.sizes["t"], int(constant.values.max())) == (data.dims, 1, 3)
    with pytest.raises(errors.ProcessParameterInvalid, match="an object"):
        apply_dimension(data, lambda data, context: {"a": 1}, "t")
    with pytest.raises(errors.DimensionNotAvailable):
        apply_dimension(data, lambda data, context: data, "time")


def test_the_area_is_reduced_chunk_by_chunk(data: xr.DataArray) -> None:
    with nothing_computes():
        result = reduce_spatial(data, mean)
    assert result.dims == ("t", "bands")
    expected = np.nanmean(np.where(VALUES == 1, np.nan, VALUES), axis=(2, 3))
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    mixed = data.transpose("y", "t", "x", "bands").compute()
    np.testing.assert_allclose(reduce_spatial(mixed, mean).values, expected, rtol=1e-6)
    with pytest.raises(errors.DimensionMissing):
        reduce_spatial(data.isel(x=0, drop=True), mean)
