"""Zarr arrays of STAC Items have the values of GeoTIFFs with the same pixels; hostile ones are refused."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from odc_openeo import cube
from odc_openeo.catalog import Band, File, Scene
from odc_openeo.errors import (
    FeatureUnsupported,
    FileContentInvalid,
    NoDataAvailable,
    OpenEOError,
    StorageFailure,
)
from odc_openeo.formats import Target, get_format
from odc_openeo.load import load
from odc_openeo.load.request import LoadRequest
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.load.subset import Subset
from odc_openeo.untrusted import zarr_codecs
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError
from odc_openeo.untrusted.zarr_arrays import is_zarr_href, open_array
from tests.support.items import ORIGIN, load_items, make_item, write_raster

ZARR = "application/vnd+zarr"
SHAPE = (37, 53)
TRANSFORM = [10.0, 0.0, ORIGIN[0], 0.0, -10.0, ORIGIN[1]]
GEOZARR = {"proj:code": "EPSG:32632", "spatial:transform": TRANSFORM, "spatial:shape": list(SHAPE)}
EOPF = {"proj:epsg": 32632, "proj:transform": [*TRANSFORM, 0, 0, 1], "proj:shape": list(SHAPE)}


def make_pixels(dtype: str = "uint16") -> np.ndarray:
    pixels = np.random.default_rng(5).integers(1, 100, SHAPE).astype(dtype)
    pixels[3:9, 20:30] = 0
    return pixels


def write_array(path: Path, pixels: np.ndarray, attributes: dict[str, Any], **options: Any) -> Path:
    """Write an array into a group of a store, as products of EOPF have them."""
    group = zarr.open_group(
        path / "product.zarr/measurements/reflectance/r10m",
        mode="a",
        zarr_format=options.pop("zarr_format", 3),
    )
    options = {"chunks": (16, 16), "fill_value": 0, **options}
    array = group.create_array(
        "b02", shape=pixels.shape, dtype=pixels.dtype, attributes=attributes, **options
    )
    array[...] = pixels
    return path / "product.zarr/measurements/reflectance/r10m/b02"


def make_zarr_item(path: Path | str, day: int = 1, **fields: Any) -> dict[str, Any]:
    asset = {"href": str(path), "type": ZARR, "roles": ["data"], **fields}
    return {**make_item(day, {}), "assets": {"b02": asset}}


def load_both(
    folder: Path, path: Path, pixels: np.ndarray, nodata: float | None, grid: GeoBox | None = None
) -> Any:
    """The cube of the array and that of a GeoTIFF with the same pixels."""
    tif = write_raster(folder / "b02.tif", pixels, nodata)
    return [
        load(*read_items([item], LocalFolder(folder))[::-1], LoadRequest(subset=Subset(view=grid))).compute()
        for item in (make_zarr_item(path), make_item(1, {"b02": tif}))
    ]


FORMATS: dict[str, dict[str, Any]] = {
    "v3-zstd": {"compressors": ZstdCodec(level=3)},
    "v3-blosc": {"compressors": BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "v3-gzip": {"compressors": GzipCodec(), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3-none": {"compressors": None, "chunks": (37, 53)},
    "v3-shards": {"shards": (32, 64), "compressors": BloscCodec(cname="zstd")},
    "v3-checksums": {"compressors": [ZstdCodec(), {"name": "crc32c"}]},
    "v2-blosc": {"zarr_format": 2},
    "v2-folders": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2-none": {"zarr_format": 2, "compressors": None},
}


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_a_geotiff(tmp_path: Path, name: str) -> None:
    pixels = make_pixels()
    path = write_array(tmp_path, pixels, {**GEOZARR, "_FillValue": 0}, **FORMATS[name])
    array, tif = load_both(tmp_path, path, pixels, 0)
    xr.testing.assert_identical(array, tif)
    np.testing.assert_array_equal(array.values[0, 0], pixels)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "int32", "float32", "float64", ">u2", ">f4", "bool"]
)
@pytest.mark.parametrize("version", [2, 3])
def test_types_of_values(tmp_path: Path, dtype: str, version: int) -> None:
    if dtype.startswith(">") and version == 3:
        pytest.skip("byte order is a codec there")
    pixels = make_pixels(dtype)
    path = write_array(
        tmp_path, pixels, GEOZARR, zarr_format=version, fill_value=False if dtype == "bool" else 7
    )
    stored = pixels.astype("uint8" if dtype == "bool" else np.dtype(dtype).newbyteorder("="))
    array, tif = load_both(tmp_path, path, stored, None if version == 3 else 0 if dtype == "bool" else 7)
    np.testing.assert_array_equal(cube.decode(array).values, cube.decode(tif).values)


@pytest.mark.parametrize("attributes", [GEOZARR, EOPF], ids=["geozarr", "eopf"])
def test_grids_that_differ_from_that_of_the_array(tmp_path: Path, attributes: dict[str, Any]) -> None:
    pixels = make_pixels()
    path = write_array(tmp_path, pixels, {**attributes, "_FillValue": 0})
    left, top = ORIGIN
    for resolution in (10, 7, 40):
        grid = GeoBox.from_bbox(
            (left - 33, top - 300, left + 290, top + 25), "EPSG:32632", resolution=resolution
        )
        array, tif = load_both(tmp_path, path, pixels, 0, grid)
        xr.testing.assert_identical(array, tif)
        assert bool(cube.valid(array).any())


def test_grids_by_coordinates_and_by_cf(tmp_path: Path) -> None:
    pixels = make_pixels()
    x = ORIGIN[0] + 5 + 10 * np.arange(SHAPE[1])
    y = ORIGIN[1] - 5 - 10 * np.arange(SHAPE[0])
    for version in (2, 3):
        folder = tmp_path / str(version)
        folder.mkdir()
        path = write_array(folder, pixels, {"proj:epsg": 32632, "_FillValue": 0}, zarr_format=version)
        group = zarr.open_group(path.parent, mode="a")
        for name, values in (("x", x), ("y", y)):
            group.create_array(name, data=values, chunks=(20,))
        array, tif = load_both(folder, path, pixels, 0)
        xr.testing.assert_identical(array, tif)


def test_what_is_saved_as_zarr_can_be_loaded(tmp_path: Path) -> None:
    pixels = make_pixels()
    saved = load_items(tmp_path, make_item(1, {"b02": write_raster(tmp_path / "b.tif", pixels, 0)})).compute()
    format_ = get_format("Zarr")
    options = format_.complete_options({"chunk_size": 16, "shard_size": 32})
    (asset,) = format_.write(saved.isel(t=[0]), Target(tmp_path), options)
    loaded = load_items(tmp_path, make_zarr_item(asset.path / "b02")).compute()
    np.testing.assert_array_equal(loaded.values[0, 0], pixels)
    assert cube.nodata(loaded) == 0


def load_dataset(href: str, pixels: np.ndarray) -> np.ndarray:
    """The pixels of a dataset of the index whose band is at an address."""
    grid = GeoBox(pixels.shape, Affine(*TRANSFORM), "EPSG:32632")
    scene = Scene(
        "scene",
        "product",
        datetime(2024, 3, 1, tzinfo=UTC),
        grid.crs,
        {"default": grid},
        {"b02": File(href, 1, None, "default")},
        grid.extent,
        {},
    )
    return load([scene], [Band("b02", dtype="uint16", nodata=0)]).compute().values[0, 0]


def test_datasets_of_the_index_may_be_arrays(tmp_path: Path) -> None:
    pixels = make_pixels()
    path = write_array(tmp_path, pixels, EOPF)
    for href in (path.as_uri(), str(path)):
        np.testing.assert_array_equal(load_dataset(href, pixels), pixels)
    with pytest.raises(StorageFailure, match="missing or damaged"):
        load_dataset(path.with_name("b03").as_uri(), pixels)
    with pytest.raises(FeatureUnsupported, match="outside of local folders"):
        load_dataset("s3://bucket/product.zarr/b02", pixels)


def test_scale_and_offset_are_described(tmp_path: Path) -> None:
    attributes = {**GEOZARR, "scale_factor": 0.0001, "add_offset": -0.1, "units": "1"}
    path = write_array(tmp_path, make_pixels(), attributes)
    array = load_items(tmp_path, make_zarr_item(path))
    from odc_openeo.cube.packing import read_packings

    (packing,) = read_packings(array, "bands")
    assert (packing.scale, packing.offset) == (0.0001, -0.1)


def test_other_media_types_and_groups_are_refused(tmp_path: Path) -> None:
    path = write_array(tmp_path, make_pixels(), GEOZARR)
    with pytest.raises(NoDataAvailable, match="Zarr"):
        load_items(tmp_path, make_zarr_item(path, type="application/json"))
    for href, reason in ((path.parent, "Name an array"), (path / "nothing", "no array")):
        with pytest.raises(FileContentInvalid, match=reason):
            load_items(tmp_path, make_zarr_item(href))
    assert not is_zarr_href("https://example.org/zarr/a.tif")
    assert is_zarr_href("https://example.org/A.ZARR/b?token=x")
    # Stores as such are among the results of jobs, beside files that can be loaded.
    assert not is_zarr_href("https://example.org/result.zarr")


# --- Attacks -------------------------------------------------------------------------------------

DEEP: Any = 1
for _ in range(300):
    DEEP = [DEEP]

LIES: dict[str, dict[str, Any]] = {
    "huge shape": {"shape": [2**40, 2**40]},
    "many pixels": {"shape": [2**30, 2**30]},
    "negative shape": {"shape": [-37, 53]},
    "shape of booleans": {"shape": [True, 53]},
    "no dimensions": {"shape": []},
    "many dimensions": {"shape": [1] * 30},
    "dates": {"shape": [5, 37, 53]},
    "negative chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [-16, 16]}}},
    "chunks of nothing": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 16]}}},
    "huge chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20]}}},
    "fractions": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1.5, 16]}}},
    "irregular": {"chunk_grid": {"name": "rectangular", "configuration": {}}},
    "unknown codec": {"codecs": [{"name": "bytes"}, {"name": "pickle"}]},
    "codec of a library": {"codecs": [{"name": "bytes"}, {"name": "numcodecs.json2"}]},
    "codecs that are none": {"codecs": "bytes"},
    "many codecs": {"codecs": [{"name": "bytes"}] + [{"name": "gzip"}] * 100},
    "shards in shards": {
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [16, 16],
                    "codecs": [{"name": "sharding_indexed", "configuration": {}}],
                    "index_codecs": [{"name": "bytes"}],
                },
            }
        ]
    },
    "objects": {"data_type": "object"},
    "text": {"data_type": "string"},
    "complex": {"data_type": "complex64"},
    "structures": {"data_type": [["a", "<i4"]]},
    "fill value of objects": {"fill_value": {"a": 1}},
    "fill value too large": {"fill_value": 10**400},
    "fill value of text": {"fill_value": "x" * 1000},
    "deep": {"attributes": {"a": DEEP}},
    "crs": {"attributes": {"proj:code": "/etc/passwd", "spatial:transform": TRANSFORM}},
    "transform": {"attributes": {"proj:code": "EPSG:32632", "spatial:transform": [0, 0, 0, 0, 0, 0]}},
    "infinite transform": {"attributes": {"proj:code": "EPSG:32632", "spatial:transform": [1e999] * 6}},
    "link to another group": {"attributes": {"proj:epsg": 32632, "grid_mapping": "../../../secret"}},
    "separator": {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}},
    "transformers": {"storage_transformers": [{"name": "x"}]},
}


@pytest.mark.parametrize("name", LIES)
def test_metadata_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    path = write_array(tmp_path, make_pixels(), GEOZARR)
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**document, **LIES[name]}))
    with pytest.raises(OpenEOError) as caught:
        load_items(tmp_path, make_zarr_item(path)).compute()
    assert caught.value.status == 400
    assert str(tmp_path) not in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff\xfe", b"null"], ids=str)
def test_documents_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    path = write_array(tmp_path, make_pixels(), GEOZARR)
    (path / "zarr.json").write_bytes(content)
    with pytest.raises(FileContentInvalid, match="JSON"):
        load_items(tmp_path, make_zarr_item(path))


def find_chunk(path: Path) -> Path:
    return next(file for file in sorted((path / "c").rglob("*")) if file.is_file())


@pytest.mark.parametrize("name", ["v3-zstd", "v3-blosc", "v3-shards", "v3-none"])
@pytest.mark.parametrize("damage", ["short", "noise", "empty", "long"])
def test_damaged_chunks_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = write_array(tmp_path, make_pixels(), GEOZARR, **FORMATS[name])
    chunk = find_chunk(path)
    content = chunk.read_bytes()
    damaged = {
        "short": content[: len(content) // 2],
        "noise": os.urandom(len(content) - 3),
        "empty": b"",
        "long": content + content[:-1],
    }
    chunk.write_bytes(damaged[damage])
    # An index at the end of a shard may be sound although more stands before it.
    if (name, damage) == ("v3-shards", "long"):
        return
    with pytest.raises(FileContentInvalid) as caught:
        load_items(tmp_path, make_zarr_item(path)).compute()
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("codec", ["gzip", "zlib", "zstd", "lz4", "blosc"])
def test_bombs_are_not_expanded(codec: str) -> None:
    import numcodecs

    zeros = bytes(2**28)
    encoders = {
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
        "zstd": numcodecs.Zstd(),
        "lz4": numcodecs.LZ4(),
        "blosc": numcodecs.Blosc(cname="zstd"),
    }
    bomb = bytes(encoders[codec].encode(zeros))
    assert len(bomb) < 2**21
    with pytest.raises(RasterRefusedError):
        zarr_codecs.decompress_bytes(codec, bomb, 1024)
    assert zarr_codecs.decompress_bytes(codec, bomb, 2**28) == zeros


def test_blosc_headers_that_lie() -> None:
    import numcodecs

    content = bytearray(numcodecs.Blosc().encode(bytes(1024)))
    content[4:8] = (2**31 - 1).to_bytes(4, "little")
    for size in (1024, 2**20):
        with pytest.raises(RasterRefusedError, match="claims"):
            zarr_codecs.decompress_bytes("blosc", bytes(content), size)


@pytest.mark.parametrize("target", ["zarr.json", "chunk", "folder"])
def test_links_are_not_followed(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    secret = write_array(tmp_path / "other", make_pixels(), GEOZARR)
    path = write_array(folder, np.ones(SHAPE, "uint16"), GEOZARR)
    if target == "folder":
        shutil.rmtree(path)
        path.symlink_to(secret)
    else:
        file = path / "zarr.json" if target == "zarr.json" else find_chunk(path)
        file.unlink()
        file.symlink_to(secret / file.relative_to(path))
    with pytest.raises(FileContentInvalid):
        load_items(folder, make_zarr_item(path)).compute()


def test_stores_outside_of_the_place_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    secret = write_array(tmp_path / "other", make_pixels(), GEOZARR)
    for href in (secret, f"{folder}/../other/{secret.relative_to(tmp_path / 'other')}"):
        with pytest.raises(FileContentInvalid):
            load_items(folder, make_zarr_item(href))


def test_limits_of_a_window(tmp_path: Path) -> None:
    path = write_array(tmp_path, np.ones((8, 8), "uint8"), GEOZARR, chunks=(1, 1))
    document = json.loads((path / "zarr.json").read_text())
    document["shape"] = [2**16, 2**16]
    (path / "zarr.json").write_text(json.dumps(document))
    place = LocalFolder(tmp_path)
    array = open_array(str(path), place)
    for size, reason in ((2**16, "finer resolution"), (2**10, "too small")):
        with pytest.raises(RasterRefusedError, match=reason):
            array.read_window(place, slice(0, size), slice(0, size))
