"""Areas of equal values as polygons."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo.errors import NoDataAvailable
from odc_openeo.processes.polygons import raster_to_vector
from odc_openeo.processes.vector import vector_to_raster
from odc_openeo.spatial import vector_cubes

GRID = GeoBox.from_bbox((500000, 5000000, 500120, 5000080), crs="EPSG:32632", resolution=10)


def classes() -> xr.DataArray:
    values = np.random.default_rng(2).integers(0, 3, GRID.shape).astype(np.uint8)
    values[2:5, 3:6] = 255
    coords = xr_coords(GRID, dims=("y", "x"))
    return xr.DataArray(values, dims=("y", "x"), coords=coords, attrs={"nodata": 255})


def test_polygons_burnt_again_are_the_raster() -> None:
    data = classes()
    polygons = raster_to_vector(data.chunk(5))
    area = (data != 255).sum().item() * 100
    assert vector_cubes.to_frame(polygons).area.sum() == pytest.approx(area)
    assert vector_cubes.get_crs(polygons, "geometry").to_epsg() == 32632
    burnt = vector_to_raster(polygons, data).isel(properties=0)
    np.testing.assert_array_equal(burnt.values, np.where(data == 255, np.nan, data))


def test_labels_of_other_dimensions_are_kept() -> None:
    two = xr.concat([classes(), classes() * 0 + 1], "bands").assign_coords(bands=["a", "b"])
    polygons = raster_to_vector(two.astype(float))
    assert (polygons.bands == "b").sum() == 1
    assert set(polygons.bands.values) == {"a", "b"}


def test_without_data_there_are_no_polygons() -> None:
    with pytest.raises(NoDataAvailable):
        raster_to_vector(classes().astype(float) * np.nan)
