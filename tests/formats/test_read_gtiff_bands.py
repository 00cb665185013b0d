"""Uploaded GeoTIFFs keep all bands under distinct names, with the values that rasterio reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from odc_openeo import cube
from odc_openeo.errors import FileContentInvalid
from odc_openeo.formats.read_gtiff import read_gtiff
from tests.support.items import PIXELS, list_bands, write_raster


@pytest.mark.parametrize(
    ("descriptions", "names"),
    [(["b", "b"], ["b", "b_2"]), (["b", "b_2", "b"], ["b", "b_2", "b_3"]), ([], ["band_1", "band_2"])],
)
def test_bands_have_distinct_names(tmp_path: Path, descriptions: list[str], names: list[str]) -> None:
    pixels = np.stack([PIXELS + 100 * i for i in range(len(names))])
    data = read_gtiff([write_raster(tmp_path / "a.tif", pixels, descriptions=descriptions)])
    assert list_bands(data) == names
    np.testing.assert_array_equal(data.values, pixels)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("mark", ["mask", "alpha", "nodata", None])
def test_no_data_is_what_rasterio_masks(tmp_path: Path, dtype: str, mark: str | None) -> None:
    pixels = PIXELS.astype(dtype)
    valid = PIXELS > 50
    if mark == "alpha":
        if dtype not in ("uint8", "uint16"):
            pytest.skip("alpha bands are unsigned")
        pixels = np.stack([pixels, (valid * 255).astype(dtype)])
    mask, nodata = (valid if mark == "mask" else None), (7 if mark == "nodata" else None)
    path = write_raster(tmp_path / "a.tif", pixels, nodata, mask=mask, alpha=mark == "alpha")
    with rasterio.open(path) as file:
        expected = file.read(1, masked=True).astype("float64").filled(np.nan)
    data = read_gtiff([path])
    assert list_bands(data) == ["band_1"]
    np.testing.assert_array_equal(cube.decode(data)[0].values, expected)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((10, 10), 1j, "complex64"))
    with pytest.raises(FileContentInvalid, match="complex numbers"):
        read_gtiff([path])
