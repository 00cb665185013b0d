"""The graph of a load: one task per chunk, with a name that is equal for equal pixels only."""

from __future__ import annotations

import pickle
from itertools import product as combine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_openeo.catalog import Catalog, Query
from odc_openeo.load import build, chunking
from odc_openeo.load.chunking import cut_into_chunks
from tests.catalog.scenes import FINE, Index, scene
from tests.load.test_load_collection import load, read, two  # noqa: F401  (a fixture)

EDGES = {"west": 600050, "south": 5199410, "east": 600790, "north": 5199930, "crs": 32632}


def list_tasks(data: xr.DataArray) -> list[Any]:
    (layer,) = data.data.dask.layers.values()
    return list(layer.items())


def test_each_chunk_is_one_task_that_can_be_sent(
    catalog: Catalog,
    two: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "CHUNK", 32)
    monkeypatch.setattr(chunking, "BLOCK", 16)
    data = load(catalog, EDGES, bands=["B04", "SCL"])
    tasks = dict(list_tasks(data))
    name = data.data.name
    assert tasks.keys() == {(name, *index) for index in np.ndindex(data.data.numblocks)}
    assert len(tasks) > 8
    for (_, *index), task in tasks.items():
        assert not task.dependencies
        values = pickle.loads(pickle.dumps(task))()
        np.testing.assert_array_equal(values, data.data.blocks[tuple(index)].compute(scheduler="sync"))


def test_names_are_equal_for_equal_loads_only(catalog: Catalog, two: Path, index: Index) -> None:  # noqa: F811
    def name_load(**changes: Any) -> str:
        return str(load(catalog, **{"box": EDGES, "bands": ["B04", "SCL"], **changes}).data.name)

    first = name_load()
    others = [
        name_load(bands=["SCL", "B04"]),
        name_load(bands=["B04"]),
        name_load(bands=["B08", "SCL"]),
        name_load(box={**EDGES, "west": EDGES["west"] + 10}),
        name_load(box={**EDGES, "east": EDGES["east"] - 10}),
        name_load(time=["2022-06-01", "2022-06-03"]),
        name_load(time=["2022-06-03", "2022-06-07"]),
    ]
    assert name_load() == first
    assert len({first, *others}) == 1 + len(others)
    index.add(scene(two / "c", 3, "2022-06-09T10:00:00Z"))
    assert name_load() != first


def test_names_tell_which_scenes_are_one_date(
    catalog: Catalog,
    two: Path,  # noqa: F811
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index.add(scene(two / "c", 3, "2022-06-06T10:00:00Z"))
    names = []
    for size in (1, 2):
        monkeypatch.setattr(
            build, "group_time_steps", lambda scenes, *_, size=size: [scenes[:size], scenes[size:]]
        )
        names.append(load(catalog, EDGES, bands=["B04"]).data.name)
    assert names[0] != names[1]


def test_later_scenes_fill_only_what_the_first_one_lacks(catalog: Catalog, index: Index, tmp_path: Path):
    time = "2022-06-01T10:00:00Z"
    index.add(scene(tmp_path / "a", 1, time), scene(tmp_path / "b", 2, time, left=FINE.left + 300))
    data = load(catalog, box=None, time=None, bands=["B04"])
    first, second = sorted((tmp_path / "a", tmp_path / "b"), key=lambda folder: _find_id(catalog, folder))
    expected = np.zeros(data.shape[-2:], data.dtype)
    for folder, left in ((second, _find_left(tmp_path, second)), (first, _find_left(tmp_path, first))):
        pixels = read(folder, "B04")
        window = expected[:, left : left + pixels.shape[1]]
        window[pixels != 0] = pixels[pixels != 0]
    np.testing.assert_array_equal(data.values[0, 0], expected)


def _find_left(tmp_path: Path, folder: Path) -> int:
    return 30 * (folder == tmp_path / "b")


def _find_id(catalog: Catalog, folder: Path) -> str:
    scenes = catalog.search_scenes("tiny_s2", Query())
    return next(s.id for s in scenes if s.files["B04"].href == str(folder / "B04.tif"))


@pytest.mark.parametrize(
    ("length", "side", "before"), list(combine((1, 31, 32, 33, 100), (16, 32), (0, 1, 15, 31, 40)))
)
def test_chunks_end_a_whole_number_of_sides_after_their_start(length: int, side: int, before: int) -> None:
    grid = GeoBox((length, 7), Affine(10, 0, 600000, 0, -10, 5200000), "EPSG:32632")
    volume = chunking.Volume("s2", 1, 7, length, 1, 1, 2, side=side)
    rows, columns = cut_into_chunks(grid, volume, (before, 0)).chunks
    assert sum(rows) == length
    assert columns == (7,)
    assert all(0 < rows_of_chunk <= side for rows_of_chunk in rows)
    assert all((end + before) % side == 0 for end in np.cumsum(rows)[:-1])
