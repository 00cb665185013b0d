"""Cubes of STAC Items hold the pixels of all files as rasterio reads them, whatever types they have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.catalog import Band, File, Scene
from odc_openeo.catalog.scenes import get_nominal_time
from odc_openeo.errors import FileContentInvalid
from odc_openeo.load import load
from tests.support.items import PIXELS, list_bands, load_items, make_asset, make_item, write_raster

GRID = {
    "proj:code": "EPSG:32632",
    "proj:shape": [10, 10],
    "proj:transform": [10, 0, 600_000, 0, -10, 5_200_000],
}
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def decode(data: Any) -> np.ndarray:
    """The values of a cube as float64, NaN for no-data."""
    return cube.decode(data).values.astype("float64")


def full(value: float, dtype: str) -> np.ndarray:
    return np.full((10, 10), value, dtype)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((200, "uint8", 0), (3000, "uint16", 0)),
        ((3000, "uint16", 0), (200, "uint8", 0)),
        ((3000, "uint16", 0), (0.25, "float32", -1)),
        ((-5, "int8", None), (65535, "uint16", None)),
        ((4_000_000_000, "uint32", 0), (-1, "int32", 0)),
        ((16_777_217, "int32", None), (0.5, "float32", None)),
        ((2**53 + 1, "int64", None), (5, "int16", None)),
        ((7, "uint16", 0), (0, "uint16", None)),
        ((7, "uint16", 0), (0, "uint16", 65535)),
        ((0, "uint8", 255), (255, "uint16", 65535)),
    ],
)
def test_no_item_decides_about_the_values_of_another(tmp_path: Path, first: Any, second: Any) -> None:
    items = []
    for day, (value, dtype, nodata) in enumerate((first, second), 1):
        path = write_raster(tmp_path / f"{day}.tif", full(value, dtype), nodata)
        items.append(make_item(day, {"b": path}))
    data = load_items(tmp_path, *items).compute()
    assert bool(cube.valid(data).all())
    assert data[:, 0, 0, 0].values.tolist() == [first[0], second[0]]


def test_nodata_values_of_later_files_are_translated(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[0, :2] = 0, 65535
    items = [
        make_item(day, {"b": write_raster(tmp_path / f"{day}.tif", pixels, nodata)})
        for day, nodata in enumerate((0, 65535), 1)
    ]
    values = decode(load_items(tmp_path, *items))[:, 0, 0, :3]
    np.testing.assert_array_equal(values, [[np.nan, 65535, 3], [0, np.nan, 3]])


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1])
def test_integers_that_no_float_holds_are_refused(tmp_path: Path, value: int) -> None:
    items = [
        make_item(1, {"b": write_raster(tmp_path / "1.tif", full(value, "int64"))}),
        make_item(2, {"b": write_raster(tmp_path / "2.tif", full(0.5, "float64"))}),
    ]
    with pytest.raises(FileContentInvalid, match=f"1.tif.*type int64, such as {value}.*float64"):
        load_items(tmp_path, *items).compute()


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "c.tif", full(1j, "complex64"))
    with pytest.raises(FileContentInvalid, match="band 'c' has complex numbers"):
        load_items(tmp_path, make_item(1, {"c": path}))


def test_files_that_are_not_as_declared_are_refused_not_clipped(tmp_path: Path) -> None:
    """The types of such files are taken from their metadata, as those of the first file prove right."""
    fields = {**GRID, "raster:bands": [{"data_type": "uint8", "nodata": 0}], "eo:bands": [{"name": "b"}]}
    items = [
        make_item(1, {"b": make_asset(write_raster(tmp_path / "1.tif", full(9, "uint8"), 0), **fields)}),
        make_item(2, {"b": make_asset(write_raster(tmp_path / "2.tif", full(3000, "uint16"), 0), **fields)}),
    ]
    with pytest.raises(FileContentInvalid, match="2.tif.*type uint16, such as 3000.*uint8"):
        load_items(tmp_path, *items).compute()


def test_valid_pixels_of_the_declared_nodata_value_are_refused_not_lost(tmp_path: Path) -> None:
    fields = {**GRID, "raster:bands": [{"data_type": "uint8", "nodata": 0}], "eo:bands": [{"name": "b"}]}
    paths = [
        write_raster(tmp_path / "1.tif", full(9, "uint8"), 0),
        write_raster(tmp_path / "2.tif", full(0, "uint8"), 7),
    ]
    items = [make_item(day, {"b": make_asset(path, **fields)}) for day, path in enumerate(paths, 1)]
    with pytest.raises(FileContentInvalid, match=r"2\.tif.*valid pixels of the value 0"):
        load_items(tmp_path, *items).compute()


# --- Collections of the index --------------------------------------------------------------------


def load_dataset(path: Path, band: Band) -> Any:
    """A dataset of the index, whose product has this band."""
    grid = GeoBox.from_bbox((600_000, 5_199_900, 600_100, 5_200_000), "EPSG:32632", resolution=10)
    dataset = Scene(
        id="d1",
        product="p",
        time=get_nominal_time({"datetime": "2024-03-01T10:00:00Z"}, "d1"),
        crs=CRS("EPSG:32632"),
        grids={"default": grid},
        files={band.name: File(str(path))},
        footprint=grid.extent,
        properties={},
    )
    return load([dataset], [band])


@pytest.mark.parametrize(
    ("pixels", "band"),
    [
        (full(3000, "uint16"), Band("v", dtype="uint8", nodata=0)),
        (full(-1, "int16"), Band("v", dtype="uint16", nodata=0)),
        (full(0.25, "float32"), Band("v", dtype="int16", nodata=-1)),
        (full(np.inf, "float32"), Band("v", dtype="int16", nodata=-1)),
        (full(1e300, "float64"), Band("v", dtype="float32")),
    ],
)
def test_values_that_a_product_cannot_hold_are_refused(
    tmp_path: Path, pixels: np.ndarray, band: Band
) -> None:
    path = write_raster(tmp_path / "a.tif", pixels)
    with pytest.raises(FileContentInvalid, match=f"band v of dataset d1.*{pixels.dtype}.*{band.dtype}"):
        load_dataset(path, band).compute()


def test_wider_files_of_a_product_load_if_their_values_fit(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[0, 0] = 60_000
    path = write_raster(tmp_path / "a.tif", pixels, nodata=60_000)
    values = decode(load_dataset(path, Band("v", dtype="uint8", nodata=0)))[0, 0]
    np.testing.assert_array_equal(values, np.where(pixels == 60_000, np.nan, pixels))


def test_floats_of_a_product_may_be_rounded(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", full(0.1, "float64"))
    assert float(load_dataset(path, Band("v", dtype="float32"))[0, 0, 0, 0]) == np.float32(0.1)


# --- Any Items -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raster:
    """A file to write: how many bands of which type, and how it marks no-data."""

    count: int
    dtype: str
    nodata: str | None
    value: int
    marks: str | None
    size: int
    named: bool
    seed: int


rasters = st.builds(
    Raster,
    count=st.integers(1, 3),
    dtype=st.sampled_from(TYPES),
    nodata=st.sampled_from(["file", "STAC", None]),
    value=st.sampled_from([0, 1, 5, 100]),
    marks=st.sampled_from(["mask", "alpha", None, None]),
    size=st.sampled_from([10, 20]),
    named=st.booleans(),
    seed=st.integers(0, 9),
)


def write(folder: Path, key: str, raster: Raster) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """An asset, and what rasterio reads of its bands with no-data as NaN."""
    rng = np.random.default_rng(raster.seed)
    side = 120 // raster.size
    limits = np.iinfo(raster.dtype) if np.dtype(raster.dtype).kind in "iu" else np.iinfo("int16")
    values = rng.integers(max(limits.min, -3), 7, (raster.count, side, side)).astype(raster.dtype)
    values[:, 0, 0], values[:, -1, -1] = limits.max, limits.min
    mask = rng.integers(0, 2, (side, side)).astype(bool)
    has_alpha = raster.marks == "alpha" and raster.dtype in ("uint8", "uint16")
    pixels = np.concatenate([values, (mask * 255).astype(raster.dtype)[np.newaxis]]) if has_alpha else values
    path = folder / f"{len(list(folder.iterdir()))}.tif"
    nodata = raster.value if raster.nodata == "file" and not has_alpha else None
    internal = mask if raster.marks == "mask" and nodata is None else None
    write_raster(path, pixels, nodata, size=raster.size, mask=internal, alpha=has_alpha)
    names = [f"{key}-{i}" for i in rng.permutation(raster.count)] if raster.named else []
    asset = make_asset(path, *names)
    is_declared = raster.nodata == "STAC" and not has_alpha and internal is None
    if is_declared:
        asset["raster:bands"] = [{"nodata": raster.value}] * raster.count
    with rasterio.open(path) as file:
        layers = file.read(masked=True)[: raster.count].astype("float64").filled(np.nan)
    if is_declared:
        layers[layers == raster.value] = np.nan
    numbered = [key] if raster.count == 1 else [f"{key}_{i}" for i in range(1, raster.count + 1)]
    return asset, dict(zip(names or numbered, layers, strict=True))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(st.sampled_from("ab"), rasters, min_size=1), min_size=1, max_size=4))
def test_cubes_have_the_values_of_all_files(
    tmp_path_factory: Any, items: Sequence[dict[str, Raster]]
) -> None:
    folder = tmp_path_factory.mktemp("items")
    documents, expected = [], []
    for day, assets in enumerate(items, 1):
        pairs = {key: write(folder, key, raster) for key, raster in assets.items()}
        documents.append(make_item(day, {key: asset for key, (asset, _) in pairs.items()}))
        expected.append({name: layer for _, layers in pairs.values() for name, layer in layers.items()})
    data = load_items(folder, *documents)
    names = list(dict.fromkeys(itertools.chain.from_iterable(expected)))
    assert list_bands(data) == names
    values = decode(data.compute())
    side = values.shape[-1]
    for day, layers in enumerate(expected):
        for i, name in enumerate(names):
            layer = layers.get(name, np.full((side, side), np.nan))
            layer = np.kron(layer, np.ones((side // layer.shape[0],) * 2))
            np.testing.assert_array_equal(values[day, i], layer, err_msg=f"day {day}, band {name}")
