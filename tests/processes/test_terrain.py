from __future__ import annotations

import numpy as np
import pytest

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
