from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import ProcessParameterInvalid, TargetDimensionExists
from odc_openeo.graph import evaluate
from odc_openeo.processes import zonal
from odc_openeo.processes.zonal import aggregate_spatial
from odc_openeo.spatial import vector_cubes
from tests.processes.rasters import UTM, grid, nothing_computes, raster


def mean(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return cube.decode(data).mean(cube.ARRAY)


def length(data: xr.DataArray, context: Any = None) -> xr.DataArray:
    return xr.ones_like(data, dtype=float).sum(cube.ARRAY)


def circles(count: int, seed: int = 1) -> gpd.GeoDataFrame:
    rng = np.random.default_rng(seed)
    centres = np.c_[rng.uniform(680100, 681900, count), rng.uniform(5150100, 5151900, count)]
    shapes = [shapely.Point(c).buffer(r) for c, r in zip(centres, rng.uniform(20, 300, count), strict=True)]
    return gpd.GeoDataFrame({"number": range(count)}, geometry=shapes, crs=UTM)


def brute_force(frame: gpd.GeoDataFrame, values: np.ndarray, box: Any) -> list[np.ndarray]:
    """Pixels of each polygon by testing every centre."""
    columns, rows = np.meshgrid(np.arange(box.shape.x) + 0.5, np.arange(box.shape.y) + 0.5)
    x, y = box.transform @ (columns, rows)
    return [values[..., shapely.intersects_xy(s, x, y)] for s in frame.geometry]


def box_of(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return shapely.geometry.mapping(shapely.box(west, south, east, north))


def in_utm(*geometries: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}},
        "features": [{"type": "Feature", "geometry": g, "properties": {}} for g in geometries],
    }


@pytest.mark.parametrize("lazy", [True, False])
def test_pixels_and_values_equal_brute_force(lazy: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (3, 2, 200, 200)).astype("uint16")
    values[:, 0, 50:60] = 65535
    source = grid(200, 200)
    data = raster(values, source, {"t": 1, "y": 64, "x": 64} if lazy else None, nodata=65535)
    frame = circles(40)
    with nothing_computes():
        result = aggregate_spatial(data, vector_cubes.from_frame(frame), mean)
    assert result.dims == ("geometry", "t", "bands")
    masked = np.where(values == 65535, np.nan, values.astype(float))
    expected = [np.nanmean(p, axis=-1) for p in brute_force(frame, masked, source)]
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert result.number.values.tolist() == list(range(40))
    assert result.xindexes["geometry"].crs == UTM


def reducer(process_id: str, **arguments: Any) -> dict[str, Any]:
    data = {"from_parameter": "data"}
    last = {"process_id": process_id, "arguments": {"data": data, **arguments}, "result": True}
    return {"process_graph": {"last": last}}


def by_graph(data: xr.DataArray, frame: gpd.GeoDataFrame, child: dict[str, Any]) -> xr.DataArray:
    arguments = {
        "data": {"from_parameter": "data"},
        "geometries": {"from_parameter": "geometries"},
        "reducer": child,
    }
    graph = {"zones": {"process_id": "aggregate_spatial", "arguments": arguments, "result": True}}
    given = {"data": data, "geometries": vector_cubes.from_frame(frame)}
    return evaluate({"process_graph": graph}, parameters=given)


REDUCED = {
    "mean": np.nanmean,
    "min": np.nanmin,
    "sum": np.nansum,
    "median": np.nanmedian,
    "sd": lambda values, axis: np.nanstd(values, axis=axis, ddof=1),
    "count": lambda values, axis: np.isfinite(values).sum(axis),
}


