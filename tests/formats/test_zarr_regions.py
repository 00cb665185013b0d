from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from odc_openeo.formats.zarr_regions import (
    Tiling,
    UnalignedRegion,
    align_tiling,
    create_template,
    write_region,
)
from tests.formats.cubes import lazy, raster

SHAPE = (100, 130)
OPTIONS = {"layout": "variables", "chunk_size": 16, "shard_size": 32}


def make_cube(dates: int = 2, bands: int = 3) -> xr.DataArray:
    cube = raster("uint16", dates, bands, SHAPE)
    cube.attrs["nodata"] = 7
    return cube


def empty_like(cube: xr.DataArray) -> xr.DataArray:
    return cube.copy(data=da.empty(cube.shape, dtype=cube.dtype))


def compute_here(*values):
    return tuple(value.compute() for value in values)


def write_part(cube: xr.DataArray, path, region, options=OPTIONS) -> None:
    part = cube.isel(region).chunk()
    write_region(part, path, options, {name: edge.start for name, edge in region.items()}, compute_here)


def read_cube(path, layout: str = "variables") -> xr.DataArray:
    dataset = xr.open_zarr(path, mask_and_scale=False, decode_coords="all")
    if layout == "cube":
        return dataset["data"].load()
    return dataset.to_dataarray("bands").transpose("t", "bands", "y", "x").load()


def list_regions(sizes, units):
    names = list(units)
    for starts in product(*(range(0, sizes[name], units[name]) for name in names)):
        yield {
            name: slice(start, min(start + units[name], sizes[name]))
            for name, start in zip(names, starts, strict=True)
        }


@pytest.mark.parametrize("layout", ["variables", "cube"])
@pytest.mark.parametrize("units", [{"y": 32, "x": 64}, {"y": 20, "x": 70, "t": 1}], ids=str)
def test_regions_written_at_once_in_any_order_make_the_whole(tmp_path, layout, units):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    options = {**OPTIONS, "layout": layout}
    starts = {name: range(0, cube.sizes[name], unit) for name, unit in units.items()}
    lazy(lambda: create_template(path, empty_like(cube), options, starts))
    regions = list(list_regions(cube.sizes, units))
    np.random.default_rng(3).shuffle(regions)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda region: write_part(cube, path, region, options), regions))
    np.testing.assert_array_equal(read_cube(path, layout), cube.values)


def test_unwritten_regions_are_no_data_and_regions_can_be_written_again(tmp_path):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), OPTIONS, {})
    assert (read_cube(path) == 7).all()
    region = {"y": slice(32, 64), "x": slice(96, 130)}
    for values in (cube + 1, cube):
        write_part(values.astype("uint16").assign_attrs(cube.attrs), path, region)
    stored = read_cube(path)
    np.testing.assert_array_equal(stored.isel(region), cube.isel(region).values)
    outside = stored.copy()
    outside[region] = 7
    assert (outside == 7).all()


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ({"y": slice(31, 64)}, "y"),
        ({"y": slice(32, 63)}, "y"),
        ({"x": slice(16, 130), "y": slice(32, 64)}, "x"),
    ],
    ids=str,
)
def test_regions_that_cut_units_are_refused(tmp_path, region, name):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), OPTIONS, {})
    with pytest.raises(UnalignedRegion, match=f"along {name}"):
        write_part(cube, path, region)
    assert (read_cube(path) == 7).all()


def test_parts_beyond_the_whole_are_refused(tmp_path):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), OPTIONS, {})
    with pytest.raises(UnalignedRegion, match="not within"):
        write_region(cube.chunk(), path, OPTIONS, {"x": 32}, compute_here)


@pytest.mark.parametrize(
    ("chunk", "shard", "starts", "aligned"),
    [
        (512, None, [0, 2048, 4096], (512, None)),
        (500, None, [0, 512], (256, None)),
        (16, 64, [0, 32, 96], (16, 32)),
        (16, 64, [0, 24], (12, 24)),
        (16, 64, [0], (16, 64)),
    ],
)
def test_units_begin_where_regions_do(chunk, shard, starts, aligned):
    tiling = Tiling({"y": chunk, "x": 10}, None if shard is None else {"y": shard, "x": 20})
    tiled = align_tiling(tiling, {"y": starts})
    assert (tiled.chunks["y"], tiled.shards and tiled.shards["y"]) == aligned
    assert (tiled.chunks["x"], tiled.shards and tiled.shards["x"]) == (10, shard and 20)


def test_a_store_is_never_replaced(tmp_path):
    create_template(tmp_path / "cube.zarr", empty_like(make_cube()), OPTIONS, {})
    with pytest.raises(FileExistsError):
        create_template(tmp_path / "cube.zarr", empty_like(make_cube()), OPTIONS, {})


DEFAULTS = {"layout": "variables", "chunk_size": None, "shard_size": None}


@pytest.mark.parametrize(
    ("options", "side", "chunk", "shard"),
    [
        ({}, 2048, 512, 2048),
        ({}, 1536, 512, 1536),
        ({}, 512, 256, 512),
        ({"chunk_size": 256}, 2048, 256, 1024),
        ({"shard_size": 0}, 2048, 512, None),
        ({"shard_size": 1024}, 2048, 512, 1024),
    ],
    ids=str,
)
def test_parts_share_a_store_of_whole_shards_by_default(tmp_path, options, side, chunk, shard):
    cube, path = raster("uint16", 1, 1, (2300, 2100)), tmp_path / "cube.zarr"
    starts = {name: range(0, cube.sizes[name], side) for name in ("y", "x")}
    create_template(path, empty_like(cube), {**DEFAULTS, **options}, starts)
    array = next(array for _, array in zarr.open_group(path).arrays() if array.ndim == 3)
    assert array.chunks == (1, chunk, chunk)
    assert array.shards == (None if shard is None else (1, shard, shard))
    region = {"y": slice(2300 // side * side, 2300), "x": slice(0, side)}
    write_part(cube, path, region, {**DEFAULTS, **options})
    np.testing.assert_array_equal(read_cube(path).isel(region), cube.isel(region).values)
    written = sum(file.is_file() for file in (path / array.path).rglob("c/*/*/*"))
    units = [math.ceil((edge.stop - edge.start) / (shard or chunk)) for edge in region.values()]
    assert written == math.prod(units)


def test_dimensions_that_are_not_split_have_shards_too(tmp_path):
    cube, path = raster("uint16", 1, 1, (3000, 700)), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), DEFAULTS, {"y": [0, 1024, 2048], "x": [0]})
    array = next(array for _, array in zarr.open_group(path).arrays() if array.ndim == 3)
    assert (array.chunks, array.shards) == ((1, 512, 512), (1, 1024, 1024))
