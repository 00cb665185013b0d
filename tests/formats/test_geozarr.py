"""Zarr stores as others read them: the GeoZarr conventions, xarray, rioxarray, GDAL."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from packaging.version import Version

from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid
from odc_openeo.formats import Target, get_format
from odc_openeo.formats.write import Output, write_outputs
from odc_openeo.formats.zarr_levels import halve_resolution
from tests.formats.cubes import ORIGIN, raster, vector


def save(data, folder, **options):
    format_ = get_format("Zarr")
    return format_.write(data, Target(folder), format_.complete_options(options))[0].path


def list_nodes(path):
    """The metadata documents of all groups and arrays, by path."""
    return {
        str(file.parent.relative_to(path)): json.loads(file.read_text()) for file in path.rglob("zarr.json")
    }


def validate_conventions(path) -> set[str]:
    """Validate all nodes that declare conventions; the names of the conventions found."""
    zarr_cm = pytest.importorskip("zarr_cm", reason="needs zarr-cm, which validates conventions")
    names = set()
    for node in list_nodes(path).values():
        for convention in node["attributes"].get("zarr_conventions", []):
            module = getattr(zarr_cm, convention["name"])
            assert convention == dict(module.CMO)
            module.validate_node_metadata(node)
            names.add(convention["name"])
    return names


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "+proj=laea +lat_0=52 +lon_0=10"])
def test_the_grid_follows_the_conventions(tmp_path, crs):
    cube = raster().odc.assign_crs(crs) if crs.startswith("+") else raster(crs=crs)
    path = save(cube, tmp_path)
    assert validate_conventions(path) == {"spatial", "proj"}
    attributes = zarr.open_group(path).attrs
    left, top = ORIGIN
    assert attributes["spatial:transform"] == [10, 0, left, 0, -10, top]
    assert attributes["spatial:bbox"] == [left, top - 400, left + 300, top]
    assert attributes["spatial:shape"] == [40, 30]
    if crs.startswith("+"):
        assert attributes["proj:wkt2"].startswith("PROJCRS")
    else:
        assert attributes["proj:code"] == crs
    assert zarr.open_group(path, use_consolidated=True).attrs["spatial:shape"] == [40, 30]


def test_cubes_without_a_grid_declare_none(tmp_path):
    uneven = raster().isel(x=[0, 1, 5, 6])
    for number, cube in enumerate((uneven, raster().mean(["x", "y"]), vector())):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = save(cube, folder)
        assert "zarr_conventions" not in zarr.open_group(path).attrs
        with pytest.raises(FormatUnsuitable, match="overviews"):
            Output.from_data(cube, "Zarr", {"overviews": "AUTO"})


@pytest.mark.parametrize(
    ("options", "chunks", "shards"),
    [
        ({}, (1, 64, 50), None),
        ({"chunk_size": 32}, (1, 32, 32), None),
        ({"chunk_size": 32, "shard_size": 64}, (1, 32, 32), (1, 64, 64)),
        ({"chunk_size": 32, "shard_size": 70}, (1, 32, 32), (1, 96, 96)),
        ({"chunk_size": 32, "shard_size": 4096}, (1, 32, 32), (1, 128, 160)),
        ({"chunk_size": 4096}, (1, 100, 130), None),
        ({"chunk_size": 16, "shard_size": 0}, (1, 16, 16), None),
    ],
    ids=str,
)
def test_chunks_and_shards(tmp_path, options, chunks, shards):
    cube = raster("int16", shape=(100, 130)).chunk({"y": 64, "x": 50})
    path = save(cube, tmp_path, **options)
    array = zarr.open_array(path, path="B02")
    assert (array.chunks, array.shards) == (chunks, shards)
    np.testing.assert_array_equal(xr.open_zarr(path, chunks=None)["B02"], cube[:, 1])


def test_many_chunks_are_packed_into_shards(tmp_path):
    cube = raster("uint8", dates=17, bands=1, shape=(256, 256)).chunk({"t": 5, "y": 128, "x": 256})
    path = save(cube, tmp_path, chunk_size=16)
    array = zarr.open_array(path, path="B01")
    assert (array.chunks, array.shards) == ((1, 16, 16), (1, 128, 256))
    assert len([file for file in path.rglob("*") if file.is_file()]) < 50
    np.testing.assert_array_equal(xr.open_zarr(path, chunks=None)["B01"], cube[:, 0])


def test_shards_smaller_than_chunks_are_refused():
    with pytest.raises(ProcessParameterInvalid, match="shard_size"):
        Output.from_data(raster(), "Zarr", {"chunk_size": 64, "shard_size": 32})
    for options in ({"chunk_size": 0}, {"chunk_size": -1}, {"chunk_size": 10**9}, {"shard_size": 10**9}):
        with pytest.raises(ProcessParameterInvalid, match=next(iter(options))):
            Output.from_data(raster(), "Zarr", options)


SHAPE = (1100, 1301)


@pytest.mark.parametrize("tiling", [{}, {"chunk_size": 128, "shard_size": 256}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_levels_of_a_pyramid(tmp_path, dtype, tiling):
    cube = raster(dtype, dates=1, bands=2, shape=SHAPE).chunk({"y": 512})
    cube.attrs["nodata"] = np.nan if dtype == "float32" else 100
    path = write_outputs(None, [Output.from_data(cube, "Zarr", {"overviews": "AUTO", **tiling})], tmp_path)[0]
    store = path.path
    assert validate_conventions(store) == {"spatial", "proj", "multiscales"}
    layout = zarr.open_group(store).attrs["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == ["0", "1", "2"]
    expected = cube.values[:, 1]
    for number, level in enumerate(layout):
        opened = xr.open_zarr(
            store, group=level["asset"], mask_and_scale=False, chunks=None, decode_coords="all"
        )
        np.testing.assert_array_equal(opened["B02"], expected)
        height, width = (math.ceil(size / 2**number) for size in SHAPE)
        assert opened["B02"].shape == (1, height, width)
        left, top = ORIGIN
        assert opened.rio.transform() == rasterio.Affine(10 * 2**number, 0, left, 0, -10 * 2**number, top)
        assert opened.odc.geobox.shape == (height, width)
        expected = expected[:, ::2, ::2] if dtype == "int16" else mean_of_blocks(expected)
    tree = xr.open_datatree(store, engine="zarr", chunks=None)
    assert set(tree.children) == {"0", "1", "2"}


def mean_of_blocks(values: np.ndarray) -> np.ndarray:
    """Means of blocks of 2 x 2 pixels, of less at the edges."""
    even = np.full((values.shape[0], *(size + size % 2 for size in values.shape[1:])), np.nan)
    even[:, : values.shape[1], : values.shape[2]] = values
    blocks = even.reshape(values.shape[0], even.shape[1] // 2, 2, even.shape[2] // 2, 2)
    return np.nanmean(blocks, axis=(2, 4)).astype(values.dtype)


def test_averages_leave_out_no_data():
    values = np.array([[1, 3, 9], [9, 9, 9], [4, 9, 7]], "uint8")
    np.testing.assert_array_equal(halve_resolution(values, "average", 9), [[2, 9], [4, 7]])
    floats = np.where(values == 9, np.nan, values).astype("float32")
    np.testing.assert_array_equal(halve_resolution(floats, "average", np.nan), [[2, np.nan], [4, 7]])
    np.testing.assert_array_equal(halve_resolution(values, "nearest", 9), [[1, 9], [4, 7]])


def test_gdal_reads_place_and_values(tmp_path):
    if Version(rasterio.__gdal_version__) < Version("3.13"):
        pytest.skip("GDAL reads such stores from 3.13 on")
    cube = raster("uint16", dates=1, bands=2)
    path = save(cube, tmp_path)
    with rasterio.open(f'ZARR:"{path}":/B02:0') as file:
        np.testing.assert_array_equal(file.read(1), cube.values[0, 1])
        assert file.crs.to_epsg() == 32632
        assert file.transform.to_gdal() == (ORIGIN[0], 10, 0, ORIGIN[1], 0, -10)
