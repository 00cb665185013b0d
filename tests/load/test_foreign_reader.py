"""Rasters of users are read with the same pixels as odc-loader reads those of the index."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from odc.loader._rio import rio_read
from odc.loader.types import RasterBandMetadata, RasterLoadParams, RasterSource
from rasterio.transform import from_origin

from odc_openeo.load.driver import ForeignReader
from odc_openeo.untrusted.rasters import LocalFolder

SIDE = 600
NATIVE = GeoBox((SIDE, SIDE), from_origin(600_000, 5_200_000, 10, 10), "EPSG:32632")
GRIDS = {
    "native": NATIVE,
    "part": NATIVE[100:300, 50:200],
    "beyond the edge": NATIVE.pad(20),
    "shifted": GeoBox((50, 50), from_origin(600_003, 5_199_997, 10, 10), "EPSG:32632"),
    "overview": NATIVE.zoom_out(4),
    "between overviews": NATIVE.zoom_out(5.3),
    "degrees": GeoBox.from_bbox((10.32, 46.9, 10.36, 46.93), "EPSG:4326", resolution=0.0002),
    "nowhere": GeoBox((10, 10), from_origin(900_000, 5_900_000, 10, 10), "EPSG:32632"),
}


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cog")
    values = np.random.default_rng(3).integers(0, 1000, (2, SIDE, SIDE)).astype("int16")
    profile = {"count": 2, "width": SIDE, "height": SIDE, "dtype": "int16", "nodata": 7}
    with rasterio.open(
        folder / "plain.tif", "w", driver="GTiff", crs=NATIVE.crs, transform=NATIVE.transform, **profile
    ) as file:
        file.write(values)
    path = folder / "cog.tif"
    rasterio.shutil.copy(folder / "plain.tif", path, driver="COG", BLOCKSIZE=128, OVERVIEWS="AUTO")
    return path


@pytest.mark.parametrize("use_overviews", [True, False])
@pytest.mark.parametrize("band", [1, 2])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_same_pixels_as_odc_loader(cog: Path, grid: GeoBox, band: int, use_overviews: bool) -> None:
    parameters = RasterLoadParams("int16", 7, use_overviews=use_overviews, resampling="nearest")
    source = RasterSource(str(cog), band, meta=RasterBandMetadata("int16", 7, "1"))
    region, pixels = rio_read(source, parameters, grid)
    place = {"band": band, "nodata": 7, "dataset": "d", "name": "b"}
    reader = ForeignReader(LocalFolder(cog.parent), replace(source, band=1), place)
    own_region, own_pixels = reader.read(parameters, grid)
    assert own_region == region, version("odc-loader")
    np.testing.assert_array_equal(own_pixels, pixels)


@pytest.fixture(scope="module")
def masked_cog(cog: Path) -> Path:
    """The same pixels, where an internal mask marks what is no-data."""
    plain, path = cog.parent / "unmasked.tif", cog.parent / "masked.tif"
    with rasterio.open(cog) as source:
        values = source.read()
        profile = {
            name: source.profile[name] for name in ("count", "width", "height", "dtype", "crs", "transform")
        }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(plain, "w", driver="GTiff", **profile) as file:
            file.write(values)
            file.write_mask(values[0] != 7)
        rasterio.shutil.copy(plain, path, driver="COG", BLOCKSIZE=128, OVERVIEWS="AUTO")
    return path


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("kind", ["nodata", "mask"])
def test_pixels_with_another_mark_of_no_data(cog: Path, masked_cog: Path, grid: GeoBox, kind: str) -> None:
    """They are looked up one by one, and are those that GDAL finds."""
    parameters = RasterLoadParams("int32", -9999, use_overviews=False, resampling="nearest")
    source = RasterSource(str(cog), 1, meta=RasterBandMetadata("int32", -9999, "1"))
    region, pixels = rio_read(source, parameters, grid)
    place = {"band": 1, "nodata": None, "dataset": "d", "name": "b"}
    path = cog if kind == "nodata" else masked_cog
    reader = ForeignReader(LocalFolder(cog.parent), replace(source, uri=str(path)), place)
    own_region, own_pixels = reader.read(replace(parameters, dtype="int16"), grid)
    assert own_region == region
    np.testing.assert_array_equal(own_pixels, pixels)


def test_large_files_are_looked_up_in_parts(masked_cog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = RasterLoadParams("int16", -9999, use_overviews=False, resampling="nearest")
    source = RasterSource(str(masked_cog), 1, meta=RasterBandMetadata("int16", -9999, "1"))
    place = {"band": 1, "nodata": None, "dataset": "d", "name": "b"}
    reader = ForeignReader(LocalFolder(masked_cog.parent), source, place)
    grid = GRIDS["between overviews"]
    _, whole = reader.read(parameters, grid)
    monkeypatch.setattr("odc_openeo.load.pixels.MOST_PIXELS", 5_000)
    _, parts = reader.read(parameters, grid)
    np.testing.assert_array_equal(parts, whole)


def test_pixels_are_read_into_a_given_array(cog: Path) -> None:
    parameters = RasterLoadParams("int16", 7, resampling="nearest")
    source = RasterSource(str(cog), 1, meta=RasterBandMetadata("int16", 7, "1"))
    grid = GRIDS["part"]
    target = np.full(grid.shape, -5, "int16")
    place = {"band": 1, "nodata": 7, "dataset": "d", "name": "b"}
    reader = ForeignReader(LocalFolder(cog.parent), source, place)
    region, _ = reader.read(parameters, grid, dst=target)
    _, expected = rio_read(source, parameters, grid)
    np.testing.assert_array_equal(target[region], expected)
