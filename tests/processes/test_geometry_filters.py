from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import (
    DataCubeEmpty,
    DataCubePropertiesImmutable,
    GeometriesOverlap,
    ProcessParameterInvalid,
    ProcessParameterUnsupported,
)
from odc_openeo.formats.write import Output
from odc_openeo.graph import evaluate
from odc_openeo.processes.filters import filter_bbox
from odc_openeo.processes.geometry_filters import apply_polygon, filter_spatial, filter_vector, mask_polygon
from odc_openeo.spatial import vector_cubes
from tests.processes.rasters import UTM, grid, nothing_computes, raster
from tests.processes.test_zonal import box_of, brute_force, circles, in_utm
from tests.support.graphs import child, value


def covered(frame: Any, shape: tuple[int, int], box: Any) -> np.ndarray:
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    pixels = np.zeros(shape, bool)
    for part in brute_force(frame, numbers, box):
        pixels.ravel()[part] = True
    return pixels


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_mask_polygon_equals_brute_force(inside: bool, lazy: bool) -> None:
    values = np.random.default_rng(0).integers(1, 99, (2, 200, 200)).astype("uint8")
    data = raster(values, grid(200, 200), {"t": 1, "y": 60, "x": 70} if lazy else None, nodata=0)
    frame = circles(12)
    with nothing_computes():
        result = mask_polygon(data, vector_cubes.from_frame(frame), inside=inside)
    keep = covered(frame, (200, 200), grid(200, 200)) != inside
    np.testing.assert_array_equal(result.values, np.where(keep, values, 0))
    assert result.dtype == np.uint8
    assert result.attrs["nodata"] == 0


def test_replacement_leaves_no_data_alone() -> None:
    data = raster(np.array([[1, 255], [3, 255]], "uint8"), grid(2, 2), {}, nodata=255)
    left = in_utm(box_of(680000, 5151980, 680020, 5151990))
    assert mask_polygon(data, left, replacement=9).values.tolist() == [[9, 255], [3, 255]]
    result = mask_polygon(data, left, replacement=0.5)
    np.testing.assert_array_equal(result.values, [[0.5, np.nan], [3, np.nan]])
    with pytest.raises(ProcessParameterInvalid, match="a string can't be written"):
        mask_polygon(data, left, replacement="x")
    with pytest.raises(ProcessParameterInvalid, match="Point"):
        mask_polygon(data, in_utm({"type": "Point", "coordinates": [680000, 5151980]}))


def test_integers_without_no_data_become_floats() -> None:
    data = raster(np.ones((20, 20), "int16"), grid(20, 20), {"y": 5})
    result = mask_polygon(data, in_utm(box_of(680000, 5151900, 680100, 5152000)))
    assert result.dtype == np.float32
    assert np.isnan(result.values[15, 15])


def test_filter_spatial_crops_and_masks() -> None:
    values = np.random.default_rng(0).normal(size=(2, 200, 200))
    source = grid(200, 200)
    data = raster(values, source, {"t": 1, "y": 60, "x": 70})
    frame = circles(1, seed=4)
    with nothing_computes():
        result = filter_spatial(data, frame.to_crs(4326).__geo_interface__)
    inside = covered(frame, (200, 200), source)
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(result.values, np.where(inside, values, np.nan)[(slice(None), *part)])
    assert result.odc.geobox == source[part]


@pytest.mark.parametrize("size", [0.7, 3, 30])
def test_edges_are_straight_where_the_geometry_is(size: float) -> None:
    """Triangles in degrees: a pixel is inside if its centre, reckoned in degrees, is."""
    box = grid(300, 300)
    columns, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    centres = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform(
        *(box.transform @ (columns, rows))
    )
    middle, extent = np.mean(centres, axis=(1, 2)), np.ptp(centres, axis=(1, 2))
    data, random = raster(np.ones((1, 300, 300), "uint8"), box, nodata=0), np.random.default_rng(int(size))
    for _ in range(12):
        triangle = shapely.Polygon(middle + random.normal(size=(3, 2)) * extent * size)
        expected = shapely.contains_xy(triangle, *centres)
        geometry = gpd.GeoDataFrame(geometry=[triangle], crs=4326)
        masked = mask_polygon(data, vector_cubes.from_frame(geometry), inside=True)
        np.testing.assert_array_equal(masked.values[0] == 0, expected)
        if expected.any():
            cropped = filter_spatial(data, vector_cubes.from_frame(geometry))
            np.testing.assert_array_equal(cropped.reindex_like(data, fill_value=0)[0] == 1, expected)


def test_filter_spatial_with_points_and_outside() -> None:
    data = raster(np.arange(400.0).reshape(20, 20), grid(20, 20), {})
    point = in_utm({"type": "Point", "coordinates": [680012, 5151994]})
    assert filter_spatial(data, point).values.tolist() == [[1.0]]


