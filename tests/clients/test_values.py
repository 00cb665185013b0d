"""The real `openeo` client against the running stack; every value compared with numpy on the files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import openeo
import pandas as pd
import pytest
import rasterio
import xarray as xr
from openeo.processes import and_, array_element, eq, gt, lt, or_
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject, transform_geom

from odc_openeo.indexing.samples import CONFORMANCE_BOX, DEM_PRODUCT, S2_PRODUCT
from tests.clients import truth
from tests.support.netcdf import load_raw

BOX = (679720.0, 5151080.0, 680680.0, 5151920.0)
JUNE = ["2022-06-01", "2022-07-01"]
CLOUDY = (3, 8, 9, 10)
ZONE = "EPSG:32632"


@pytest.fixture(scope="module")
def june(samples: Path) -> list[truth.Scene]:
    """The scenes that touch the box in June 2022."""
    scenes = truth.scenes(samples / S2_PRODUCT, *JUNE)
    return [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]


def extent(box: truth.Box, crs: str = ZONE) -> dict:
    return {**dict(zip(("west", "south", "east", "north"), box, strict=True)), "crs": crs}


def load(connection: openeo.Connection, bands: list[str], time: list[str] = JUNE, **more) -> openeo.DataCube:
    return connection.load_collection(
        S2_PRODUCT,
        spatial_extent=more.pop("spatial_extent", extent(BOX)),
        temporal_extent=time,
        bands=bands,
        **more,
    )


def tiff(cube: openeo.DataCube, path: Path) -> rasterio.DatasetReader:
    cube.download(path, format="GTiff")
    return rasterio.open(path)


def netcdf(cube: openeo.DataCube, path: Path) -> xr.Dataset:
    cube.download(path, format="netCDF")
    return load_raw(path)


def ndvi(cube: openeo.DataCube) -> openeo.DataCube:
    red, nir = cube.band("B04"), cube.band("B08")
    return (nir - red) / (nir + red)


def true_ndvi(scenes: list[truth.Scene], box: truth.Box = BOX) -> np.ndarray:
    red, nir = truth.series(scenes, "B04", box), truth.series(scenes, "B08", box)
    return (nir - red) / (nir + red)


def true_clouds(scenes: list[truth.Scene], box: truth.Box = BOX) -> np.ndarray:
    return truth.finer(np.isin(truth.series(scenes, "SCL", box), CLOUDY))


def test_raw_values_on_the_native_grid(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    box = (679720.0, 5151080.0, 679820.0, 5151180.0)
    cube = load(connection, ["B08", "B04"], ["2022-06-01", "2022-06-03"], spatial_extent=extent(box))
    with tiff(cube, tmp_path / "raw.tif") as file:
        assert file.shape == (10, 10)
        assert file.transform == from_origin(679720, 5151180, 10, 10)
        assert file.crs.to_epsg() == 32632
        assert file.dtypes == ("uint16", "uint16")
        assert file.nodata == 0
        assert file.descriptions == ("B08", "B04")
        expected = [truth.pixels(june[0], band, box) for band in ("B08", "B04")]
        np.testing.assert_array_equal(file.read(), expected)


def test_cloud_masked_median_ndvi(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    cube = load(connection, ["B04", "B08", "SCL"])
    scl = cube.band("SCL")
    clouds = (scl == 3) | (scl == 8) | (scl == 9) | (scl == 10)
    composite = ndvi(cube).mask(clouds).reduce_dimension(dimension="t", reducer="median")
    with tiff(composite, tmp_path / "ndvi.tif") as file:
        got = file.read(1)
        assert np.isnan(file.nodata)
    expected = np.nanmedian(np.where(true_clouds(june), np.nan, true_ndvi(june)), axis=0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_masked_median_of_digital_numbers(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    cube = load(connection, ["B02", "B03", "SCL"])
    scl = cube.band("SCL")
    masked = cube.filter_bands(["B02", "B03"]).mask((scl == 3) | (scl >= 8) & (scl <= 10))
    with tiff(masked.median_time(), tmp_path / "median.tif") as file:
        got = file.read()
    clouds = true_clouds(june)
    for number, band in enumerate(("B02", "B03")):
        values = np.where(clouds, np.nan, truth.series(june, band, BOX))
        np.testing.assert_allclose(got[number], np.nanmedian(values, axis=0), rtol=1e-6)


def field_polygons() -> dict:
    """Three polygons in longitude and latitude inside the box, no pixel's centre being on an edge."""
    west, south, _, _ = BOX
    corners = [
        [(92, 747), (307, 747), (307, 583), (92, 583)],
        [(401, 102), (703, 123), (522, 421)],
        [(602, 778), (902, 778), (902, 441), (611, 462)],
    ]
    rings = [[(west + x, south + y) for x, y in ring] for ring in corners]
    polygons = [{"type": "Polygon", "coordinates": [[*ring, ring[0]]]} for ring in rings]
    features = [
        {
            "type": "Feature",
            "properties": {"name": f"field {i}"},
            "geometry": transform_geom(ZONE, "EPSG:4326", p),
        }
        for i, p in enumerate(polygons)
    ]
    return {"type": "FeatureCollection", "features": features}


