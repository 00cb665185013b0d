"""What a lazy result takes, against what is known of small dask graphs."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import pytest
import xarray as xr

from odc_openeo.catalog import Catalog
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.graph import evaluate
from odc_openeo.graph.estimate import Bounds, count_needed_bytes, count_read_bytes, estimate_computation
from odc_openeo.load import Volume
from odc_openeo.registry.environment import Environment, RunLimits
from tests.catalog.scenes import Index, scene

LOAD = Volume("s2", datasets=3, width=100, height=100, dates=3, bands=1, itemsize=8)


def cube() -> xr.DataArray:
    return xr.DataArray(da.zeros((3, 100, 100), chunks=(1, 50, 50)), dims=("t", "y", "x"))


def test_of_parts_only_the_chunks_they_need_count() -> None:
    data = cube()
    chunk = data.nbytes / 12
    assert count_needed_bytes(data) == data.nbytes
    assert count_needed_bytes((data + 1)[0, :50, :50]) == chunk
    assert count_needed_bytes((data + 1)[0, :50, :50], data[0, :, :10]) == 2 * chunk
    assert count_needed_bytes(3, "text") == 0


def test_numbers_of_a_mean_over_time() -> None:
    data = cube()
    mean = data.mean("t")
    estimate = estimate_computation([mean], [mean], [LOAD, LOAD], threads=2)
    assert estimate.datasets == 6
    assert estimate.pixels == 2 * 30_000
    assert estimate.input_bytes == data.nbytes == 240_000
    assert estimate.output_bytes == 80_000
    assert estimate.tasks >= 12 + 4
    chunk = 50 * 50 * 8
    assert 2 * 2 * chunk <= estimate.worker_bytes <= 2 * 6 * chunk


@pytest.mark.parametrize("threads", [1, 3])
def test_a_worker_holds_all_chunks_that_others_are_cut_from(threads: int) -> None:
    dates, side = 40, 100
    column = dates * side * side * 8
    sources = da.zeros((dates, 2 * side, 2 * side), chunks=(1, side, side))
    whole = sources.rechunk((dates, side, side // 5), method="tasks")
    estimate = estimate_computation([whole], [whole], [], threads)
    assert column * (1 + threads / 5) <= estimate.worker_bytes <= column * (1 + threads)


def test_of_an_array_with_large_chunks_only_those_needed_are_held() -> None:
    array = da.zeros((3, 1000, 1000), chunks=(1, (50, 950), (50, 950)))
    (small,) = dask.optimize((array + 1)[:, :50, :50])
    estimate = estimate_computation([small], [small], [], threads=1)
    assert estimate.worker_bytes <= 3 * 50 * 50 * 8


def test_shared_node_counts_once() -> None:
    data = cube()
    assert count_read_bytes([data + 1, data + 2]) == data.nbytes
    assert (
        estimate_computation([data + 1, data + 1], [], []).tasks
        < 2 * estimate_computation([data + 1], [], []).tasks
    )


def test_constants_cost_nothing() -> None:
    items = estimate_computation([3, "text"], [3], [])
    assert (items.input_bytes, items.tasks, items.worker_bytes) == (0, 0, 0)
    assert items.output_bytes > 0


def test_exceeded_limit_is_named() -> None:
    items = estimate_computation([cube()], [cube()], [])
    Bounds(items.input_bytes, items.tasks).check_estimate(items, "a test")
    with pytest.raises(
        ProcessGraphComplexity, match=r"reads about .* GiB, and a test may read .* smaller extent"
    ):
        Bounds(input_bytes=items.input_bytes - 1).check_estimate(items, "a test")
    with pytest.raises(ProcessGraphComplexity, match=f"takes {items.tasks} steps, and a test may take 11"):
        Bounds(tasks=11).check_estimate(items, "a test")


# --- Loads ---------------------------------------------------------------------------------------


def load(id_: str = "load", **arguments: Any) -> dict[str, Any]:
    given = {"id": "tiny_s2", "spatial_extent": None, "temporal_extent": None, **arguments}
    return {id_: {"process_id": "load_collection", "arguments": given}}


def end(source: str, **more: Any) -> dict[str, Any]:
    arguments = {"data": {"from_node": source}, "name": "new", "label": 1, **more}
    return {"end": {"process_id": "add_dimension", "arguments": arguments, "result": True}}


@pytest.fixture
def two(catalog: Catalog, index: Index, tmp_path: Any) -> Catalog:
    index.add(
        scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"), scene(tmp_path / "b", 2, "2022-06-05T10:00:00Z")
    )
    return catalog


def test_loads_report_bytes_read(two: Catalog) -> None:
    env = Environment(two)
    value = evaluate({"process_graph": load() | end("load")}, env)
    assert env.loads == [Volume("tiny_s2", 2, 80, 60, 2, 4, 2)]
    estimate = estimate_computation([value], [value], env.loads)
    assert (estimate.datasets, estimate.pixels) == (2, 80 * 60 * 2 * 4)
    assert estimate.output_bytes == value.nbytes


def test_loads_of_one_graph_count_together(two: Catalog) -> None:
    half = {"loaded": {"process_id": "merge_cubes", "arguments": {}}}
    first, second = load("one", bands=["B04"]), load("two", bands=["B08"])
    half["loaded"]["arguments"] = {"cube1": {"from_node": "one"}, "cube2": {"from_node": "two"}}
    graph = {"process_graph": first | second | half | end("loaded")}
    evaluate(graph, Environment(two, limits=RunLimits(load_bytes=2 * 80 * 60 * 2 * 2)))
    with pytest.raises(ProcessGraphComplexity, match="together with 1 loads before it"):
        evaluate(graph, Environment(two, limits=RunLimits(load_bytes=2 * 80 * 60 * 2 * 2 - 1)))


def test_a_sketch_has_the_form_of_the_cube(two: Catalog) -> None:
    graph = {"process_graph": load() | end("load")}
    whole, sketch = (
        evaluate(graph, Environment(two, limits=RunLimits(sketch_above_chunks=most))) for most in (None, 0)
    )
    xr.testing.assert_equal(whole.isel(x=slice(0, 0)), sketch.isel(x=slice(0, 0)))
    assert sketch.shape == whole.shape
    assert sketch.dtype == whole.dtype
    assert count_read_bytes([sketch]) == count_read_bytes([whole.copy()])