@pytest.mark.parametrize(("dtype", "nodata"), [("float64", None), ("uint8", 0), ("uint8", None)])
def test_geometries_beside_the_cube_leave_no_pixels(dtype: str, nodata: Any) -> None:
    data = raster(np.ones((2, 20, 20), dtype), grid(20, 20), {}, nodata)
    geometry = in_utm(box_of(0, 0, 1, 1))
    with nothing_computes():
        empty = filter_spatial(data, geometry)
    box = filter_bbox(data, {"west": 0, "south": 0, "east": 1, "north": 1, "crs": 32632})
    assert dict(empty.sizes) == dict(box.sizes) == {"t": 2, "y": 0, "x": 0}
    assert empty.dtype == (np.float32 if nodata is None and dtype == "uint8" else dtype)
    assert empty.odc.crs == data.odc.crs
    assert dict(filter_spatial(empty, geometry).sizes) == dict(empty.sizes)
    with pytest.raises(DataCubeEmpty):
        Output.from_data(empty, "GTiff")


@pytest.mark.parametrize("columns", [slice(None), slice(140, None), slice(140, 160)])
@pytest.mark.parametrize("crs", [32632, 4326])
def test_filter_spatial_crops_to_box_of_whole_polygon(columns: slice, crs: int) -> None:
    """Wherever the cube ends: the box must not follow what of the polygon is in the cube."""
    source = grid(200, 200)
    whole = raster(np.ones((200, 200)), source, {})
    triangle = shapely.Polygon([(681505, 5150995), (690000, 5159000), (690000, 5150995)])
    frame = gpd.GeoDataFrame(geometry=[shapely.segmentize(triangle, 200)], crs=UTM)
    result = filter_spatial(whole.isel(x=columns), vector_cubes.from_frame(frame.to_crs(crs)))
    assert result.odc.geobox == source[:101, 150 : columns.stop or 200]
    inside = covered(frame, (200, 200), source)[:101, 150 : columns.stop or 200]
    np.testing.assert_array_equal(np.isfinite(result.values), inside)


def test_filter_spatial_by_the_world() -> None:
    """The CRS of the cube has no coordinates for much of it."""
    data = raster(np.arange(400.0).reshape(20, 20), grid(20, 20), {})
    result = filter_spatial(data, box_of(-180, -90, 180, 90))
    xr.testing.assert_equal(result, data)


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        ("intersects", [0, 1]),
        ("within", [0]),
        ("disjoint", [2]),
        ("overlaps", [1]),
        ("contains", []),
        ("equals", []),
        ("touches", []),
        ("crosses", []),
    ],
)
def test_filter_vector(relation: str, expected: list[int]) -> None:
    boxes = [box_of(1, 1, 2, 2), box_of(3, 3, 8, 8), box_of(9, 9, 10, 10)]
    shapes = {"type": "FeatureCollection", "features": []}
    for number, box in enumerate(boxes):
        feature = {"type": "Feature", "geometry": box, "properties": {"n": number}}
        shapes["features"].append(feature)
    shapes["features"].append({"type": "Feature", "geometry": None, "properties": {"n": 3}})
    data = vector_cubes.from_frame(vector_cubes.from_geojson(shapes, "p", "q"))
    base = vector_cubes.from_frame(vector_cubes.from_geojson(box_of(0, 0, 5, 5), "p", "q").to_crs(3857))
    assert filter_vector(data, base, relation).n.values.tolist() == expected


@pytest.mark.parametrize("lazy", [True, False])
def test_apply_polygon(lazy: bool) -> None:
    values = np.random.default_rng(0).normal(size=(2, 100, 100))
    source = grid(100, 100)
    data = raster(values, source, {"t": 1, "y": 33, "x": 40} if lazy else None)
    frame = circles(1).iloc[:0]
    frame = frame.reindex([0, 1]).set_geometry(
        [shapely.Point(680300, 5151700).buffer(200), shapely.Point(680700, 5151300).buffer(150)], crs=32632
    )

    def less_mean(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        return data - data.mean(("y", "x"))

    with nothing_computes():
        result = apply_polygon(data, vector_cubes.from_frame(frame), less_mean)
    expected = values.copy()
    for one in (frame.iloc[:1], frame.iloc[1:]):
        mask = covered(one, (100, 100), source)
        for plane in expected:
            plane[mask] -= plane[mask].mean()
    np.testing.assert_allclose(result.values, expected)
    assert result.dims == data.dims


def test_apply_polygon_errors() -> None:
    data = raster(np.ones((20, 20)), grid(20, 20), {})
    box = box_of(680000, 5151900, 680100, 5152000)
    with pytest.raises(GeometriesOverlap):
        apply_polygon(data, in_utm(box, box), lambda data, context: data)
    with pytest.raises(DataCubePropertiesImmutable):
        apply_polygon(data, in_utm(box), lambda data, context: data.isel(x=0))


def test_apply_polygon_mask_value() -> None:
    data = raster(np.ones((4, 4)), grid(4, 4), {})
    triangle = shapely.geometry.mapping(
        shapely.Polygon([(680000, 5152000), (680040, 5152000), (680000, 5151960)])
    )

    def total(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        return xr.zeros_like(data) + cube.decode(data).sum(("y", "x"))

    result = apply_polygon(data, in_utm(triangle), total, mask_value=100)
    assert result.values[0, 0] == 10 + 600
    assert result.values[3, 3] == 1


# --- Geometries as clients send them -------------------------------------------------------------

LEFT = shapely.box(680000, 5151800, 680100, 5152000)
RIGHT = shapely.box(680150, 5151900, 680200, 5152000)


def as_feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"name": "a"}, "geometry": geometry}


