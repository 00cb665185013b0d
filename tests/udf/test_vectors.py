"""Functions of vector cubes: geometries, their values, and time series of polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo.errors import UdfResultInvalid
from odc_openeo.spatial import vector_cubes
from tests.processes.rasters import grid, raster
from tests.support.graphs import child, value
from tests.udf.conftest import Run, udf, udf_arguments

VALUES = np.random.default_rng(0).random((5, 2, 40, 50)).astype("float32")
CUBE = value("cube")
SQUARES = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
    "features": [
        {
            "type": "Feature",
            "properties": {"name": name, "size": size},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[x, 5151700], [x, 5151900], [x + 100, 5151900], [x + 100, 5151700], [x, 5151700]]
                ],
            },
        }
        for name, size, x in (("west", 1.5, 680000), ("east", None, 680300))
    ],
}

VECTORS = """
import geopandas
import xarray

def apply_vectorcube(
    geometries: geopandas.geodataframe.GeoDataFrame, cube: xarray.DataArray, context: dict
) -> tuple[geopandas.geodataframe.GeoDataFrame, xarray.DataArray]:
    keep = context["keep"]
    geometries = geometries.iloc[keep].reset_index(drop=True)
    geometries["area"] = geometries.area
    return geometries, cube.isel(geometry=keep) * 2
"""
SERIES = """
import pandas as pd

def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    assert isinstance(series.index, pd.DatetimeIndex)
    return series.diff().fillna(0)
"""


@pytest.fixture
def means(run: Run) -> xr.DataArray:
    """The mean of each square, date and band."""
    data = raster(VALUES, grid(40, 50), {"t": 1})
    means: xr.DataArray = run(
        data, "aggregate_spatial", data=CUBE, geometries=SQUARES, reducer=child("mean", data=value("data"))
    )
    return means


def test_geometries_and_values(run: Run, means: xr.DataArray) -> None:
    result = run(means, "run_udf", **udf_arguments(VECTORS, CUBE, context={"keep": [1]}))
    assert result.dims == ("geometry", "t", "bands")
    np.testing.assert_allclose(result.values, means.values[1:] * 2, rtol=1e-6)
    frame = vector_cubes.to_frame(result)
    assert frame["name"].tolist() == ["east"]
    assert frame["area"].tolist() == [20000]
    assert frame.crs.to_epsg() == 32632
    assert result.indexes["t"].equals(means.indexes["t"])


def test_geometries_must_fit_the_values(run: Run, means: xr.DataArray) -> None:
    code = VECTORS.replace("cube.isel(geometry=keep)", "cube")
    with pytest.raises(UdfResultInvalid, match="one geometry per label"):
        run(means, "run_udf", **udf_arguments(code, CUBE, context={"keep": [1]}))


def test_series_of_polygons(run: Run, means: xr.DataArray) -> None:
    result = run(means, "apply_dimension", data=CUBE, process=udf(SERIES), dimension="t")
    expected = np.diff(means.values, axis=1, prepend=means.values[:, :1])
    np.testing.assert_allclose(result.values, expected, atol=1e-6)
    assert vector_cubes.find_geometry_dimension(result) == "geometry"
    whole = run(means, "run_udf", **udf_arguments(SERIES, CUBE))
    np.testing.assert_allclose(whole.values, expected, atol=1e-6)
    assert vector_cubes.to_frame(whole)["name"].tolist() == ["west", "east"]


def test_geometries_without_values(run: Run) -> None:
    code = """
from openeo.udf import FeatureCollection, UdfData

def apply_udf_data(data: UdfData):
    (features,) = data.get_feature_collection_list()
    frame = features.data
    frame["geometry"] = frame.buffer(10)
    data.set_feature_collection_list([FeatureCollection("buffered", frame)])
"""
    squares: Any = vector_cubes.from_frame(vector_cubes.from_geojson(SQUARES, "test", "data"))
    result = run(squares, "run_udf", **udf_arguments(code, CUBE))
    frame = vector_cubes.to_frame(result)
    assert frame["size"].tolist()[0] == 1.5
    assert (frame.area > 20000).all()


AREAS = """
import geopandas
import xarray

def apply_vectorcube(
    geometries: geopandas.geodataframe.GeoDataFrame, cube: xarray.DataArray, context: dict
) -> tuple[geopandas.geodataframe.GeoDataFrame, xarray.DataArray]:
    areas = xarray.DataArray(geometries.area.to_numpy("float32"), dims="geometry")
    wide = xarray.DataArray((geometries["size"].fillna(0) > 1).to_numpy(), dims="geometry")
    return geometries, eval(context["returns"]).transpose(*cube.dims, missing_dims="ignore")
"""


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
@pytest.mark.parametrize("dimension", ["t", "bands", "geometry"])
def test_geometries_under_a_parent(run: Run, means: xr.DataArray, dimension: str, lazy: bool) -> None:
    data = means.chunk({"geometry": 1, "t": 2}) if lazy else means.compute()
    process = udf(AREAS, context={"returns": "cube * areas + wide"})
    result = run(data, "apply_dimension", data=CUBE, process=process, dimension=dimension)
    expected = means.values * np.float32(20000) + np.array([True, False])[:, None, None]
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert vector_cubes.to_frame(result)["name"].tolist() == ["west", "east"]


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_reducers_and_geometries(run: Run, means: xr.DataArray, lazy: bool) -> None:
    data = means if lazy else means.compute()
    process = udf(AREAS, context={"returns": "cube.max('t') * areas"})
    result = run(data, "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    np.testing.assert_allclose(result.values, means.values.max(1) * 20000, rtol=1e-6)
    process = udf(AREAS, "x", context={"returns": "cube * areas"})
    result = run(data, "apply", data=CUBE, process=process)
    np.testing.assert_allclose(result.values, means.values * 20000, rtol=1e-6)


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_some_of_the_geometries(run: Run, means: xr.DataArray, lazy: bool) -> None:
    code = (
        "import xarray\n"
        "def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:\n"
        "    return cube.isel(geometry=[1])\n"
    )
    data = means if lazy else means.compute()
    result = run(data, "apply_dimension", data=CUBE, process=udf(code), dimension="geometry")
    assert vector_cubes.to_frame(result)["name"].tolist() == ["east"]
    np.testing.assert_array_equal(result.values, means.values[1:])