@pytest.mark.parametrize("process_id", REDUCED)
@pytest.mark.parametrize("nodata", [None, 65535])
def test_geometries_of_any_size_are_reduced_together(process_id: str, nodata: int | None) -> None:
    values = np.random.default_rng(3).integers(1, 1000, (2, 200, 200)).astype("uint16")
    values[:, 50:60] = 65535 if nodata else 7
    source, frame = grid(200, 200), circles(60, seed=2)
    result = by_graph(raster(values, source, {"t": 1, "y": 64}, nodata=nodata), frame, reducer(process_id))
    numbers = np.where(values == 65535, np.nan, values.astype(float))
    expected = [REDUCED[process_id](pixels, axis=-1) for pixels in brute_force(frame, numbers, source)]
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        (reducer("count", condition=True), lambda p: np.full(2, p.shape[-1])),
        (reducer("first", ignore_nodata=False), lambda p: p[..., 0]),
        (reducer("max", ignore_nodata=False), lambda p: p.max(axis=-1)),
        (reducer("array_element", index=5), lambda p: p[..., 5]),
    ],
)
def test_counting_reducers_see_only_pixels_of_the_geometry(child: Any, expected: Any) -> None:
    values = np.random.default_rng(3).normal(size=(2, 200, 200))
    values[:, 50:53] = np.nan
    source, frame = grid(200, 200), circles(60, seed=2)
    result = by_graph(raster(values, source, {"t": 1, "y": 64}), frame, child)
    np.testing.assert_allclose(result.values, [expected(p) for p in brute_force(frame, values, source)])


def test_polygons_in_longitude_and_latitude_equal_masks_of_gdal() -> None:
    values = np.random.default_rng(0).normal(size=(200, 200))
    source = grid(200, 200)
    frame = circles(25)
    geojson = frame.to_crs(4326).__geo_interface__
    result = aggregate_spatial(raster(values, source, {"y": 77, "x": 77}), geojson, mean)
    inside = [
        rasterio.features.geometry_mask([s], values.shape, source.transform, invert=True)
        for s in frame.geometry
    ]
    np.testing.assert_allclose(result.values, [values[mask].mean() for mask in inside], rtol=1e-9)
    assert result.xindexes["geometry"].crs == 4326


def test_centres_on_the_boundary_belong() -> None:
    data = raster(np.ones((20, 20)), grid(20, 20), {})
    exact = box_of(680005, 5151905, 680055, 5151995)
    assert aggregate_spatial(data, in_utm(exact), length).values.tolist() == [60]


def test_points_and_lines() -> None:
    values = np.arange(400.0).reshape(20, 20)
    data = raster(values, grid(20, 20), {"y": 7, "x": 7})
    shapes = [
        {"type": "Point", "coordinates": [680014, 5151994]},
        {"type": "MultiPoint", "coordinates": [[680014, 5151994], [680016, 5151993], [680199, 5151801]]},
        {"type": "LineString", "coordinates": [[680002, 5151996], [680048, 5151996]]},
        {"type": "Point", "coordinates": [0, 0]},
    ]
    result = aggregate_spatial(data, in_utm(*shapes), mean).values
    np.testing.assert_allclose(result, [1, (1 + 399) / 2, 2, np.nan])


def test_empty_geometries_and_those_outside_are_no_data() -> None:
    data = raster(np.ones((2, 20, 20), "int16"), grid(20, 20), {"y": 8}, nodata=-5)
    shapes = in_utm(box_of(0, 0, 10, 10), box_of(680000, 5151900, 680050, 5152000))
    shapes["features"].append({"type": "Feature", "geometry": None, "properties": None})

    def highest(data: xr.DataArray, context: Any = None) -> xr.DataArray:
        return data.max(cube.ARRAY, keep_attrs=True)

    with nothing_computes():
        result = aggregate_spatial(data, shapes, highest)
    assert result.dtype == np.int16
    assert result.values.tolist() == [[-5, -5], [1, 1], [-5, -5]]
    assert np.isnan(aggregate_spatial(data, in_utm(box_of(0, 0, 9, 9)), mean).values).all()