def inside(feature: dict, box: truth.Box, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies in the geometry."""
    geometry = transform_geom("EPSG:4326", ZONE, feature["geometry"])
    return ~geometry_mask([geometry], shape, from_origin(box[0], box[3], 10, 10))


def test_time_series_over_polygons(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    cube = load(connection, ["B04", "B08", "SCL"])
    scl = cube.band("SCL")
    clear = ndvi(cube).mask((scl == 3) | (scl == 8) | (scl == 9) | (scl == 10))
    fields = field_polygons()
    clear.aggregate_spatial(fields, reducer="mean").download(tmp_path / "series.csv", format="CSV")
    table = pd.read_csv(tmp_path / "series.csv")
    values = np.where(true_clouds(june), np.nan, true_ndvi(june))
    masks = [inside(feature, BOX, values.shape[1:]) for feature in fields["features"]]
    expected = [[_nanmean(date[mask]) for mask in masks] for date in values]
    assert len(table) == len(june) * 3
    got = table.sort_values(["date", "feature_index"])["value"].to_numpy().reshape(len(june), 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def _nanmean(values: np.ndarray) -> float:
    pixels = values[~np.isnan(values)]
    return float(pixels.mean()) if pixels.size else np.nan


def test_twenty_metre_band_next_to_ten_metre_bands(
    connection: openeo.Connection, june: list, tmp_path: Path
) -> None:
    cube = load(connection, ["B11", "B04"], ["2022-06-01", "2022-06-03"])
    with tiff(cube, tmp_path / "both.tif") as file:
        got = file.read()
    coarse = truth.finer(truth.pixels(june[0], "B11", BOX))
    np.testing.assert_array_equal(got[0], coarse)
    np.testing.assert_array_equal(got[1], truth.pixels(june[0], "B04", BOX))


def test_weekly_means(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    cube = load(connection, ["B04"]).aggregate_temporal_period("week", "mean")
    data = netcdf(cube, tmp_path / "weeks.nc")
    values = data["B04"].transpose("t", "y", "x")
    weeks = [f"{s.time.isocalendar().year}-{s.time.isocalendar().week:02d}" for s in june]
    labels = data["t_label"].values.astype(str)
    assert labels.tolist() == sorted(set(weeks))
    assert pd.DatetimeIndex(data["t"].values).strftime("%G-%V").tolist() == labels.tolist()
    series = truth.series(june, "B04", BOX)
    for label, got in zip(labels, values.values, strict=True):
        chosen = series[[i for i, week in enumerate(weeks) if week == label]]
        np.testing.assert_allclose(got, np.nanmean(chosen, axis=0), rtol=1e-6)


def test_properties_filter(connection: openeo.Connection, samples: Path, june: list, tmp_path: Path) -> None:
    expected = {s.time for s in june if s.properties["eo:cloud_cover"] < 20}
    assert 0 < len(expected) < len(june)
    cube = load(connection, ["B04"], properties={"eo:cloud_cover": lambda value: value < 20})
    data = netcdf(cube, tmp_path / "clear.nc")
    times = {pd.Timestamp(t).to_pydatetime() for t in data["t"].values}
    assert times == expected


def test_bands_by_alias_and_common_name(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    cube = load(connection, ["nir", "B02", "red"], ["2022-06-01", "2022-06-03"])
    with tiff(cube, tmp_path / "bands.tif") as file:
        got = file.read()
    for values, band in zip(got, ("B08", "B02", "B04"), strict=True):
        np.testing.assert_array_equal(values, truth.pixels(june[0], band, BOX))


def test_several_dates_make_several_files(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    archive = tmp_path / "dates.zip"
    load(connection, ["B04"]).download(archive, format="GTiff")
    with zipfile.ZipFile(archive) as files:
        names = sorted(files.namelist())
        assert len(names) == len({s.time for s in june})
        for name, scene in zip(names, june, strict=True):
            assert f"{scene.time:%Y}" in name
            with rasterio.open(io.BytesIO(files.read(name))) as file:
                got = file.read(1)
            np.testing.assert_array_equal(got, np.nan_to_num(truth.pixels(scene, "B04", BOX)))


def test_two_zones_merged(connection: openeo.Connection, samples: Path, tmp_path: Path) -> None:
    """Scenes of both zones on the grid of the zone that has most of the box."""
    box = (684800.0, 5150000.0, 690400.0, 5154000.0)
    first = ["2022-03-16", "2022-03-17"]
    cube = load(connection, ["B04"], first, spatial_extent=extent(box)).max_time()
    with tiff(cube, tmp_path / "zones.tif") as file:
        got = file.read(1)
        crs, transform = file.crs, file.transform
    scenes = truth.scenes(samples / S2_PRODUCT, *first)
    assert {s.epsg for s in scenes} == {32632, 32633}
    layers = [_warped(s, crs, transform, got.shape) for s in scenes]
    expected = np.max(layers, axis=0)
    assert (expected > 0).mean() > 0.5
    assert (got == expected).mean() > 0.98


def _warped(scene: truth.Scene, crs, transform, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, "uint16")
    with rasterio.open(scene.bands["B04"]) as file:
        reproject(
            rasterio.band(file, 1), out, dst_transform=transform, dst_crs=crs, resampling=Resampling.nearest
        )
    return out


def test_elevation_where_it_is_high(connection: openeo.Connection, samples: Path, tmp_path: Path) -> None:
    """A single-date model in degrees, masked by itself; the box in degrees needs no reprojection."""
    box = (11.32, 46.48, 11.38, 46.51)
    dem = connection.load_collection(DEM_PRODUCT, spatial_extent=extent(box, "EPSG:4326"))
    high = dem.mask(dem.apply(lambda x: lt(x, 900)))
    with tiff(high, tmp_path / "high.tif") as file:
        got = file.read(1)
    (scene,) = truth.scenes(samples / DEM_PRODUCT, "2000", "2100")
    values = truth.pixels(scene, "elevation", box)
    np.testing.assert_allclose(got, np.where(values < 900, np.nan, values), rtol=1e-6)


def test_lower_level_graph_functions(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    """Child processes written by hand: conditions on array elements."""
    cube = load(connection, ["B04", "B08", "SCL"], ["2022-06-01", "2022-06-03"])

    def bright_or_cloudy(data):
        red, scl = array_element(data, 0), array_element(data, label="SCL")
        return or_(and_(gt(red, 1500), lt(red, 4000)), eq(scl, 9))

    with tiff(cube.reduce_dimension(dimension="bands", reducer=bright_or_cloudy), tmp_path / "c.tif") as file:
        got = file.read(1)
    red = truth.pixels(june[0], "B04", BOX)
    scl = truth.finer(truth.pixels(june[0], "SCL", BOX))
    np.testing.assert_array_equal(got > 0, ((red > 1500) & (red < 4000)) | (scl == 9))


def test_conformance_box_matches_the_suite(connection: openeo.Connection, june: list) -> None:
    assert tuple(CONFORMANCE_BOX[k] for k in ("west", "south", "east", "north")) == BOX
    first = [s for s in june if s.time.isoformat() < "2022-06-03"]
    assert len(first) == 1
    values = true_ndvi(first)
    assert not np.isnan(values).any()
    assert (values > 0.75).any()
    assert (values < 0.75).any()
