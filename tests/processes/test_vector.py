from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely

from odc_openeo.errors import CountMismatch, DimensionNotAvailable, ProcessParameterInvalid, UnitMismatch
from odc_openeo.processes.vector import (
    load_geojson,
    vector_buffer,
    vector_reproject,
    vector_to_random_points,
    vector_to_raster,
    vector_to_regular_points,
)
from odc_openeo.spatial import vector_cubes
from tests.processes.rasters import grid, raster


def features(*shapes: Any, **properties: list[Any]) -> dict[str, Any]:
    rows = [
        {
            "type": "Feature",
            "id": f"f{i}",
            "geometry": None if s is None else shapely.geometry.mapping(s),
            "properties": {k: v[i] for k, v in properties.items()},
        }
        for i, s in enumerate(shapes)
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    return {"type": "FeatureCollection", "crs": crs, "features": rows}


BOX = shapely.box(680000, 5151900, 680100, 5152000)
LINE = shapely.LineString([(680000, 5151900), (680000, 5152000)])
POINT = shapely.Point(680050, 5151950)


def test_load_geojson() -> None:
    data = features(BOX, LINE, None, a=[1, 2, None], b=["x", "y", "z"])
    bare = load_geojson(data)
    assert bare.b.values.tolist() == ["x", "y", "z"]
    assert bare.id.values.tolist() == ["f0", "f1", "f2"]
    assert vector_cubes.get_crs(bare, "geometry") == 32632
    one = load_geojson(data, ["a"])
    assert one.dims == ("geometry", "properties")
    np.testing.assert_array_equal(one.values[:, 0], [1, 2, np.nan])
    two = load_geojson(data, ["a", "b"])
    assert two.properties.values.tolist() == ["a", "b"]
    arrays = load_geojson(features(BOX, LINE, a=[[1, 2, 3], [4]]), ["a"])
    assert arrays.properties.values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(arrays.values, [[1, 2, 3], [4, np.nan, np.nan]])
    assert vector_cubes.get_crs(load_geojson({"type": "Point", "coordinates": [1, 2]}), "geometry") == 4326


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"type": "GeometryCollection", "geometries": []}, "not supported"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "invalid"),
        ({"type": "FeatureCollection", "features": [1]}, "array of Features"),
        ({"type": "Point", "coordinates": [1, float("nan")]}, "finite"),
        ({"type": "Point"}, "invalid"),
        ({"type": "Point", "coordinates": [1, 2], "crs": {"properties": {"name": "nope"}}}, "not known"),
    ],
)
def test_invalid_geojson_is_refused(data: Any, match: str) -> None:
    with pytest.raises(ProcessParameterInvalid, match=match):
        load_geojson(data)


def test_buffer_and_reproject() -> None:
    data = load_geojson(features(POINT, BOX, None, a=[1, 2, 3]), ["a"])
    wide = vector_buffer(data, 10)
    assert shapely.area(wide.geometry.values[0]) == pytest.approx(np.pi * 100, rel=0.01)
    assert wide.values.tolist() == data.values.tolist()
    assert shapely.is_empty(vector_buffer(data, -60).geometry.values[1])
    lonlat = vector_reproject(data, 4326)
    assert vector_cubes.get_crs(lonlat, "geometry") == 4326
    expected = vector_cubes.to_frame(data).to_crs(4326).geometry
    assert shapely.equals(lonlat.geometry.values[:2], expected.to_numpy()[:2]).all()
    with pytest.raises(UnitMismatch, match="vector_reproject"):
        vector_buffer(lonlat, 10)
    with pytest.raises(DimensionNotAvailable):
        vector_reproject(data, 4326, "x")
    with pytest.raises(ProcessParameterInvalid, match="known reference system"):
        vector_reproject(data, 9999)


def test_random_points_lie_in_geometries() -> None:
    concave = shapely.Polygon([(0, 0), (100, 0), (100, 100), (99, 1), (0, 1)])
    data = load_geojson(features(concave, LINE, POINT, None, a=[1, 2, 3, 4]))
    result = vector_to_random_points(data, geometry_count=50, seed=1)
    counts = shapely.get_num_geometries(result.geometry.values)
    assert counts.tolist() == [50, 50, 1, 0]
    assert shapely.dwithin(concave, result.geometry.values[0], 1e-9)
    assert shapely.hausdorff_distance(LINE, result.geometry.values[1]) < 20
    assert result.id.values.tolist() == ["f0", "f1", "f2", "f3"]
    again = vector_to_random_points(data, geometry_count=50, seed=1)
    assert (result.geometry.values == again.geometry.values).all()
    single = vector_to_random_points(data, total_count=8, group=False)
    assert single.a.values.tolist() == [1, 1, 1, 2, 2, 2, 3]
    assert "id" not in single.coords
    assert vector_to_random_points(data, group=False).sizes["geometry"] == 3
    with pytest.raises(CountMismatch):
        vector_to_random_points(data, total_count=2)


def test_regular_points_are_placed_at_distance() -> None:
    tiny = shapely.Polygon([(0, 0), (1, 0), (0, 1)])
    data = load_geojson(features(BOX, LINE, POINT, tiny, None))
    result = vector_to_regular_points(data, 30).geometry.values
    assert shapely.get_num_geometries(result).tolist() == [9, 4, 1, 1, 0]
    assert shapely.get_coordinates(result[0])[0].tolist() == [680015, 5151985]
    assert shapely.get_coordinates(result[1])[:, 1].tolist() == [5151900, 5151930, 5151960, 5151990]
    assert vector_to_regular_points(data, 30, False).sizes["geometry"] == 15
    with pytest.raises(UnitMismatch):
        vector_to_regular_points(vector_reproject(data, 4326), 30)


@pytest.mark.parametrize("lazy", [True, False])
def test_vector_to_raster(lazy: bool) -> None:
    other = shapely.box(680050, 5151900, 680200, 5151950)
    data = load_geojson(features(BOX, other, a=[1, 2], b=[3, 4]), ["a", "b"])
    result = vector_to_raster(data.chunk() if lazy else data, raster(np.zeros((20, 20)), grid(20, 20)))
    assert result.dims == ("properties", "y", "x")
    assert result.values[:, 0, 0].tolist() == [1, 3]
    assert result.values[:, 7, 7].tolist() == [2, 4]
    assert np.isnan(result.values[:, 15, 15]).all()
    assert result.odc.geobox == grid(20, 20)
    with pytest.raises(ProcessParameterInvalid, match="no numeric values"):
        vector_to_raster(load_geojson(features(BOX)), raster(np.zeros((20, 20)), grid(20, 20)))
