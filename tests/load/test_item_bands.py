"""Which file a name means where Items have several: by asset, band name and common name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from odc_openeo import cube
from odc_openeo.errors import FeatureUnsupported, NoDataAvailable, ProcessParameterInvalid
from odc_openeo.load import load
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import LocalFolder
from tests.support.items import (
    ORIGIN,
    PIXELS,
    list_bands,
    load_items,
    make_asset,
    make_item,
    write_raster,
)


def decode(data: Any) -> np.ndarray:
    return cube.decode(data).values


def first_row(data: Any, date: int = 0, band: int = 0) -> list[float | None]:
    row = decode(data)[date, band, 0, :5]
    return [None if np.isnan(v) else float(v) for v in row]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    pixels = PIXELS + 2000
    pixels[0, :3] = 0
    return write_raster(tmp_path / "red.tif", pixels, 0)


RED_ROW = [None, None, None, 2004, 2005]


# --- One name, several assets --------------------------------------------------------------------


@pytest.fixture
def with_composite(tmp_path: Path, red: Path) -> dict[str, Any]:
    """A band, and a composite of 8 bits that has a band of the same name."""
    shades = np.stack([np.full((10, 10), value, "uint8") for value in (90, 80, 70)])
    composite = make_asset(write_raster(tmp_path / "visual.tif", shades), "B04", "B03", "B02")
    band = make_asset(red, **{"eo:bands": [{"name": "B04", "common_name": "red"}]})
    return {"visual": composite, "B04": band}


@pytest.mark.parametrize("bands", [["B04"], ["red"], ["red", "B04"], None])
def test_a_composite_is_not_mixed_into_a_band(
    tmp_path: Path, with_composite: dict[str, Any], bands: list[str] | None
) -> None:
    data = load_items(tmp_path, make_item(1, with_composite), bands=bands)
    i = list_bands(data).index("B04")
    assert first_row(data, band=i) == RED_ROW
    assert list_bands(data) == (bands and ["B04"] or ["B03", "B02", "B04"])


def test_a_composite_by_the_key_of_its_asset(tmp_path: Path, with_composite: dict[str, Any]) -> None:
    data = load_items(tmp_path, make_item(1, with_composite), bands=["visual", "B04"])
    assert list_bands(data) == ["visual_B04", "B03", "B02", "B04"]
    assert data.compute()[0, :, 0, 4].values.tolist() == [90, 80, 70, 2005]


def test_a_composite_does_not_stand_in_for_a_band_that_another_item_lacks(
    tmp_path: Path, with_composite: dict[str, Any]
) -> None:
    items = [make_item(1, with_composite), make_item(2, {"visual": with_composite["visual"]})]
    for documents in (items, items[::-1]):
        data = load_items(tmp_path, *documents, bands=["B04", "B03"])
        assert first_row(data, 0) == RED_ROW
        assert first_row(data, 1) == [None] * 5
        assert first_row(data, 1, 1) == [80] * 5


@pytest.fixture
def resolutions(tmp_path: Path, red: Path) -> dict[str, Any]:
    coarse = write_raster(tmp_path / "coarse.tif", np.full((5, 5), 7777, "uint16"), size=20)
    return {"B04_20m": make_asset(coarse, "B04"), "B04_10m": make_asset(red, "B04")}


@pytest.mark.parametrize(
    ("bands", "labels", "row"),
    [
        (None, ["B04"], RED_ROW),
        (["B04"], ["B04"], RED_ROW),
        (["B04_10m"], ["B04"], RED_ROW),
        (["B04_10m", "B04", "B04"], ["B04"], RED_ROW),
        (["B04_20m"], ["B04_20m"], [7777] * 5),
        (["B04_20m", "B04"], ["B04_20m", "B04"], [7777] * 5),
    ],
)
def test_a_name_is_the_finest_asset_and_a_key_the_asset(
    tmp_path: Path, resolutions: dict[str, Any], bands: Any, labels: list[str], row: list[float | None]
) -> None:
    data = load_items(tmp_path, make_item(1, resolutions), bands=bands)
    assert list_bands(data) == labels
    assert first_row(data) == row


@pytest.mark.parametrize("order", [["red", "red-jp2"], ["red-jp2", "red"]])
def test_the_same_band_in_two_formats(tmp_path: Path, red: Path, order: list[str]) -> None:
    path = tmp_path / "red.jp2"
    profile = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "crs": "EPSG:32632"}
    with rasterio.open(red) as file:
        transform = file.transform
    shape = {"count": 1, "height": 10, "width": 10, "dtype": "uint16", "transform": transform}
    with rasterio.open(path, "w", **profile, **shape) as file:
        file.write(PIXELS, 1)
    assets = {"red": make_asset(red, "red"), "red-jp2": {**make_asset(path, "red"), "type": "image/jp2"}}
    item = make_item(1, {key: assets[key] for key in order})
    assert first_row(load_items(tmp_path, item, bands=["red"])) == RED_ROW
    both = load_items(tmp_path, item, bands=["red-jp2", "red"])
    assert list_bands(both) == ["red-jp2", "red"]
    assert first_row(both) == [1, 2, 3, 4, 5]
    assert list_bands(load_items(tmp_path, item)) == ["red"]


def test_tiles_of_one_band_are_put_together(tmp_path: Path) -> None:
    west, north = ORIGIN
    tiles = [
        (PIXELS[:6, :5], (west, north)),
        (PIXELS[:6, 5:], (west + 50, north)),
        (PIXELS[5:, :], (west, north - 50)),
    ]
    assets = {
        f"tile{i}.tif": make_asset(write_raster(tmp_path / f"{i}.tif", pixels, 0, origin=origin), "v")
        for i, (pixels, origin) in enumerate(tiles)
    }
    np.testing.assert_array_equal(load_items(tmp_path, make_item(1, assets))[0, 0].values, PIXELS)


def test_files_of_one_name_that_are_no_tiles_are_not_mixed(tmp_path: Path, red: Path) -> None:
    shifted = write_raster(tmp_path / "s.tif", PIXELS, 0, origin=(ORIGIN[0] + 105, ORIGIN[1]))
    over = write_raster(tmp_path / "o.tif", PIXELS, 0)
    for other in (shifted, over):
        item = make_item(1, {"a.tif": make_asset(red, "v"), "b.tif": make_asset(other, "v")})
        data = load_items(tmp_path, item)
        assert list_bands(data) == ["v"]
        assert data.shape[2:] == (10, 10)
        assert first_row(data) == RED_ROW


def test_keys_that_differ_from_item_to_item(tmp_path: Path, red: Path) -> None:
    items = [
        make_item(1, {"S2A_red": make_asset(red, "red")}),
        make_item(2, {"S2B_red": make_asset(red, "red")}),
    ]
    data = load_items(tmp_path, *items, bands=["red"])
    assert first_row(data, 0) == first_row(data, 1) == RED_ROW


def test_bands_in_other_reference_systems_are_not_dropped(tmp_path: Path) -> None:
    first = write_raster(tmp_path / "1.tif", PIXELS, 0)
    second = write_raster(
        tmp_path / "2.tif",
        np.full((200, 200), 9, "uint16"),
        0,
        origin=(150_000, 5_210_000),
        size=100,
        crs="EPSG:32633",
    )
    data = load_items(tmp_path, make_item(1, {"a": first, "b": second}), bands=["a", "b"]).compute()
    assert list_bands(data) == ["a", "b"]
    assert set(np.unique(data.sel(bands="b"))) >= {9}


# --- Several bands in a file ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptions", "names"),
    [
        (["b", "b"], ["b", "b_2"]),
        (["b", "b_2", "b"], ["b", "b_2", "b_3"]),
        (["b", "", "b"], ["b", "image_2", "b_2"]),
        ([], ["image_1", "image_2"]),
    ],
)
def test_no_band_of_a_file_is_lost(tmp_path: Path, descriptions: list[str], names: list[str]) -> None:
    pixels = np.stack([PIXELS + 100 * i for i in range(len(names))])
    path = write_raster(tmp_path / "i.tif", pixels, descriptions=descriptions)
    data = load_items(tmp_path, make_item(1, {"image": path}))
    assert list_bands(data) == names
    assert data[0, :, 0, 0].values.tolist() == [1 + 100 * i for i in range(len(names))]


@pytest.mark.parametrize("counts", [(4, 2), (2, 4)])
def test_items_with_fewer_bands_in_a_file(tmp_path: Path, counts: tuple[int, int]) -> None:
    items = [
        make_item(day, {"image": write_raster(tmp_path / f"{day}.tif", np.stack([PIXELS] * count))})
        for day, count in enumerate(counts, 1)
    ]
    values = decode(load_items(tmp_path, *items))
    for date, count in enumerate(counts):
        np.testing.assert_array_equal(values[date, :count], np.stack([PIXELS] * count))
        assert np.isnan(values[date, count:]).all()


def test_bands_that_a_later_item_stores_in_another_order(tmp_path: Path) -> None:
    pixels = np.stack([PIXELS, PIXELS + 100])
    items = [
        make_item(1, {"image": write_raster(tmp_path / "1.tif", pixels, descriptions=["red", "nir"])}),
        make_item(2, {"image": write_raster(tmp_path / "2.tif", pixels, descriptions=["nir", "red"])}),
        make_item(3, {"image": make_asset(write_raster(tmp_path / "3.tif", pixels), "nir", "red")}),
    ]
    data = load_items(tmp_path, *items)
    assert list_bands(data) == ["red", "nir"]
    assert data[:, 0, 0, 0].values.tolist() == [1, 101, 101]


def test_descriptions_of_single_bands_may_change(tmp_path: Path) -> None:
    items = [
        make_item(day, {"v": write_raster(tmp_path / f"{day}.tif", PIXELS, descriptions=[f"of day {day}"])})
        for day in (1, 2)
    ]
    assert list_bands(load_items(tmp_path, *items)) == ["of day 1"]
    assert list_bands(load_items(tmp_path, *items, bands=["v"])) == ["of day 1"]


NAMES = [
    "a b",
    "a/b",
    "ü.é",
    "1",
    "x",
    "y",
    "t",
    "time",
    "bands",
    "band",
    "geometry",
    "spatial_ref",
    "nodata",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_band(tmp_path: Path, name: str) -> None:
    item = make_item(1, {name: write_raster(tmp_path / "a.tif", PIXELS)})
    for bands in (None, [name]):
        data = load_items(tmp_path, item, bands=bands)
        assert list_bands(data) == [name]
        np.testing.assert_array_equal(data[0, 0].values, PIXELS)


# --- Roles and media types -----------------------------------------------------------------------


@pytest.mark.parametrize("role", ["visual", "metadata", "overview", "thumbnail", "Visual"])
def test_roles_decide_what_is_loaded_by_default_only(tmp_path: Path, role: str) -> None:
    asset = {**make_asset(write_raster(tmp_path / "v.tif", PIXELS + 50), "angles"), "roles": [role]}
    item = make_item(1, {"data": write_raster(tmp_path / "d.tif", PIXELS), "extra": asset})
    assert list_bands(load_items(tmp_path, item)) == ["data"]
    for name in ("extra", "angles"):
        data = load_items(tmp_path, item, bands=["data", name])
        assert list_bands(data) == ["data", "angles"]
        assert first_row(data, band=1) == [51, 52, 53, 54, 55]
    alone = make_item(2, {"extra": asset})
    assert list_bands(load_items(tmp_path, alone, bands=["extra"])) == ["angles"]
    with pytest.raises(NoDataAvailable, match="if they are named in 'bands': extra"):
        load_items(tmp_path, alone)


def test_unknown_names_are_listed_with_all_that_may_be_named(tmp_path: Path, red: Path) -> None:
    item = make_item(1, {"data": red, "angle": {**make_asset(red), "roles": ["metadata"]}})
    with pytest.raises(ProcessParameterInvalid, match="no band 'anglex'. The bands are: data, angle."):
        load_items(tmp_path, item, bands=["anglex"])


@pytest.mark.parametrize(
    "media_type",
    [
        *(
            "image/tiff",
            "IMAGE/TIFF",
            "image/tiff ; application=geotiff",
            " Image/Tiff;profile=cloud-optimized",
        ),
        *("image/vnd.stac.geotiff; cloud-optimized=true", "image/x.geotiff", "", None),
    ],
)
def test_media_types_in_any_case_and_with_parameters(tmp_path: Path, media_type: str | None) -> None:
    asset = {**make_asset(write_raster(tmp_path / "a.TIF", PIXELS)), "type": media_type}
    assert list_bands(load_items(tmp_path, make_item(1, {"a": asset}))) == ["a"]


@pytest.mark.parametrize("media_type", ["image/png", "application/json", "image/tiffany", "text/html"])
def test_other_files_are_not_rasters(tmp_path: Path, media_type: str) -> None:
    asset = {**make_asset(tmp_path / "a.tif"), "type": media_type}
    with pytest.raises(NoDataAvailable, match="no asset is a GeoTIFF or JPEG 2000 file"):
        load_items(tmp_path, make_item(1, {"a": asset}))


@dataclass(frozen=True)
class Mirror:
    """A server whose files are here."""

    path: Path

    @contextmanager
    def expose(self, href: str) -> Iterator[str]:
        assert href == "https://host/red.tif"
        yield str(self.path)

    def explain_failure(self, href: str) -> None:
        pass


def test_assets_that_cannot_be_read_matter_only_if_their_bands_are_needed(red: Path) -> None:
    """Catalogues list copies of their files in requester-pays buckets."""
    jp2 = {"href": "s3://bucket/red.jp2", "type": "image/jp2", "eo:bands": [{"name": "red"}]}
    tiff = {"href": "red.tif", "type": "image/tiff", "eo:bands": [{"name": "red"}]}
    item = {**make_item(1, {"red-jp2": jp2, "red": tiff}), "base": "https://host/item.json"}
    for names in (None, ["red"]):
        bands, scenes = read_items([item], Mirror(red), names)
        assert first_row(load(scenes, bands)) == RED_ROW
    for names in (["red-jp2"], ["red", "red-jp2"]):
        with pytest.raises(FeatureUnsupported, match=r"files by 's3'.*\(asset 'red-jp2'\)"):
            read_items([item], Mirror(red), names)
    item["assets"]["nir"] = {**jp2, "eo:bands": [{"name": "nir"}]}
    assert list_bands(load(*read_items([item], Mirror(red), ["red"])[::-1])) == ["red"]
    for names in (None, ["nir"]):
        with pytest.raises(FeatureUnsupported, match="asset 'nir'"):
            read_items([item], Mirror(red), names)


# --- Metadata ------------------------------------------------------------------------------------


def get_band(folder: Path, item: dict[str, Any]) -> Any:
    bands, _ = read_items([item], LocalFolder(folder))
    return bands[0]


def test_unit_scale_and_offset_of_stac_and_of_files(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    declared = [{"unit": "K", "scale": 0.01, "offset": 280.0}]
    band = get_band(tmp_path, make_item(1, {"a": make_asset(path, **{"raster:bands": declared})}))
    assert (band.units, band.scale, band.offset) == ("K", 0.01, 280.0)
    newer = [{"name": "v", "unit": "K", "raster:scale": 0.01, "raster:offset": 280.0}]
    band = get_band(tmp_path, make_item(1, {"a": make_asset(path, bands=newer)}))
    assert (band.name, band.units, band.scale, band.offset) == ("v", "K", 0.01, 280.0)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.units = [0.5], [3.0], ["m"]
    band = get_band(tmp_path, make_item(1, {"a": make_asset(path, **{"raster:bands": declared})}))
    assert (band.units, band.scale, band.offset) == ("m", 0.5, 3.0)


def test_scales_that_differ_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    items = [
        make_item(day, {"a": make_asset(path, **{"raster:bands": [{"scale": 0.01, "offset": offset}]})})
        for day, offset in ((1, 0), (2, -0.1))
    ]
    bands, _ = read_items(items, LocalFolder(tmp_path))
    assert (bands[0].scale, bands[0].offset) == (0.01, None)


def test_bands_of_stac_before_0_9(tmp_path: Path) -> None:
    properties = {"eo:bands": [{"name": "blue"}, {"name": "red", "common_name": "red"}]}
    asset = make_asset(write_raster(tmp_path / "a.tif", PIXELS), **{"eo:bands": [1]})
    data = load_items(tmp_path, make_item(1, {"a": asset}, **properties))
    assert list_bands(data) == ["red"]


# --- No-data by masks ----------------------------------------------------------------------------


def test_an_internal_mask_marks_no_data(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, mask=PIXELS > 50)
    values = decode(load_items(tmp_path, make_item(1, {"v": path})))[0, 0]
    np.testing.assert_array_equal(values, np.where(PIXELS > 50, PIXELS, np.nan))


def test_an_alpha_band_marks_no_data_and_is_no_band(tmp_path: Path) -> None:
    shade = PIXELS.astype("uint8")
    pixels = np.stack([shade, shade + 1, shade + 2, np.where(PIXELS > 50, 255, 0).astype("uint8")])
    path = write_raster(tmp_path / "a.tif", pixels, alpha=True)
    data = load_items(tmp_path, make_item(1, {"rgb": path}))
    assert list_bands(data) == ["rgb_1", "rgb_2", "rgb_3"]
    np.testing.assert_array_equal(decode(data)[0, 1], np.where(PIXELS > 50, PIXELS + 1, np.nan))


@pytest.mark.parametrize("place", ["file", "STAC"])
def test_a_fourth_band_with_a_name_is_data(tmp_path: Path, place: str) -> None:
    """GDAL takes the fourth band of bytes for an alpha band unless it is told otherwise."""
    pixels = np.stack([PIXELS.astype("uint8") + i for i in range(4)])
    pixels[3, 0] = 0
    names = ["red", "green", "blue", "nir"]
    path = write_raster(tmp_path / "a.tif", pixels, alpha=True, descriptions=names if place == "file" else ())
    asset = make_asset(path, *(names if place == "STAC" else ()))
    data = load_items(tmp_path, make_item(1, {"image": asset}))
    assert list_bands(data) == names
    np.testing.assert_array_equal(data[0].values, pixels)


# --- Reference systems ---------------------------------------------------------------------------


def test_grids_are_described_without_definitions(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    assert load_items(tmp_path, make_item(1, {"a": path})).attrs["source"] == "EPSG:32632 at 10"
    sinusoidal = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m"
    path = write_raster(tmp_path / "b.tif", PIXELS, crs=sinusoidal)
    source = load_items(tmp_path, make_item(1, {"b": path})).attrs["source"]
    assert re.fullmatch(r"[\w ()]+ at 10", source)
