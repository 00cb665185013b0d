"""Data in several reference systems on the grid that the product names, compared with GDAL's warp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

import odc_openeo.processes  # noqa: F401  (registers the processes that graphs use)
from odc_openeo.catalog import Catalog
from odc_openeo.catalog.load_hints import find_load_hint
from odc_openeo.config import Config
from tests.catalog.scenes import PRODUCT, Grid, Index, pixels, product, write
from tests.load.test_load_collection import load

WEST = Grid(700000, 5200000, 10, (100, 100))
EAST = Grid(243900, 5200000, 10, (100, 100), 32633)
"""Next to each other, on both sides of 12 degrees east."""

HINT = {"crs": "EPSG:3035", "resolution": {"x": 20, "y": -20}, "align": {"x": 10, "y": 0}}
EVER: list[str | None] = ["2022-01-01", None]


@pytest.fixture
def zones(index: Index, tmp_path: Path) -> Index:
    """Two scenes of one time in two zones, of products with and without load hints."""
    for name, more in (("plain", {}), ("hinted", {"load": HINT})):
        index.add_product(product(name, measurements=PRODUCT["measurements"][:1], **more))
        for seed, grid in ((1, WEST), (2, EAST)):
            values = pixels(grid, seed, nodata=None)
            index.add(write(tmp_path / name / str(seed), {"B04": (grid, values)}, name, nodata=0))
    return index


def warp(path: Path, cube: Any) -> np.ndarray:
    """A file on the grid of a cube, as GDAL warps it."""
    box = cube.odc.geobox
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file, crs=str(box.crs), transform=box.transform, width=box.shape.x, height=box.shape.y, nodata=0
        ) as vrt,
    ):
        return np.asarray(vrt.read(1))


def test_several_systems_are_loaded_on_the_grid_of_the_product(
    catalog: Catalog, zones: Index, tmp_path: Path
) -> None:
    data = load(catalog, None, EVER, id="hinted", bands=["B04"])
    box = data.odc.geobox
    assert (box.crs.epsg, box.resolution.x, box.resolution.y) == (3035, 20, -20)
    assert (box.transform.c % 20, box.transform.f % 20) == (10, 0)
    assert "EPSG:3035 at 20" in data.attrs["source"]
    values = data.squeeze(("t", "bands")).values
    first, second = (warp(tmp_path / "hinted" / seed / "B04.tif", data) for seed in ("1", "2"))
    # GDAL's own warp interpolates positions: a few pixels differ by one.
    expected = np.where(first != 0, first, second)
    assert (values == expected).mean() > 0.98
    assert (first != 0).sum() > 2000
    assert (second != 0).sum() > 2000


def test_a_part_is_the_part_of_the_whole(catalog: Catalog, zones: Index) -> None:
    whole = load(catalog, None, EVER, id="hinted", bands=["B04"])
    west, south, east, north = whole.odc.geobox.boundingbox
    box = {"west": west + 200, "south": south + 200, "east": east - 200, "north": north - 200, "crs": 3035}
    part = load(catalog, box, EVER, id="hinted", bands=["B04"])
    same = whole.sel(x=part.x, y=part.y)
    assert part.size > 100
    np.testing.assert_array_equal(part.values, same.values)


def test_one_system_keeps_its_grid(catalog: Catalog, zones: Index, tmp_path: Path) -> None:
    box = {"west": 700100, "south": 5199500, "east": 700200, "north": 5199600, "crs": 32632}
    data = load(catalog, box, EVER, id="hinted", bands=["B04"])
    assert data.odc.geobox.crs.epsg == 32632
    np.testing.assert_array_equal(
        data.squeeze(("t", "bands")).values, pixels(WEST, 1, nodata=None)[40:50, 10:20]
    )


def test_native_grids_by_parameter_and_setting(catalog: Catalog, zones: Index, odc_config: Config) -> None:
    plain = load(catalog, None, EVER, id="plain", bands=["B04"])
    native = load(catalog, None, EVER, id="hinted", bands=["B04"], native_grid=True)
    assert native.odc.geobox == plain.odc.geobox
    np.testing.assert_array_equal(native.values, plain.values)
    without = Catalog(odc_config.model_copy(update={"load_hints": False}))
    data = load(without, None, EVER, id="hinted", bands=["B04"])
    assert data.odc.geobox == plain.odc.geobox
    without.close()


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, None),
        ({"load": {"crs": "EPSG:3035"}}, None),
        ({"load": {"crs": "EPSG:99", "resolution": [10, 10]}}, None),
        ({"load": {"crs": "EPSG:3035", "resolution": [0, 10]}}, None),
        ({"load": {"crs": "EPSG:3035", "resolution": [float("nan"), 10]}}, None),
        ({"load": {"crs": "EPSG:3035", "resolution": "10"}}, None),
        ({"load": {"crs": "EPSG:3035", "resolution": [-20, 10], "align": "x"}}, None),
        ({"load": {"crs": "EPSG:3035", "resolution": [-20, 10]}}, ((10, 20), (0, 0))),
        ({"load": {"crs": "EPSG:3035", "resolution": {"x": 10, "y": -20}}}, ((10, 20), (0, 0))),
        (
            {"load": {"crs": "EPSG:4326", "resolution": {"longitude": 1, "latitude": -2}, "align": [1, 0.5]}},
            ((1, 2), (0.5, 1)),
        ),
        ({"storage": {"crs": "EPSG:3035", "resolution": [-20, 10]}}, ((10, 20), (0, 0))),
        ({"storage": {"crs": "EPSG:3035", "resolution": [-20, 10], "tile_size": [100, 100]}}, None),
    ],
)
def test_hints_are_read_as_open_data_cube_reads_them(definition: dict[str, Any], expected: Any) -> None:
    hint = find_load_hint(definition)
    assert (None if hint is None else (hint.resolution, hint.align)) == expected
