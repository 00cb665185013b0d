"""Thumbnails of what was written: size, colours, transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.thumbnail import write_thumbnail
from tests.formats.cubes import raster, vector


def picture_of(folder: Path, data: object, format_: str) -> np.ndarray | None:
    assets = write_outputs(None, [Output.from_data(data, format_)], folder)
    thumbnail = write_thumbnail(assets, folder)
    if thumbnail is None:
        return None
    assert (thumbnail.path.name, thumbnail.media_type, thumbnail.roles) == (
        "thumbnail.png",
        "image/png",
        ("thumbnail",),
    )
    return np.asarray(Image.open(thumbnail.path))


def test_one_band_is_grey_and_no_data_transparent(tmp_path: Path) -> None:
    cube = raster(bands=1, dates=None, shape=(600, 300)).odc.assign_crs("EPSG:32632")
    cube[..., :300, :] = np.arange(300) / 10
    cube[..., 300:, :] = np.nan
    pixels = picture_of(tmp_path, cube, "GTiff")
    assert pixels is not None
    assert pixels.shape == (256, 128, 2)
    assert set(pixels[:127, :, 1].ravel()) == {255}
    assert set(pixels[129:, :, 1].ravel()) == {0}
    row = pixels[60, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert (row[0], row[-1]) == (0, 255)


def test_red_green_and_blue(tmp_path: Path) -> None:
    cube = raster("uint16", bands=4, dates=2).odc.assign_crs("EPSG:32632").astype("uint16")
    for i in range(4):
        cube[:, i] = 1000 * (i + 1)
    pixels = picture_of(tmp_path, cube, "GTiff")
    assert pixels is not None
    assert pixels.shape == (40, 30, 4)
    # Bands B04, B03, B02 in this order, on one scale.
    assert pixels[0, 0].tolist() == [255, 127, 0, 255]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_pictures_are_shrunk(tmp_path: Path, format_: str) -> None:
    pixels = picture_of(tmp_path, raster("uint8", bands=1, dates=None, shape=(512, 1024)), format_)
    assert pixels is not None
    assert pixels.shape[:2] == (128, 256)


def test_netcdf_is_drawn_as_the_same_cube_in_geotiff(tmp_path: Path) -> None:
    cube = raster("uint16", bands=4, dates=None, shape=(50, 40)).odc.assign_crs("EPSG:32632").astype("uint16")
    for i in range(4):
        cube[i] = np.arange(2000).reshape(50, 40) * (i + 1)
    pictures = []
    for format_ in ("netCDF", "GTiff"):
        (tmp_path / format_).mkdir()
        pictures.append(picture_of(tmp_path / format_, cube, format_))
    assert pictures[0] is not None
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_netcdf_of_one_band_shows_the_first_date_and_no_data(tmp_path: Path) -> None:
    cube = raster(bands=1, dates=2, shape=(600, 300)).odc.assign_crs("EPSG:32632")
    cube[0, ..., :300, :], cube[0, ..., 300:, :] = np.arange(300) / 10, np.nan
    cube[1] = 5
    pixels = picture_of(tmp_path, cube, "netCDF")
    assert pixels is not None
    assert pixels.shape == (200, 100, 2)
    assert set(pixels[:99, :, 1].ravel()) == {255}
    assert set(pixels[101:, :, 1].ravel()) == {0}
    assert (np.diff(pixels[50, :, 0].astype(int)) >= 0).all()


def test_netcdf_of_geometries_has_no_picture(tmp_path: Path) -> None:
    assert picture_of(tmp_path, vector(), "netCDF") is None


def test_empty_picture_is_transparent(tmp_path: Path) -> None:
    empty = raster(bands=1, dates=None).odc.assign_crs("EPSG:32632") * np.nan
    pixels = picture_of(tmp_path, empty, "GTiff")
    assert pixels is not None
    assert not pixels[..., -1].any()
    (tmp_path / "2").mkdir()
    assert picture_of(tmp_path / "2", vector(), "GeoJSON") is None
    complex_ = raster(bands=1, dates=None).astype("complex64").odc.assign_crs("EPSG:32632")
    assert picture_of(tmp_path / "2", complex_, "GTiff") is None
