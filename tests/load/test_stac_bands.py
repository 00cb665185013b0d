"""What STAC declares of bands counts where their files say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from odc_openeo import cube
from odc_openeo.errors import FileContentInvalid
from odc_openeo.load import load
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import LocalFolder

PIXELS = np.arange(1, 101, dtype="uint16").reshape(10, 10)
GRID = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_199_900)}


def write(path: Path, pixels: np.ndarray, nodata: float | None = None) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", **profile, **GRID, nodata=nodata) as file:
        file.write(bands)
    return path


def load_asset(path: Path, properties: dict[str, Any] | None = None, **fields: Any) -> Any:
    asset = {"href": str(path), "type": "image/tiff; application=geotiff", **fields}
    item = {
        "type": "Feature",
        "id": "scene",
        "properties": {"datetime": "2022-03-01T10:00:00Z", **(properties or {})},
        "assets": {"red": asset},
    }
    bands, scenes = read_items([item], LocalFolder(path.parent))
    return load(scenes, bands)


DECLARED: dict[str, dict[str, Any]] = {
    "raster extension": {"raster:bands": [{"nodata": 0, "data_type": "uint16", "unit": "K"}]},
    "bands of STAC 1.1": {"bands": [{"name": "red", "nodata": 0, "unit": "K"}]},
    "the asset": {"nodata": 0, "unit": "K"},
    "the Item": {"properties": {"nodata": 0, "unit": "K"}},
}


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_declared_nodata_counts_without_one_in_the_file(tmp_path: Path, declared: dict[str, Any]) -> None:
    pixels = PIXELS.copy()
    pixels[0, :5] = 0
    data = load_asset(write(tmp_path / "a.tif", pixels), **declared)
    expected = np.where(pixels == 0, np.nan, pixels)
    np.testing.assert_array_equal(cube.decode(data)[0, 0].values, expected)
    assert data.dtype == np.uint16


def test_nodata_of_the_file_goes_before_a_declared_one(tmp_path: Path) -> None:
    data = load_asset(write(tmp_path / "a.tif", PIXELS, nodata=7), **{"raster:bands": [{"nodata": 9}]})
    expected = np.where(PIXELS == 7, np.nan, PIXELS)
    np.testing.assert_array_equal(cube.decode(data)[0, 0].values, expected)


def test_each_band_has_its_declared_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([PIXELS, PIXELS + 100]))
    data = load_asset(path, **{"raster:bands": [{"nodata": 5}, {"nodata": 107}]})
    decoded = cube.decode(data)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(decoded[0, 0].values)), [4])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(decoded[0, 1].values)), [6])


def test_declared_nan_as_string(tmp_path: Path) -> None:
    pixels = PIXELS.astype("float32")
    pixels[0, 0] = np.nan
    data = load_asset(write(tmp_path / "a.tif", pixels), **{"raster:bands": [{"nodata": "nan"}]})
    np.testing.assert_array_equal(data[0, 0].values, pixels)


@pytest.mark.parametrize("nodata", [-9999, 1e30, 0.5, "nan", "-inf"])
def test_declared_nodata_that_no_pixel_can_have_is_ignored(tmp_path: Path, nodata: Any) -> None:
    data = load_asset(write(tmp_path / "a.tif", PIXELS), **{"raster:bands": [{"nodata": nodata}]})
    np.testing.assert_array_equal(cube.decode(data)[0, 0].values, PIXELS)


@pytest.mark.parametrize("bands", [3, [1], [{"nodata": {"a": 1}}], [{"nodata": "a"}]])
def test_malformed_declarations_are_refused(tmp_path: Path, bands: Any) -> None:
    path = write(tmp_path / "a.tif", PIXELS)
    with pytest.raises(FileContentInvalid, match="STAC"):
        load_asset(path, **{"raster:bands": bands})


@pytest.mark.parametrize(
    "assets",
    [
        [["blue", "red", "nir"], ["blue", "red"]],
        [["blue", "red", "nir"], ["red"]],
        [["blue", "red", "nir"], ["nir"], ["blue", "red", "nir"]],
        [["blue", "red", "nir"], ["nir", "red"]],
        [["blue"], ["blue", "red"], ["blue", "red", "nir"]],
    ],
)
def test_bands_are_in_the_order_in_which_items_have_them(tmp_path: Path, assets: list[list[str]]) -> None:
    path = write(tmp_path / "a.tif", PIXELS)
    items = [
        {
            "type": "Feature",
            "id": f"scene-{day}",
            "properties": {"datetime": f"2022-03-{day:02}T10:00:00Z"},
            "assets": {name: {"href": str(path), "type": "image/tiff"} for name in names},
        }
        for day, names in enumerate(assets, 1)
    ]
    bands, scenes = read_items(items, LocalFolder(tmp_path))
    assert load(scenes, bands).bands.values.tolist() == ["blue", "red", "nir"]
