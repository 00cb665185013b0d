from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import (
    DataCubePropertiesImmutable,
    DimensionNotAvailable,
    ProcessGraphComplexity,
    ProcessParameterInvalid,
)
from odc_openeo.processes.neighborhood import apply_neighborhood
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.random.default_rng(0).normal(size=(6, 25, 30))


def px(**sizes: Any) -> list[dict[str, Any]]:
    return [{"dimension": d, "value": v, "unit": "px"} for d, v in sizes.items()]


def block_mean(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return xr.zeros_like(data) + data.mean(("y", "x"))


def same(data: Any, context: Any = None) -> Any:
    return data


@pytest.mark.parametrize("chunks", [None, {"t": 1, "y": 7, "x": 11}])
def test_blocks_without_overlap(chunks: Any) -> None:
    data = raster(VALUES, grid(25, 30), chunks)
    with nothing_computes():
        result = apply_neighborhood(data, block_mean, px(y=10, x=10))
    expected = VALUES.copy()
    for y in range(0, 25, 10):
        for x in range(0, 30, 10):
            part = np.s_[:, y : y + 10, x : x + 10]
            expected[part] = VALUES[part].mean((1, 2), keepdims=True)
    np.testing.assert_allclose(result.values, expected)
    assert result.odc.geobox == data.odc.geobox


def smoothed(values: np.ndarray) -> np.ndarray:
    return scipy.ndimage.uniform_filter(values, (0, 3, 3), mode="constant")


def test_overlap_hides_the_borders_of_blocks() -> None:
    def smooth(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        return data.copy(
            data=scipy.ndimage.uniform_filter(np.nan_to_num(data.values), (0, 3, 3), mode="constant")
        )

    data = raster(VALUES, grid(25, 30))
    size = [{"dimension": "y", "value": 100, "unit": "m"}, {"dimension": "x", "value": 100}]
    result = apply_neighborhood(data, smooth, size, px(y=2, x=2))
    np.testing.assert_allclose(
        result.values, scipy.ndimage.uniform_filter(VALUES, (0, 3, 3), mode="constant")
    )


def test_durations() -> None:
    seen = []

    def note(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        seen.append(data.sizes["t"])
        return data * 2

    data = raster(VALUES, grid(25, 30), {})
    result = apply_neighborhood(
        data, note, [{"dimension": "t", "value": "P10D"}, *px(x=30)], [{"dimension": "t", "value": "P5D"}]
    )
    assert seen == [3, 4, 3]
    np.testing.assert_allclose(result.values, VALUES * 2)


def test_one_dimension_is_an_array() -> None:
    def reversed_(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        assert cube.is_array(data)
        return data.copy(data=data.data[::-1] if data.dims[0] == cube.ARRAY else data.data[..., ::-1])

    data = raster(VALUES, grid(25, 30), {"y": 10})
    result = apply_neighborhood(data, reversed_, px(x=1, y=1))
    np.testing.assert_array_equal(result.values, VALUES[::-1])


def test_integers_keep_their_no_data() -> None:
    data = raster(np.ones((4, 4), "uint8"), grid(4, 4), {}, nodata=255)
    result = apply_neighborhood(data, same, px(x=2, y=2), px(x=1, y=1))
    assert result.dtype == np.uint8
    assert result.attrs["nodata"] == 255
    assert (result.values == 1).all()


def test_invalid_neighborhoods_are_refused() -> None:
    data = raster(VALUES, grid(25, 30), {})
    with pytest.raises(DimensionNotAvailable):
        apply_neighborhood(data, same, px(z=1))
    with pytest.raises(DataCubePropertiesImmutable):
        apply_neighborhood(data, lambda data, context: data.isel(x=0), px(x=5))
    with pytest.raises(ProcessParameterInvalid, match="not temporal"):
        apply_neighborhood(data, same, [{"dimension": "x", "value": "P1D"}])
    with pytest.raises(ProcessParameterInvalid, match="smaller than one"):
        apply_neighborhood(data, same, [{"dimension": "x", "value": 1, "unit": "m"}])
    big = raster(np.zeros((2, 300, 300)), grid(300, 300), {})
    with pytest.raises(ProcessGraphComplexity, match="larger blocks"):
        apply_neighborhood(big, same, px(x=2, y=2))
