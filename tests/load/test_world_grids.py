"""Boxes in degrees over maps of the poles and of the world, disks seen from space, and around the Earth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from odc_openeo.catalog import filter_scenes
from odc_openeo.errors import NoDataAvailable, ProcessParameterInvalid
from odc_openeo.load import load, parse_request
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.processes.filters import filter_bbox
from odc_openeo.processes.geometry_filters import filter_spatial, mask_polygon
from odc_openeo.processes.resampling import resample_spatial
from odc_openeo.processes.zonal import aggregate_spatial
from odc_openeo.registry.environment import Environment
from odc_openeo.spatial.align import align_to_grid_of
from odc_openeo.untrusted.rasters import LocalFolder
from tests.processes.rasters import raster

DISK = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84 +units=m +no_defs +type=crs"
SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs +type=crs"


class Map:
    """A raster of distinct numbers in a file, as a STAC Item without geometry."""

    def __init__(self, folder: Path, crs: Any, left: float, top: float, size: float, columns: int, rows: int):
        self.crs = pyproj.CRS.from_user_input(crs)
        self.transform = Affine(size, 0, left, 0, -size, top)
        self.values = np.arange(1, rows * columns + 1, dtype="float32").reshape(rows, columns)
        self.path = folder / "map.tif"
        profile = {"driver": "GTiff", "count": 1, "height": rows, "width": columns, "dtype": "float32"}
        with rasterio.open(
            self.path, "w", **profile, crs=self.crs.to_wkt(), transform=self.transform
        ) as file:
            file.write(self.values, 1)

    def load(self, **box: Any) -> xr.DataArray:
        """The pixels of a box: searched for, then loaded."""
        asset = {"href": str(self.path), "type": "image/tiff; application=geotiff", "roles": ["data"]}
        item = {
            "type": "Feature",
            "id": "map",
            "geometry": None,
            "properties": {"datetime": "2024-03-05T10:00:00Z"},
            "assets": {"v": asset},
        }
        bands, scenes = read_items([item], LocalFolder(self.path.parent))
        request = parse_request("load_stac", Environment(None), box or None, None, None)
        scenes = filter_scenes(scenes, request.query)
        if not scenes:
            raise NoDataAvailable(reason="not found")
        return load(scenes, bands, request)[0, 0]

    def centres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longitudes and latitudes of pixel centres; which of them are on Earth."""
        rows, columns = self.values.shape
        x, y = self.transform @ np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
        lon, lat = pyproj.Transformer.from_crs(self.crs, 4326, always_xy=True).transform(x, y)
        if self.crs.is_geographic or self.crs.to_epsg() == 3857:
            return lon, lat, np.ones(lon.shape, bool)
        back = pyproj.Transformer.from_crs(4326, self.crs, always_xy=True).transform(lon, lat)
        with np.errstate(invalid="ignore"):
            valid = np.isfinite(lon) & (np.hypot(back[0] - x, back[1] - y) < 1)
        return lon, lat, valid

    def expected(self, west: float, east: float, south: float, north: float) -> np.ndarray:
        """The values from the first to the last row and column with a centre in the box."""
        lon, lat, valid = self.centres()
        with np.errstate(invalid="ignore"):
            inside = valid & ((lon - west) % 360 <= east - west) & (lat >= south) & (lat <= north)
        rows, columns = np.nonzero(inside)
        return self.values[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


MAPS: dict[str, tuple[Any, ...]] = {
    "south pole": (3031, -200_000, 200_000, 1000, 400, 400),
    "north pole": (3413, -200_000, 200_000, 1000, 400, 400),
    "north pole, 3995": (3995, -200_000, 200_000, 1000, 400, 400),
    "web map": (3857, -20037508.34, 20037508.34, 400750.1668, 100, 100),
    "equal-area": (6933, -17367530.45, 7314540.83, 180161.1, 193, 81),
    "sinusoidal": (SINUSOIDAL, -20015109.354, 10007554.677, 200151.09354, 200, 100),
    "disk": (DISK, -5_500_000, 5_500_000, 110_000, 100, 100),
    "Pacific": (3832, 1_000_000, 2_000_000, 10_000, 400, 400),
    "Alaska": (3338, -2_200_000, 2_400_000, 10_000, 300, 200),
    "New Zealand": (2193, 1_000_000, 6_200_000, 10_000, 200, 150),
    "zone 1": (32601, 100_000, 200_000, 1000, 200, 100),
    "zone 60": (32660, 700_000, 200_000, 1000, 200, 100),
    "web map beyond 180": (3857, 19_000_000, -1_000_000, 10_000, 300, 100),
}
BOXES: list[tuple[str, tuple[float, float, float, float]]] = [
    ("south pole", (-180, 180, -90, -89)),
    ("south pole", (10, 40, -89, -88.5)),
    ("south pole", (-180, 180, -90, 90)),
    ("north pole", (10, 40, 88.5, 89)),
    ("north pole", (-180, 180, 89, 90)),
    ("north pole, 3995", (170, 190, 88.2, 89)),
    ("web map", (5, 20, 40, 50)),
    ("web map", (-180, 0, -60, 60)),
    ("web map", (-180, 180, -85, 85)),
    ("web map", (-170, 170, -60, 60)),
    ("web map", (350, 370, -10, 10)),
    ("web map", (-180, 180, -90, 90)),
    ("equal-area", (-180, 180, -80, 80)),
    ("equal-area", (5, 20, 40, 50)),
    ("sinusoidal", (5, 20, 40, 50)),
    ("sinusoidal", (-180, 180, -90, 90)),
    ("disk", (5, 20, 40, 50)),
    ("disk", (-180, 180, -90, 90)),
    ("disk", (-60, 30, -30, 30)),
    ("Pacific", (170, 190, -10, 10)),
    ("Pacific", (-190, -170, -10, 10)),
    ("Alaska", (170, 190, 51, 60)),
    ("New Zealand", (177, 184, -45, -40)),
    ("zone 1", (179.8, 180.2, 0.5, 1)),
    ("zone 1", (-180.2, -179.8, 0.5, 1)),
    ("zone 60", (179.5, 180.5, 0.5, 1)),
    ("web map beyond 180", (175, 190, -12, -10)),
]


@pytest.mark.parametrize(("name", "box"), BOXES, ids=[f"{name} {box}" for name, box in BOXES])
def test_a_box_has_the_pixels_with_their_centre_in_it(
    tmp_path: Path, name: str, box: tuple[float, float, float, float]
) -> None:
    world = Map(tmp_path, *MAPS[name])
    west, east, south, north = box
    data = world.load(west=west, east=east, south=south, north=north)
    inside = world.expected(west, east, south, north)
    # The box around the area: its edge may be curved between two centres.
    assert np.isin(inside, data.values).all()
    assert data.shape[0] - inside.shape[0] <= 2
    assert data.shape[1] - inside.shape[1] <= 2


def test_a_world_map_is_loaded_within_seconds(tmp_path: Path) -> None:
    world = Map(tmp_path, *MAPS["web map"])
    world.load(west=5, east=20, south=40, north=50)
    # Other processes do not count.
    start = time.process_time()
    data = world.load(west=-180, east=0, south=-60, north=60)
    assert time.process_time() - start < 5
    assert data.shape == (42, 50)


@pytest.mark.parametrize("name", ["web map", "equal-area"])
def test_a_box_at_both_ends_of_a_map_is_refused(tmp_path: Path, name: str) -> None:
    world = Map(tmp_path, *MAPS[name])
    with pytest.raises(ProcessParameterInvalid, match="both ends"):
        world.load(west=170, east=190, south=-10, north=10)


# --- Degrees -------------------------------------------------------------------------------------

CIRCLES = {"0..360": 0, "-180..180": -180, "180..540": 180, "-360..0": -360}


def circle(folder: Path, left: float, size: float = 1.0) -> Map:
    return Map(folder, 4326, left, 90, size, round(360 / size), round(180 / size))


@pytest.mark.parametrize("left", CIRCLES.values(), ids=CIRCLES)
@pytest.mark.parametrize(
    ("west", "east"),
    [(-10, 30), (-180, 180), (0, 360), (-170, -150), (170, 190), (-190, -170), (350, 370), (-200, 200)],
)
def test_columns_go_on_across_the_seam(tmp_path: Path, left: float, west: float, east: float) -> None:
    data = circle(tmp_path, left).load(west=west, east=east, south=40, north=50)
    labels = np.arange(west + 0.5, min(east, west + 360))
    if east - west < 360 or not (west <= left and left + 360 <= east):
        np.testing.assert_allclose(data.x, labels)
    columns = np.floor(data.x.values - left).astype(int) % 360
    np.testing.assert_array_equal(data.values[0], columns + 1 + 40 * 360)
    np.testing.assert_array_equal(data.values[:, 0], columns[0] + 1 + 360 * np.arange(40, 50))


@pytest.mark.parametrize("left", CIRCLES.values(), ids=CIRCLES)
@pytest.mark.parametrize(
    ("west", "east"), [(-10, 30), (-180, 180), (-170, -150), (170, 190), (350, 370), (170, -170)]
)
def test_filters_equal_loads(tmp_path: Path, left: float, west: float, east: float) -> None:
    world = circle(tmp_path, left)
    box = {"west": west, "east": east, "south": 40, "north": 50}
    loaded = world.load(**box)
    filtered = filter_bbox(world.load(), box)
    xr.testing.assert_allclose(filtered, loaded)
    assert filtered.odc.geobox == loaded.odc.geobox
    if west < east:
        ring = [[west, 40], [east, 40], [east, 50], [west, 50], [west, 40]]
        polygon = {"type": "Polygon", "coordinates": [ring]}
        xr.testing.assert_allclose(filter_spatial(world.load(), polygon), loaded)
        masked = mask_polygon(world.load(), polygon)
        np.testing.assert_array_equal(np.sort(masked.values[~np.isnan(masked.values)]), np.sort(loaded, None))


def test_a_box_across_the_seam_of_columns_that_do_not_fit_is_refused(tmp_path: Path) -> None:
    world = Map(tmp_path, 4326, 0, 90, 0.7, 514, 200)
    with pytest.raises(ProcessParameterInvalid, match="one regular grid"):
        world.load(west=-10, east=10, south=40, north=50)
    with pytest.raises(ProcessParameterInvalid, match="one regular grid"):
        filter_bbox(world.load(), {"west": -10, "east": 10, "south": 40, "north": 50})
    assert world.load(west=-10, east=-5, south=40, north=50).x[0] < -9


def test_a_swapped_box_stays_an_error_in_metres(tmp_path: Path) -> None:
    world = Map(tmp_path, *MAPS["zone 1"])
    with pytest.raises(ProcessParameterInvalid, match="swapped"):
        world.load(west=300_000, east=200_000, south=150_000, north=160_000, crs=32601)


def test_zonal_statistics_of_a_polygon_across_the_seam(tmp_path: Path) -> None:
    world = circle(tmp_path, 0)
    data = world.load().expand_dims(t=[np.datetime64("2024-01-01", "ns")])
    ring = [[-10, 40], [30, 40], [30, 50], [-10, 50], [-10, 40]]
    result = aggregate_spatial(
        data, {"type": "Polygon", "coordinates": [ring]}, lambda data, context=None: np.nansum(data)
    )
    columns = [*range(350, 360), *range(30)]
    assert float(np.ravel(result)[0]) == pytest.approx(world.values[40:50, columns].sum(dtype=float))


@pytest.mark.parametrize("left", [0, -180, 180])
@pytest.mark.parametrize("method", ["near", "bilinear"])
def test_resampling_to_a_world_map_has_all_longitudes(tmp_path: Path, left: float, method: str) -> None:
    world = circle(tmp_path, left)
    longitudes = np.broadcast_to(left + np.arange(360) + 0.5, (180, 360)).astype("float32")
    data = world.load().copy(data=longitudes)
    resampled = resample_spatial(data, resolution=100_000, projection=6933, method=method)
    assert np.isfinite(resampled.values).mean() > (0.99 if method == "near" else 0.98)
    back = pyproj.Transformer.from_crs(6933, 4326, always_xy=True)
    x = back.transform(resampled.x.values, np.zeros(resampled.sizes["x"]))[0]
    middle = resampled.values[resampled.sizes["y"] // 2]
    difference = (middle - x + 180) % 360 - 180
    inner = np.abs((x - left + 180) % 360 - 180) > 1
    assert np.nanmax(np.abs(difference[inner])) <= 0.51


@pytest.mark.parametrize("left", [170, -190, 530])
def test_resampling_from_across_the_antimeridian(tmp_path: Path, left: float) -> None:
    world = Map(tmp_path, 4326, left, 5, 0.1, 200, 100)
    data = resample_spatial(world.load(), resolution=20_000, projection=3832)
    assert np.isfinite(data.values[1:-1, 1:-1]).all()
    lon, lat = pyproj.Transformer.from_crs(3832, 4326, always_xy=True).transform(
        *np.meshgrid(data.x.values, data.y.values)
    )
    columns = np.floor((lon - left) % 360 / 0.1 - 1e-9).astype(int)
    rows = np.floor((5 - lat) / 0.1).astype(int)
    inner = (slice(2, -2), slice(2, -2))
    same = data.values[inner] == world.values[rows[inner], columns[inner]]
    assert same.mean() > 0.99


@pytest.mark.parametrize(("left", "other"), [(0, -180), (-180, 0), (180, -360)])
def test_cubes_that_count_longitudes_differently_meet(tmp_path: Path, left: float, other: float) -> None:
    (tmp_path / "b").mkdir()
    one, two = circle(tmp_path, left).load(), circle(tmp_path / "b", other).load()
    aligned = align_to_grid_of(one, two)
    np.testing.assert_array_equal(aligned.x, one.x)
    columns = np.floor(one.x.values - other).astype(int) % 360
    np.testing.assert_array_equal(aligned.values, two.values[:, columns])


def test_items_of_an_interval_are_found_by_overlap(tmp_path: Path) -> None:
    world = circle(tmp_path, 0)
    asset = {"href": str(world.path), "type": "image/tiff; application=geotiff", "roles": ["data"]}
    interval = {"start_datetime": "2023-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"}
    items = [
        {"type": "Feature", "id": "year", "geometry": None, "properties": properties, "assets": {"v": asset}}
        for properties in ({"datetime": None, **interval}, {"datetime": "2022-06-01T00:00:00+02:00"})
    ]
    _, scenes = read_items(items, LocalFolder(tmp_path))

    def find(start: str, end: str) -> list[str]:
        request = parse_request("load_stac", Environment(None), None, [start, end], None)
        return [scene.time.isoformat()[:16] for scene in filter_scenes(scenes, request.query)]

    assert find("2023-02-01", "2023-02-11") == ["2023-07-02T12:00"]
    assert find("2022-12-31", "2023-01-01") == find("2024-01-01", "2024-02-01") == []
    assert find("2022-05-31", "2022-06-01") == ["2022-05-31T22:00"]


@settings(max_examples=60, deadline=None)
@given(
    left=st.integers(-360, 360),
    size=st.sampled_from([1.0, 2.5, 0.5]),
    south_up=st.booleans(),
    west=st.floats(-360, 360),
    width=st.floats(1.0, 359.0),
)
def test_random_boxes_in_degrees(left: int, size: float, south_up: bool, west: float, width: float) -> None:
    columns = round(360 / size)
    transform = Affine(size, 0, left, 0, size if south_up else -size, -10 if south_up else 10)
    shape = (round(20 / size), columns)
    longitudes = left + (np.arange(columns) + 0.5) * size
    data = raster(np.broadcast_to(longitudes, shape).copy(), GeoBox(shape, transform, "EPSG:4326"))
    inside = (longitudes - west) % 360
    inside = np.sort(inside[inside <= width])
    slack = 1e-5
    if np.isclose((longitudes - west) % 360, width, atol=slack).any() or not inside.size:
        return
    result = filter_bbox(data, {"west": west, "east": west + width, "south": -20, "north": 20})
    np.testing.assert_allclose(result.x.values - west, inside, atol=1e-6)
    np.testing.assert_allclose((result.values[0] - result.x.values + 180) % 360 - 180, 0, atol=1e-6)
