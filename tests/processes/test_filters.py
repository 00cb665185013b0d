"""Filters of bands, areas, times and labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the .xvec accessor)
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from pyproj import Transformer

from odc_openeo import cube, errors
from odc_openeo.processes.dimensions import dimension_labels, rename_dimension
from odc_openeo.processes.filters import filter_bands, filter_bbox, filter_labels, filter_temporal
from tests.processes.rasters import grid, nothing_computes, raster

LEFT, TOP = 680000.0, 5152000.0


@pytest.fixture
def values() -> np.ndarray:
    return np.arange(2 * 3 * 30 * 40, dtype="int16").reshape(2, 3, 30, 40)


@pytest.fixture
def data(values: np.ndarray) -> xr.DataArray:
    cube = raster(values, grid(30, 40), chunks={"t": 1, "x": 16}, nodata=-1)
    return cube.assign_coords(
        common_name=("bands", ["red", "nir", "nir"]), center_wavelength=("bands", [0.66, 0.84, 0.86])
    )


def box(west: float, south: float, east: float, north: float, crs: Any = 32632) -> dict[str, Any]:
    """Offsets from the upper left corner, in metres."""
    return {"west": LEFT + west, "south": TOP + south, "east": LEFT + east, "north": TOP + north, "crs": crs}


@pytest.mark.parametrize(
    ("bands", "wavelengths", "expected"),
    [
        (["B03", "B01"], [], [2, 0]),
        (["nir", "red"], [], [1, 2, 0]),
        (["B02", "nir", "B02"], [], [1, 2]),
        (["nothing"], [], []),
        ([], [[0.8, 0.9], [0.6, 0.7]], [1, 2, 0]),
        (["B03"], [[0.6, 0.84]], [2, 0, 1]),
    ],
)
def test_bands_keep_the_requested_order(
    data: xr.DataArray, values: np.ndarray, bands: list, wavelengths: list, expected: list
) -> None:
    with nothing_computes():
        result = filter_bands(data, bands, wavelengths)
    np.testing.assert_array_equal(result.values, values[:, expected])
    assert (result.dtype, result.attrs["nodata"], result.dims) == ("int16", -1, data.dims)


def test_a_name_comes_before_a_common_name(data: xr.DataArray) -> None:
    renamed = data.assign_coords(bands=["nir", "B2", "B3"])
    assert list(filter_bands(renamed, ["nir"]).bands.values) == ["nir"]


def test_bands_need_a_criterion_and_a_dimension(data: xr.DataArray) -> None:
    with pytest.raises(errors.BandFilterParameterMissing):
        filter_bands(data)
    with pytest.raises(errors.DimensionMissing):
        filter_bands(data.isel(bands=0, drop=True), ["B01"])
    with pytest.raises(errors.ProcessParameterInvalid, match="wavelengths of the bands are unknown"):
        filter_bands(data.drop_vars("center_wavelength"), [], [[0.1, 0.2]])


@pytest.mark.parametrize(
    ("extent", "rows", "columns"),
    [
        (box(100, -200, 200, -100), slice(10, 20), slice(10, 20)),
        (box(105, -205, 205, -105), slice(10, 21), slice(10, 21)),  # edges through centres
        (box(104.9, -114.9, 105.1, -105.1), slice(0, 0), slice(10, 11)),
        (box(-500, -20, 15, 500), slice(0, 2), slice(0, 2)),
        (box(-500, -20, -15, 500), slice(0, 2), slice(0, 0)),
        (box(-1e5, -1e5, 1e5, 1e5), slice(0, 30), slice(0, 40)),
    ],
)
def test_pixels_with_their_centre_in_the_box(
    data: xr.DataArray, values: np.ndarray, extent: dict, rows: slice, columns: slice
) -> None:
    with nothing_computes():
        result = filter_bbox(data, extent)
    np.testing.assert_array_equal(result.values, values[..., rows, columns])
    assert result.dtype == values.dtype
    assert result.odc.crs == data.odc.crs
    assert result.x.attrs == data.x.attrs
    if result.size:
        assert result.odc.geobox == grid(30, 40)[rows, columns]
        assert result.spatial_ref.attrs["GeoTransform"].split()[0] == f"{LEFT + 10 * columns.start:.0f}"


def test_a_box_in_degrees_is_transformed(data: xr.DataArray) -> None:
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(LEFT + 100, TOP - 200, LEFT + 200, TOP - 100)
    result = filter_bbox(data, {"west": west, "south": south, "east": east, "north": north})
    # The axis-aligned box around the box in degrees is a little larger than the one in metres.
    assert result.x.values[[0, -1]] == pytest.approx([LEFT + 105, LEFT + 195], abs=10)
    assert result.y.values[[0, -1]] == pytest.approx([TOP - 105, TOP - 195], abs=10)


def test_edges_in_degrees_are_curves(values: np.ndarray) -> None:
    """A parallel is lowest at the central meridian: corners alone would leave out the rows there."""
    source = GeoBox((200, 40), Affine.translation(499_800, 5_200_000) @ Affine.scale(10, -10), "EPSG:32632")
    whole = wrap_xr(np.zeros(source.shape.yx), source)
    to_utm = Transformer.from_crs(4326, 32632, always_xy=True)
    _, south = Transformer.from_crs(32632, 4326, always_xy=True).transform(500_000, 5_199_000)
    extent = {"west": 8.2, "south": south, "east": 9.8, "north": south + 1}
    corner = to_utm.transform(9.8, south)[1]
    assert corner > 5_199_000 + 250
    result = filter_bbox(whole, extent)
    assert result.sizes["x"] == 40
    assert result.y.values[-1] == 5_199_005
    assert result.y.values[0] == 5_199_995


def test_box_reaching_outside_the_reference_system(data: xr.DataArray) -> None:
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(LEFT + 200, TOP - 150)
    result = filter_bbox(data, {"west": lon, "south": 0, "east": 180, "north": lat})
    assert result.x.values[0] == pytest.approx(LEFT + 205, abs=20)
    assert result.y.values[0] == pytest.approx(TOP - 155, abs=20)
    assert result.x.values[-1] == data.x.values[-1]
    assert result.y.values[-1] == data.y.values[-1]


def test_a_cube_with_ascending_y(data: xr.DataArray, values: np.ndarray) -> None:
    result = filter_bbox(data.isel(y=slice(None, None, -1)), box(0, -30, 400, 0))
    np.testing.assert_array_equal(result.values, values[..., 2::-1, :])


@pytest.mark.parametrize(
    ("extent", "text"),
    [
        (box(200, -200, 100, -100), "swapped"),
        (box(100, -100, 200, -200), "swapped"),
        (box(100, -200, 100, -100), "no area"),
        (box(math.nan, -200, 100, -100), "finite"),
        (box(0, -math.inf, 100, -100), "finite"),
        (box(100, -200, 200, -100, 999999), "unknown"),
        (box(100, -200, 200, -100, "rubbish"), "unknown"),
    ],
)
def test_invalid_boxes_are_refused(data: xr.DataArray, extent: dict, text: str) -> None:
    with pytest.raises(errors.ProcessParameterInvalid, match=text):
        filter_bbox(data, extent)


def test_a_cube_without_area_or_crs(data: xr.DataArray) -> None:
    with pytest.raises(errors.DimensionMissing):
        filter_bbox(data.isel(x=0, drop=True), box(0, -1, 1, 0))
    with pytest.raises(errors.ProcessParameterInvalid, match="no reference system"):
        filter_bbox(data.drop_vars("spatial_ref").drop_attrs(), box(0, -1, 1, 0, 4326))


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        (["2022-06-01", "2022-06-06"], [0]),
        (["2022-06-01T00:00:00Z", "2022-06-06T00:00:01Z"], [0, 1]),
        (["2022-06-01T02:00:00+02:00", None], [0, 1]),
        (["2022-06-01T00:00:00.001Z", None], [1]),
        ([None, "2022-06-06"], [0]),
        (["1000-01-01", "9999-12-31"], [0, 1]),
        (["2023-01-01", None], []),
    ],
)
def test_times_in_half_open_intervals(
    data: xr.DataArray, values: np.ndarray, extent: list, expected: list
) -> None:
    with nothing_computes():
        result = filter_temporal(data, extent)
    np.testing.assert_array_equal(result.values, values[expected])
    assert result.t.dtype == data.t.dtype


@pytest.mark.parametrize(
    ("extent", "error"),
    [
        (["2022-06-06", "2022-06-01"], errors.TemporalExtentEmpty),
        (["2022-06-06", "2022-06-06"], errors.TemporalExtentEmpty),
        ([None, None], errors.ProcessParameterInvalid),
        (["June", None], errors.ProcessParameterInvalid),
        (["2022-02-30", None], errors.ProcessParameterInvalid),
    ],
)
def test_invalid_intervals_are_refused(data: xr.DataArray, extent: list, error: type) -> None:
    with pytest.raises(error):
        filter_temporal(data, extent)


def test_temporal_dimension_must_exist_and_have_dates(data: xr.DataArray) -> None:
    with pytest.raises(errors.DimensionNotAvailable):
        filter_temporal(data, ["2022-06-01", None], "time")
    with pytest.raises(errors.DimensionNotAvailable):
        filter_temporal(data.isel(t=0, drop=True), ["2022-06-01", None])
    with pytest.raises(errors.ProcessParameterInvalid, match="neither dates or times"):
        filter_temporal(data, ["2022-06-01", None], "bands")
    two = data.rename(bands="t2").assign_coords(t2=data.t.values[[0, 1, 1]])
    result = filter_temporal(two, ["2022-06-03", None])
    assert (result.sizes["t"], result.sizes["t2"]) == (1, 2)
    assert filter_temporal(two, ["2022-06-03", None], "t2").sizes["t"] == 2


def test_labels_that_meet_a_condition(data: xr.DataArray, values: np.ndarray) -> None:
    with nothing_computes():
        bands = filter_labels(data, lambda value, context: value in context, "bands", ["B01", "B03"])
        times = filter_labels(data, lambda value, context: value == "2022-06-06T00:00:00Z", "t")
        rows = filter_labels(data, lambda value, context: value > TOP - 50, "y")
        none = filter_labels(data, lambda value, context: None, "y")
    np.testing.assert_array_equal(bands.values, values[:, [0, 2]])
    np.testing.assert_array_equal(times.values, values[1:])
    assert rows.odc.geobox == grid(30, 40)[:5, :]
    assert none.sizes["y"] == 0
    with pytest.raises(errors.DimensionNotAvailable):
        filter_labels(data, lambda value, context: True, "nope")
    with pytest.raises(errors.ProcessParameterInvalid):
        filter_labels(data, lambda value, context: value, "bands")


def test_geometries_wholly_in_the_box() -> None:
    squares = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    vector = xr.DataArray([[1, 2], [3, 4], [5, 6]], dims=("geometry", "bands"), coords={"geometry": squares})
    vector = vector.xvec.set_geom_indexes("geometry", crs=4326)
    result = filter_bbox(vector, {"west": 0, "south": 0, "east": 2.5, "north": 1})
    assert result.values.tolist() == [[1, 2], [3, 4]]
    assert result.xindexes["geometry"].crs == 4326
    metres = {"west": 111000, "south": -1, "east": 400000, "north": 111400, "crs": 3857}
    assert filter_bbox(vector, metres).values.tolist() == [[3, 4], [5, 6]]
    renamed = rename_dimension(vector, "geometry", "fields")
    assert renamed.xindexes["fields"].crs == 4326
    assert dimension_labels(renamed, "fields")[0] == squares[0].wkt


def test_a_vertical_dimension_is_filtered(data: xr.DataArray) -> None:
    deep = data.rename(bands="z").drop_vars(["common_name", "center_wavelength"])
    deep = deep.assign_coords(z=[0.0, 10.0, 20.0])
    assert cube.dimension_type(deep, "z") == "spatial"
    result = filter_bbox(deep, {**box(0, -100, 100, 0), "base": 5, "height": None})
    assert list(result.z.values) == [10.0, 20.0]
