"""Rasters stored from south to north or from east to west load as those stored the usual way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.formats.read import get_input_format
from odc_openeo.graph import evaluate
from odc_openeo.load import load
from odc_openeo.load.request import LoadRequest
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.load.subset import Subset
from odc_openeo.registry.environment import Environment
from odc_openeo.untrusted.rasters import LocalFolder

PIXELS = np.arange(1, 101, dtype="uint16").reshape(10, 10)
NORTH_UP = Affine(10, 0, 600000, 0, -10, 5200000)
ORDERS = {
    "north-up": (PIXELS, NORTH_UP),
    "south-up": (PIXELS[::-1], Affine(10, 0, 600000, 0, 10, 5199900)),
    "east to west": (PIXELS[:, ::-1], Affine(-10, 0, 600100, 0, -10, 5200000)),
    "south-up, east to west": (PIXELS[::-1, ::-1], Affine(-10, 0, 600100, 0, 10, 5199900)),
}


@pytest.fixture(params=ORDERS)
def raster_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same picture, stored in one of the four ways."""
    pixels, transform = ORDERS[request.param]
    profile = {"driver": "GTiff", "count": 1, "height": 10, "width": 10, "dtype": "uint16", "nodata": 0}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, crs="EPSG:32632", transform=transform) as file:
        file.write(pixels, 1)
    return tmp_path / "a.tif"


def load_item(path: Path, request: LoadRequest | None = None) -> xr.DataArray:
    asset = {"href": str(path), "type": "image/tiff; application=geotiff", "roles": ["data"]}
    properties = {"datetime": "2024-03-05T10:00:00Z"}
    item = {"type": "Feature", "id": "a", "properties": properties, "assets": {"v": asset}}
    bands, scenes = read_items([item], LocalFolder(path.parent))
    return load(scenes, bands, request)


def apply(cube: xr.DataArray, process_id: str, **arguments: Any) -> xr.DataArray:
    node = {"process_id": process_id, "arguments": {"data": {"from_parameter": "cube"}, **arguments}}
    process = {"process_graph": {"it": {**node, "result": True}}, "parameters": [{"name": "cube"}]}
    result: xr.DataArray = evaluate(process, Environment(None), {"cube": cube})
    return result


def test_all_orders_load_as_the_same_cube(raster_file: Path) -> None:
    for cube in (load_item(raster_file)[0, 0], get_input_format("GTiff").read([raster_file])[0]):
        np.testing.assert_array_equal(cube.values, PIXELS)
        assert cube.odc.geobox.transform[:6] == NORTH_UP[:6]
        assert (cube.y.values[0], cube.x.values[0]) == (5199995, 600005)


def test_single_rows_and_columns_run_the_same_way(raster_file: Path) -> None:
    for part in ({"y": slice(3, 4)}, {"x": slice(2, 3)}, {"y": slice(3, 4), "x": slice(2, 3)}):
        window = load_item(raster_file).isel(part)
        assert (
            window.odc.geobox
            == load_item(raster_file).odc.geobox[part.get("y", slice(None)), part.get("x", slice(None))]
        )


def test_a_coarser_grid_chosen_while_loading_runs_the_same_way(raster_file: Path) -> None:
    whole = load_item(raster_file).odc.geobox
    coarse = whole.zoom_out(2)
    cube = load_item(raster_file, LoadRequest(subset=Subset(view=coarse.flipy())))
    assert cube.odc.geobox == coarse
    assert (cube[0, 0].values[:, 1:] > cube[0, 0].values[:, :-1]).all()


@pytest.mark.parametrize("stored", ORDERS)
def test_kernels_begin_in_the_north_west_whatever_the_labels(stored: str) -> None:
    steps = {"south-up": (-1, 1), "east to west": (1, -1), "south-up, east to west": (-1, -1)}
    rows, columns = (slice(None, None, step) for step in steps.get(stored, (1, 1)))
    y, x = 5199995 - 10.0 * np.arange(10), 600005 + 10.0 * np.arange(10)
    plain = xr.DataArray(PIXELS, dims=("y", "x"), coords={"y": y, "x": x}).odc.assign_crs("EPSG:32632")
    cube = plain.isel(y=rows, x=columns).copy()
    for data in (cube, cube.chunk(3)):
        for kernel, place, expected in (
            ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], (5199985, 600005), 1),
            ([[0, 0, 0], [1, 0, 0], [0, 0, 0]], (5199985, 600015), 11),
        ):
            result = apply(data, "apply_kernel", kernel=kernel)
            assert result.y.values.tolist() == cube.y.values.tolist()
            assert float(result.sel(y=place[0], x=place[1])) == expected


@pytest.mark.parametrize("stored", ["north-up", "south-up"])
def test_neighbourhoods_begin_in_the_north_west(stored: str) -> None:
    y = 5199995 - 10.0 * np.arange(10)
    plain = xr.DataArray(PIXELS, dims=("y", "x"), coords={"y": y, "x": 600005 + 10.0 * np.arange(10)})
    plain = plain.odc.assign_crs("EPSG:32632")
    data = plain.isel(y=slice(None, None, -1)).copy() if stored == "south-up" else plain
    first = {
        "process_id": "apply_dimension",
        "arguments": {"data": {"from_parameter": "data"}, "dimension": "y"},
    }
    node = {"process_id": "cummax", "arguments": {"data": {"from_parameter": "data"}}, "result": True}
    first["arguments"]["process"] = {"process_graph": {"cummax": node}}
    size = [{"dimension": d, "value": 4, "unit": "px"} for d in ("y", "x")]
    child = {"process_graph": {"it": {**first, "result": True}}}
    result = apply(data, "apply_neighborhood", process=child, size=size)
    assert result.y.values.tolist() == data.y.values.tolist()
    expected = np.concatenate([np.maximum.accumulate(PIXELS[i : i + 4]) for i in (0, 4, 8)])
    np.testing.assert_array_equal(result.sel(y=y).values, expected)
