from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import KernelDimensionsUneven, ProcessParameterInvalid
from odc_openeo.processes.kernels import aggregate_spatial_window, apply_kernel
from tests.processes.rasters import grid, nothing_computes, raster

SCIPY = {"replicate": "nearest", "reflect": "reflect", "reflect_pixel": "mirror", "wrap": "grid-wrap"}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape)


def total(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return cube.decode(data).sum(cube.ARRAY)


def count(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return cube.valid(data).sum(cube.ARRAY)


@pytest.mark.parametrize("border", [*SCIPY, 0, 7.5])
@pytest.mark.parametrize("shape", [(3, 3), (1, 5), (9, 7)])
def test_kernel_equals_scipy(border: str | float, shape: tuple[int, int]) -> None:
    values, weights = noise(2, 40, 50), noise(*shape)
    data = raster(values, grid(40, 50), {"t": 1, "y": 16, "x": 20})
    with nothing_computes():
        result = apply_kernel(data, weights.tolist(), factor=0.5, border=border)
    mode = {"mode": SCIPY[border]} if isinstance(border, str) else {"mode": "constant", "cval": border}
    expected = scipy.ndimage.correlate(values, weights[None] * 0.5, **mode)
    np.testing.assert_allclose(result.values, expected, atol=1e-12)
    eager = apply_kernel(data.compute(), weights.tolist(), factor=0.5, border=border)
    np.testing.assert_allclose(eager.values, expected, atol=1e-12)
    assert result.odc.geobox == data.odc.geobox


@pytest.mark.parametrize("border", [*SCIPY, 7.5])
@pytest.mark.parametrize("chunks", [{"y": 2, "x": 3}, {"y": 1, "x": 14}, {"y": 4, "x": 1}])
def test_a_kernel_may_be_larger_than_chunks_and_cube(border: str | float, chunks: dict[str, int]) -> None:
    values, weights = noise(12, 14), noise(7, 11)
    data = raster(values, grid(12, 14), chunks)
    result = apply_kernel(data, weights.tolist(), border=border)
    mode = {"mode": SCIPY[border]} if isinstance(border, str) else {"mode": "constant", "cval": border}
    np.testing.assert_allclose(result.values, scipy.ndimage.correlate(values, weights, **mode), atol=1e-12)
    assert result.chunks == data.chunks
    wide = apply_kernel(data, np.ones((25, 27)).tolist(), border=0)
    np.testing.assert_allclose(wide.values, values.sum(), rtol=1e-9)


def test_kernel_replaces_invalid_numbers() -> None:
    data = raster(np.array([[1, 2, -1], [4, 5, 6], [7, 8, 9]], "int16"), grid(3, 3), {}, nodata=-1)
    result = apply_kernel(data, [[0, 0, 0], [0, 0, 1], [0, 0, 0]], replace_invalid=100)
    assert result.values.tolist() == [[2, 100, 0], [5, 6, 0], [8, 9, 0]]
    assert result.dtype.kind == "f"


def test_kernel_errors() -> None:
    data = raster(noise(5, 5), grid(5, 5))
    with pytest.raises(KernelDimensionsUneven, match="2 x 3"):
        apply_kernel(data, [[1, 1, 1], [1, 1, 1]])
    with pytest.raises(ProcessParameterInvalid, match="same length"):
        apply_kernel(data, [[1, 1, 1], [1]])


@pytest.mark.parametrize("align", ["upper-left", "lower-left", "upper-right", "lower-right"])
@pytest.mark.parametrize("boundary", ["pad", "trim"])
def test_windows(align: str, boundary: str) -> None:
    values = np.random.default_rng(0).integers(0, 9, (2, 11, 13)).astype("uint8")
    data = raster(values, grid(11, 13), {"t": 1, "y": 4, "x": 5}, nodata=255)
    with nothing_computes():
        result = aggregate_spatial_window(data, total, [3, 2], boundary, align)
    rows, columns = (1, 2) if boundary == "pad" else (-1, -1)
    upper, left = align.startswith("upper"), align.endswith("left")
    if boundary == "pad":
        widths = ((0, 0), (0, rows) if upper else (rows, 0), (0, columns) if left else (columns, 0))
        fitted = np.pad(values, widths)
    else:
        fitted = values[:, slice(0, 10) if upper else slice(1, 11), slice(0, 12) if left else slice(1, 13)]
    n, m = fitted.shape[1] // 2, fitted.shape[2] // 3
    expected = fitted.reshape(2, n, 2, m, 3).sum((2, 4))
    np.testing.assert_array_equal(result.values, expected)
    edge = 680000 if left else 680000 + 130 - m * 30
    assert result.x.values[0] == edge + 15
    top = 5152000 if upper else 5152000 - 110 + n * 20
    assert result.y.values[0] == top - 10
    assert result.dims == data.dims


def test_padded_pixels_are_no_data() -> None:
    data = raster(np.ones((3, 3), "uint8"), grid(3, 3), {})
    result = aggregate_spatial_window(data, count, [2, 2])
    assert result.values.tolist() == [[4, 2], [2, 1]]


def test_window_too_large() -> None:
    with pytest.raises(ProcessParameterInvalid, match="larger than the cube"):
        aggregate_spatial_window(raster(noise(5, 5), grid(5, 5)), total, [6, 6], "trim")
