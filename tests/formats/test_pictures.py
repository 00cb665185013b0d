from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid
from odc_openeo.formats import Target, get_format
from tests.formats.cubes import raster


def save(data, folder, name="PNG", **options):
    format_ = get_format(name)
    format_.check(data)
    return format_.write(data, Target(folder), format_.complete_options(options))


def pixels(asset) -> np.ndarray:
    with Image.open(asset.path) as image:
        return np.asarray(image)


def test_a_band_is_grey_without_stretch(tmp_path):
    cube = raster(dates=None, bands=None)
    cube[0, :3] = [-5, 254.6, 1000]
    (asset,) = save(cube.chunk({"y": 13}), tmp_path)
    actual_pixels = pixels(asset)
    assert actual_pixels.shape == (40, 30)
    np.testing.assert_array_equal(actual_pixels, np.clip(np.rint(cube.values), 0, 255))
    assert asset.bbox is not None


def test_three_bands_make_one_colour_picture_per_date(tmp_path):
    cube = raster("uint8")
    assets = save(cube, tmp_path)
    assert [a.path.name for a in assets] == ["result_2022-06-01.png", "result_2022-06-06.png"]
    np.testing.assert_array_equal(pixels(assets[1]), np.moveaxis(cube.values[1], 0, -1))


@pytest.mark.parametrize(("bands", "channels"), [(1, 2), (3, 4), (4, 4)])
def test_no_data_is_transparent(tmp_path, bands, channels):
    cube = raster("uint8", dates=None, bands=bands)
    cube.attrs["nodata"] = 0
    cube[0, 2, 3] = 0
    actual_pixels = pixels(save(cube.chunk({"bands": 1}), tmp_path)[0])
    assert actual_pixels.shape == (40, 30, channels)
    assert actual_pixels[2, 3, -1] == 0
    if bands < 4:
        assert (actual_pixels[..., -1] == 255).sum() == 40 * 30 - 1


def test_colormap_colours_pixels(tmp_path):
    cube = raster("uint8", dates=None, bands=1)
    cube[0, 0, :3] = [0, 255, 51]
    actual_pixels = pixels(save(cube, tmp_path, colormap=["black", "#ff0064"])[0])
    assert actual_pixels[0, :3].tolist() == [[0, 0, 0], [255, 0, 100], [51, 0, 20]]
    with pytest.raises(ProcessParameterInvalid, match="not a valid colour"):
        save(cube, tmp_path, colormap=["black", "blurple"])
    with pytest.raises(ProcessParameterInvalid, match="one band"):
        save(raster(), tmp_path, colormap=["black", "white"])


def test_jpeg_shows_values_and_white_no_data(tmp_path):
    cube = raster(dates=None) * 0 + 100
    cube[:, :16, :16] = np.nan
    actual_pixels = pixels(save(cube, tmp_path, "JPEG", quality=95)[0])
    assert abs(actual_pixels[20:, 20:].astype(int) - 100).max() <= 3
    assert actual_pixels[:12, :12].min() > 250


def test_unsupported_cubes_are_refused(tmp_path):
    for data, reason in [(raster(bands=2), "2 bands; 1, 3, 4"), (raster()[..., 0], "x and y")]:
        with pytest.raises(FormatUnsuitable, match=reason):
            save(data, tmp_path)
