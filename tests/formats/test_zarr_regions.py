from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from odc_openeo.formats.zarr_regions import UnalignedRegion, create_template, write_region
from tests.formats.cubes import lazy, raster

SHAPE = (100, 130)
TILING = {"chunk_size": 16, "shard_size": 32}


def make_cube(dates: int = 2, bands: int = 3) -> xr.DataArray:
    cube = raster("uint16", dates, bands, SHAPE)
    cube.attrs["nodata"] = 7
    return cube


def empty_like(cube: xr.DataArray) -> xr.DataArray:
    return cube.copy(data=da.empty(cube.shape, dtype=cube.dtype))


def read_cube(store, layout: str = "variables") -> xr.DataArray:
    dataset = xr.open_zarr(store, mask_and_scale=False, decode_coords="all")
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


def write_in_any_order(store, cube: xr.DataArray, layout: str = "variables") -> None:
    """Write a cube region by region, several at once, in an order that means nothing."""
    units = lazy(lambda: create_template(store, empty_like(cube), layout, **TILING))
    assert (units["y"], units["x"], units["t"]) == (32, 32, 1)
    units.pop("bands", None)
    regions = list(list_regions(cube.sizes, units))
    np.random.default_rng(3).shuffle(regions)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda region: write_region(store, cube.isel(region), region), regions))


@pytest.mark.parametrize("layout", ["variables", "cube"])
def test_regions_written_at_once_in_any_order_make_the_whole(tmp_path, layout):
    cube = make_cube()
    write_in_any_order(tmp_path / "cube.zarr", cube, layout)
    np.testing.assert_array_equal(read_cube(tmp_path / "cube.zarr", layout), cube.values)


def test_unwritten_regions_are_no_data_and_regions_can_be_written_again(tmp_path):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), **TILING)
    assert (read_cube(path) == 7).all()
    region = {"y": slice(32, 64), "x": slice(96, 130)}
    for part in (cube.isel(region) + 1, cube.isel(region)):
        write_region(path, part.transpose("x", "bands", "t", "y"), region)
    stored = read_cube(path)
    np.testing.assert_array_equal(stored.isel(region), cube.isel(region).values)
    outside = stored.copy()
    outside[region] = 7
    assert (outside == 7).all()


@pytest.mark.parametrize(
    "region",
    [
        {"y": slice(31, 64)},
        {"y": slice(32, 63)},
        {"x": slice(0, 131)},
        {"x": slice(-32, 130)},
        {"x": slice(64, 64)},
        {"y": slice(64, 32)},
        {"y": slice(0, 64, 2)},
        {"t": slice(1, 3)},
    ],
    ids=str,
)
def test_regions_that_cut_units_are_refused(tmp_path, region):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), **TILING)
    with pytest.raises(UnalignedRegion, match=next(iter(region))):
        write_region(path, cube, region)
    assert (read_cube(path) == 7).all()


def test_parts_that_do_not_fit_their_region_are_refused(tmp_path):
    cube, path = make_cube(), tmp_path / "cube.zarr"
    create_template(path, empty_like(cube), **TILING)
    with pytest.raises(UnalignedRegion, match="shape"):
        write_region(path, cube[:, :, :16], {"y": slice(0, 32)})
    with pytest.raises(UnalignedRegion, match="bands"):
        write_region(path, cube[:, :2], {})


def test_a_store_is_never_replaced(tmp_path):
    create_template(tmp_path / "cube.zarr", empty_like(make_cube()), **TILING)
    with pytest.raises(FileExistsError):
        create_template(tmp_path / "cube.zarr", empty_like(make_cube()), **TILING)