def as_collection(geometry: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [as_feature(geometry)]}


def with_crs(geometry: dict[str, Any]) -> dict[str, Any]:
    return {**geometry, "crs": {"type": "name", "properties": {"name": "EPSG:32632"}}}


def in_degrees(geometry: Any) -> dict[str, Any]:
    return gpd.GeoSeries([geometry], crs=UTM).to_crs(4326).iloc[0].__geo_interface__


def run_process(process_id: str, data: xr.DataArray, **arguments: Any) -> Any:
    node = {"process_id": process_id, "arguments": {"data": value("data"), **arguments}, "result": True}
    return evaluate({"process_graph": {"it": node}}, parameters={"data": data})


@pytest.mark.parametrize(
    "geometries",
    [
        in_degrees(LEFT),
        as_feature(in_degrees(LEFT)),
        as_collection(in_degrees(LEFT)),
        as_collection(in_degrees(shapely.MultiPolygon([LEFT]))),
        with_crs(LEFT.__geo_interface__),
        with_crs(as_feature(LEFT.__geo_interface__)),
        with_crs(as_collection(LEFT.__geo_interface__)),
    ],
)
def test_polygons_may_be_geojson(geometries: dict[str, Any]) -> None:
    values = np.arange(400.0).reshape(20, 20)
    data = raster(values, grid(20, 20), {"y": 7})
    process = child("apply", data=value("data"), process=child("multiply", x=value("x"), y=-1))
    with nothing_computes():
        result = run_process("apply_polygon", data, geometries=geometries, process=process)
    expected = values.copy()
    expected[:, :10] *= -1
    np.testing.assert_array_equal(result.values, expected)


def test_the_former_name_of_geometries() -> None:
    data = raster(np.ones((20, 20)), grid(20, 20))
    constant = child("apply", data=value("data"), process=child("constant", x=5))
    polygons = with_crs(LEFT.__geo_interface__)
    result = run_process("apply_polygon", data, polygons=polygons, process=constant)
    assert (result.values == 5).sum() == 20 * 10
    with pytest.raises(ProcessParameterUnsupported, match="'polygons'"):
        run_process("apply_polygon", data, polygons=polygons, geometries=polygons, process=constant)


def test_polygons_of_multipolygons_are_one_part() -> None:
    data = raster(np.ones((20, 20)), grid(20, 20))
    both = with_crs(shapely.MultiPolygon([LEFT, RIGHT]).__geo_interface__)
    constant = child("apply", data=value("data"), process=child("constant", x=5))
    result = run_process("apply_polygon", data, geometries=both, process=constant)
    assert (result.values == 5).sum() == 20 * 10 + 10 * 5


@pytest.mark.parametrize(
    "geometries",
    [
        {"type": "Point", "coordinates": [11.3, 46.5]},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "Something"},
        {"a": 1},
        [1, 2],
        "polygon",
        {"type": "FeatureCollection", "features": [1]},
    ],
)
def test_geometries_that_are_no_polygons(geometries: Any) -> None:
    data = raster(np.ones((20, 20)), grid(20, 20))
    process = child("apply", data=value("data"), process=child("constant", x=5))
    with pytest.raises(ProcessParameterInvalid, match="geometries"):
        run_process("apply_polygon", data, geometries=geometries, process=process)


def test_vector_processes_take_geojson() -> None:
    square = with_crs(as_collection(LEFT.__geo_interface__))
    node = {"process_id": "vector_buffer", "arguments": {"geometries": square, "distance": 10}}
    graph = {
        "wide": node,
        "moved": {
            "process_id": "vector_reproject",
            "arguments": {"data": {"from_node": "wide"}, "projection": 32633},
        },
        "back": {
            "process_id": "vector_reproject",
            "arguments": {"data": {"from_node": "moved"}, "projection": 32632},
        },
        "touching": {
            "process_id": "filter_vector",
            "arguments": {"data": {"from_node": "back"}, "geometries": with_crs(LEFT.__geo_interface__)},
        },
        "points": {
            "process_id": "vector_to_regular_points",
            "arguments": {"data": {"from_node": "touching"}, "distance": 50},
            "result": True,
        },
    }
    points = evaluate({"process_graph": graph})
    assert points["name"].values.tolist() == ["a"]
    assert LEFT.buffer(10).contains(points["geometry"].values[0])
