from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from odc_openeo.processes.terrain import aspect, slope
from tests.processes.rasters import grid, nothing_computes, raster


@pytest.mark.parametrize(
    ("east", "north", "direction"), [(1, 0, 270), (-1, 0, 90), (0, 1, 180), (0, -2, 0), (-0.5, -0.5, 45)]
)
def test_planes(east: float, north: float, direction: float) -> None:
    rows, columns = np.mgrid[0:12, 0:15]
    heights = east * columns * 10.0 - north * rows * 10.0
    data = raster(heights, grid(12, 15), {"y": 5, "x": 4})
    with nothing_computes():
        steepness, downhill = slope(data), aspect(data)
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(steepness.values[inner], np.rad2deg(np.arctan(np.hypot(east, north))))
    np.testing.assert_allclose(downhill.values[inner] % 360, direction, atol=1e-9)
    assert np.isnan(steepness.values[0]).all()
    assert steepness.odc.geobox == data.odc.geobox


def test_degrees_are_metres_at_their_latitude() -> None:
    box = grid(4, 5, 0.001, 10.0, 60.002, "EPSG:4326")
    heights = np.tile(np.arange(5) * 111.19 * np.cos(np.deg2rad(60)), (4, 1))
    assert slope(raster(heights, box)).values[1, 2] == pytest.approx(45, abs=0.01)


def test_level_ground_has_no_aspect() -> None:
    data = raster(np.ones((5, 5), "int16"), grid(5, 5), nodata=-1)
    assert np.isnan(aspect(data).values).all()
    assert slope(data).values[2, 2] == 0


def compute_horn(
    heights: np.ndarray, width: np.ndarray | float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient by Horn's weights, from the definition; no-data at the borders."""
    weights = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    options = {"mode": "constant", "cval": np.nan}
    to_right = scipy.ndimage.convolve(heights, weights, **options)
    downwards = scipy.ndimage.convolve(heights, weights.T, **options)
    return to_right / (8 * width), downwards / (8 * height)


@pytest.mark.parametrize("chunks", [None, {"y": 5, "x": 4}, {"y": 1, "x": 7}, {"y": 40, "x": 3}])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_slope_and_aspect_equal_numpy(dtype: str, crs: str, chunks: dict[str, int] | None) -> None:
    heights = np.random.default_rng(5).normal(800, 90, (2, 13, 15)).astype(dtype)
    heights[1, 3, 4] = -9999
    box = grid(13, 15, 0.001, 10.0, 60.0, crs) if crs == "EPSG:4326" else grid(13, 15)
    data = raster(heights, box, chunks, nodata=-9999)
    if dtype == "float32":
        data = data.where(data != -9999).drop_attrs(deep=False)
    metres = np.pi / 180 * 6_371_000.0 if crs == "EPSG:4326" else 1
    width = 0.001 * metres * np.cos(np.deg2rad(data.y.values))[:, None] if metres != 1 else 10.0
    pixel = box.transform.e * metres
    valid = np.where(heights == -9999, np.nan, heights.astype(float))
    with nothing_computes():
        steepness, downhill = slope(data), aspect(data)
    for number, plane in enumerate(valid):
        east, north = compute_horn(plane, width, pixel)
        steep = np.rad2deg(np.arctan(np.hypot(east, north)))
        np.testing.assert_allclose(steepness.values[number], steep, rtol=1e-12)
        direction = np.rad2deg(np.arctan2(-east, -north)) % 360
        np.testing.assert_allclose(downhill.values[number], direction, rtol=1e-12)
    assert steepness.dtype == np.float64
    assert steepness.coords.keys() == data.coords.keys()


def test_a_chunk_of_a_large_model_takes_few_tasks() -> None:
    data = raster(np.zeros((300, 300), "float32"), grid(300, 300), {"y": 30, "x": 30})
    assert len(slope(data).__dask_graph__()) < 15 * 100