def test_target_dimension_counts_pixels() -> None:
    values = np.ones((20, 20))
    values[0, :3] = np.nan
    values[1, 0] = np.inf
    data = raster(values, grid(20, 20), {"x": 3})
    shapes = in_utm(box_of(680000, 5151950, 680050, 5152000), box_of(0, 0, 1, 1))
    result = aggregate_spatial(data, shapes, length, target_dimension="what")
    assert result.what.values.tolist() == ["value", "total_count", "valid_count"]
    np.testing.assert_array_equal(result.values, [[25, 25, 21], [np.nan, 0, 0]])


def test_only_touched_chunks_are_read() -> None:
    data = raster(np.ones((1000, 1000)), grid(1000, 1000), {"y": 100, "x": 100})
    read: list[int] = []

    def note(block: np.ndarray) -> np.ndarray:
        read.append(1)
        return block

    noted = data.copy(data=data.data.map_blocks(note, dtype=float, meta=np.empty((0, 0))))
    shapes = in_utm(box_of(680010, 5151910, 680050, 5151990), box_of(684010, 5151910, 684050, 5151990))
    result = aggregate_spatial(noted, shapes, mean)
    assert read == []
    assert result.values.tolist() == [1, 1]
    assert len(read) == 2


def test_large_polygons_stay_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 300, 300))
    source = grid(300, 300)
    data = raster(values, source, {"t": 1, "y": 100, "x": 100})
    frame = circles(5)
    small = aggregate_spatial(data, vector_cubes.from_frame(frame), mean).values
    monkeypatch.setattr(zonal, "_GROUP_PIXELS", 50)
    large = aggregate_spatial(data, vector_cubes.from_frame(frame), mean)
    np.testing.assert_allclose(large.values, small, rtol=1e-12)


def test_few_tasks_for_many_polygons() -> None:
    data = raster(
        np.zeros((10, 2, 512, 512), "int16"), grid(512, 512), {"t": 1, "bands": 1, "y": 128, "x": 128}
    )
    result = aggregate_spatial(data, vector_cubes.from_frame(circles(100)), mean)
    assert len(result.__dask_graph__()) < 100 * 12


def test_in_a_graph() -> None:
    values = np.arange(400.0).reshape(20, 20)
    graph = {
        "process_graph": {
            "z": {
                "process_id": "aggregate_spatial",
                "arguments": {
                    "data": {"from_parameter": "cube"},
                    "geometries": in_utm(box_of(680000, 5151950, 680050, 5152000)),
                    "reducer": {
                        "process_graph": {
                            "m": {
                                "process_id": "median",
                                "arguments": {"data": {"from_parameter": "data"}},
                                "result": True,
                            }
                        }
                    },
                },
                "result": True,
            }
        }
    }
    with nothing_computes():
        result = evaluate(graph, parameters={"cube": raster(values, grid(20, 20), {"y": 8, "x": 8})})
    assert result.values.tolist() == [np.median(values[:5, :5])]


def test_invalid_zonal_arguments_are_refused() -> None:
    data = raster(np.ones((20, 20)), grid(20, 20), {})
    shape = in_utm(box_of(680000, 5151950, 680050, 5152000))
    with pytest.raises(TargetDimensionExists):
        aggregate_spatial(data, shape, mean, target_dimension="x")
    with pytest.raises(ProcessParameterInvalid, match="single value"):
        aggregate_spatial(data, shape, lambda data, context: data)
    with pytest.raises(ProcessParameterInvalid, match="GeometryCollection"):
        aggregate_spatial(data, {"type": "GeometryCollection", "geometries": []}, mean)
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
    with pytest.raises(ProcessParameterInvalid, match="not valid: Self-intersection"):
        aggregate_spatial(data, bow, mean)
    with pytest.raises(ProcessParameterInvalid, match="without geometries"):
        aggregate_spatial(data, data, mean)
    with pytest.raises(ProcessParameterInvalid, match="no geometry"):
        aggregate_spatial(data, {"type": "FeatureCollection", "features": []}, mean)
