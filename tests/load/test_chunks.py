"""Chunks of large loads begin where blocks of the files do; the values are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_openeo.catalog import Catalog
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.load import chunking
from odc_openeo.load.chunking import Volume, check_volume
from odc_openeo.processes.load_collection import load_collection
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.spatial.boxes import Box
from tests.load.test_load_collection import load, two  # noqa: F401  (a fixture)

EDGES = {"west": 600050, "south": 5199410, "east": 600790, "north": 5199930, "crs": 32632}


def test_chunks_end_at_blocks(catalog: Catalog, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    whole = load(catalog, EDGES, bands=["B04", "SCL"])
    expected = whole.compute(scheduler="sync")
    monkeypatch.setattr(chunking, "CHUNK", 32)
    monkeypatch.setattr(chunking, "BLOCK", 16)
    pieces = load(catalog, EDGES, bands=["B04", "SCL"])
    first = {"x": (EDGES["west"] - 600000) // 10, "y": (5200000 - EDGES["north"]) // 10}
    for axis, name in ((3, "x"), (2, "y")):
        ends = first[name] + np.cumsum(pieces.data.chunks[axis])
        assert len(ends) > 1
        assert (ends[:-1] % 16 == 0).all()
    assert whole.data.numblocks[2:] == (1, 1)
    computed = pieces.compute(scheduler="sync")
    assert computed.identical(expected)


def test_only_chunks_that_are_needed_count_for_limits(
    catalog: Catalog,
    two: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "CHUNK", 48)
    monkeypatch.setattr(chunking, "BLOCK", 16)
    monkeypatch.setattr(chunking, "SPARSE_CHUNKS", (16,))
    corners = (Box(600000, 5199970, 600020, 5199990, 32632), Box(600760, 5199410, 600790, 5199430, 32632))

    def run(demand: Demand, load_bytes: int) -> xr.DataArray:
        env = Environment(catalog, limits=RunLimits(load_bytes), demand=demand)
        return load_collection("tiny_s2", None, None, env=env)

    assert run(Demand(boxes=corners), 10_000).nbytes > 20_000
    with pytest.raises(ProcessGraphComplexity, match="80 x 60 pixels, 4 bands"):
        run(Demand(), 10_000)
    with pytest.raises(ProcessGraphComplexity, match=r"pixels \(10% of them\)"):
        run(Demand(boxes=corners), 5_000)


def grid(column: int, row: int, width: int, height: int, size: float = 10) -> GeoBox:
    transform = Affine(size, 0, 600000, 0, -size, 5200000) @ Affine.translation(column, row)
    return GeoBox((height, width), transform, "EPSG:32632")


class _Scene:
    grids = {"default": grid(0, 0, 10980, 10980)}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (grid(0, 0, 10980, 10980), (0, 0)),
        (grid(1500, 100, 3000, 3000), (100, 1500 - 1024)),
        (grid(1500, 100, 3000, 2000), (0, 1500 - 1024)),
        (grid(-100, 0, 3000, 3000), (0, 1024 - 100)),
        (grid(7, 7, 3000, 3000, size=20), (0, 0)),
    ],
)
def test_pixels_before_a_grid(part: GeoBox, expected: tuple[int, int]) -> None:
    scenes: Any = [_Scene()]
    assert chunking.find_block_offset(part, scenes) == expected


def test_a_continent_over_ten_years_is_refused_by_its_numbers() -> None:
    continent = Volume("s2", 500_000, 400_000, 400_000, 3650, 4, 2)
    with pytest.raises(ProcessGraphComplexity, match=r"3650 dates: .* GB, and .* coarser resolution"):
        check_volume(continent, [], RunLimits())
    with pytest.raises(ProcessGraphComplexity, match="pieces of files, and 500,000 may be read"):
        check_volume(continent, [], RunLimits(load_bytes=2**70))
