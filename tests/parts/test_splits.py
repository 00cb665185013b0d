"""How jobs split: over pixels, geometries, dates and in two stages; what does not split says why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import OpenEOError
from odc_openeo.load import chunking
from odc_openeo.parts import JobSplit, PartLimits, combine_parts, evaluate_part, plan_parts
from odc_openeo.parts.measure import measure_part, measure_value
from odc_openeo.parts.obstacles import explain_whole, is_load, takes_raster
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES
from tests.graph.test_equivalence import assert_same
from tests.parts.comparison import check_part, choose_parts, make_case
from tests.support.graphs import child

DATA = {"from_parameter": "data"}
TINY = PartLimits(side=16, labels=1, block=8, most_repeats=math.inf)


def make_graph(*steps: tuple[str, dict[str, Any]], bands: Any = ("B04", "B08")) -> dict[str, Any]:
    """A chain of processes on the tiny scenes."""
    extents = {"spatial_extent": None, "temporal_extent": None}
    nodes: dict[str, Any] = {
        "load": {
            "process_id": "load_collection",
            "arguments": {"id": "tiny_s2", **extents, "bands": list(bands)},
        }
    }
    last = "load"
    for number, (process_id, arguments) in enumerate(steps):
        id_ = f"{process_id}{number}"
        nodes[id_] = {"process_id": process_id, "arguments": {"data": {"from_node": last}, **arguments}}
        last = id_
    nodes[last]["result"] = True
    return {"process_graph": nodes}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads in chunks of 16 pixels."""
    monkeypatch.setattr(chunking, "CHUNK", 16)
    monkeypatch.setattr(chunking, "BLOCK", 16)


def test_each_process_of_pixels_says_how_it_splits() -> None:
    silent = [
        process.id
        for process in PROCESSES.values()
        if takes_raster(process) and process.makes_raster and not is_load(process)
        if process.needs is None and process.whole_because is None
    ]
    assert not silent
    assert explain_whole(PROCESSES["fit_class_random_forest"])
    assert explain_whole(PROCESSES["apply_kernel"]) is None


FAR = {"west": 10_000, "south": 10_000, "east": 10_100, "north": 10_100, "crs": 32632}
MEANS = {"reducer": child("mean", data=DATA)}
POLYGON = {"type": "Polygon", "coordinates": [[[10.3, 46.9], [10.31, 46.9], [10.31, 46.95], [10.3, 46.9]]]}


@pytest.mark.parametrize(
    "filters",
    [
        [("filter_temporal", {"extent": ["1990-01-01", "1991-01-01"]})],
        [("filter_bbox", {"extent": FAR})],
        [("filter_bbox", {"extent": FAR}), ("filter_temporal", {"extent": ["1990-01-01", "1991-01-01"]})],
    ],
)
@pytest.mark.parametrize(
    "last",
    [
        [],
        [("ndvi", {"nir": "B08", "red": "B04"})],
        [("reduce_dimension", {**MEANS, "dimension": "t"})],
        [("reduce_spatial", MEANS)],
        [("aggregate_spatial", {**MEANS, "geometries": POLYGON})],
        [("aggregate_spatial", {**MEANS, "geometries": {"type": "FeatureCollection", "features": []}})],
    ],
)
def test_nothing_is_one_part(tiny: Any, filters: list[Any], last: list[Any]) -> None:
    try:
        case = make_case(tiny, make_graph(*filters, *last), {}, TINY)
    except OpenEOError:
        return
    values = [check_part(case, part) for part in case.split.parts]
    assert_same(values[0] if len(values) == 1 else combine_parts(case.split, values), case.whole)


@pytest.mark.parametrize("reducer", ["mean", "sum", "min", "max", "count"])
@pytest.mark.parametrize("kept", ["bands and dates", "dates"])
def test_reductions_of_all_pixels_take_two_stages(tiny: Any, reducer: str, kept: str) -> None:
    steps = [("ndvi", {"nir": "B08", "red": "B04"})] if kept == "dates" else []
    process = make_graph(*steps, ("reduce_spatial", {"reducer": child(reducer, data=DATA)}))
    case = make_case(tiny, process, {}, replace(TINY, side=40))
    assert case.split.kind == "stages"
    assert len(case.split.parts) > 4
    combined = combine_parts(case.split, [check_part(case, part) for part in case.split.parts])
    assert combined.dtype == case.whole.dtype
    assert_same(combined, case.whole)


def test_statistics_of_geometries_split_over_them(tiny: Any) -> None:
    corners = [(10.3115 + 0.0015 * i, 46.939 + 0.0009 * (i % 3)) for i in range(5)]
    polygons = [
        {
            "type": "Feature",
            "properties": {"number": i},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + 0.001, y], [x, y + 0.001], [x, y]]],
            },
        }
        for i, (x, y) in enumerate(corners)
    ]
    features = {"type": "FeatureCollection", "features": polygons}
    process = make_graph(("aggregate_spatial", {"geometries": features, "reducer": child("mean", data=DATA)}))
    case = make_case(tiny, process, {}, TINY)
    assert case.split.kind == "geometries"
    assert [part.geometries for part in case.split.parts] == [(i, i + 1) for i in range(5)]
    combined = combine_parts(case.split, [check_part(case, part) for part in case.split.parts])
    np.testing.assert_allclose(combined.values, case.whole.values)
    assert combined.coords["number"].values.tolist() == [0, 1, 2, 3, 4]


def test_parts_read_little_more_than_their_pixels(tiny: Any) -> None:
    process = make_graph(("apply_kernel", {"kernel": [[1, 2, 1]] * 3}), ("save_result", {"format": "netCDF"}))
    env = Environment(tiny)
    split = plan_parts(process, env, TINY)
    assert (split.kind, split.reason) == ("space", None)
    whole = measure_part(process, env, split.template, split.parts[0])
    assert whole.input_bytes < split.input_bytes / 2
    _, (output,) = evaluate_part(process, env, split, split.parts[0])
    assert output.format.name == "netCDF"
    assert measure_value(output.data).tasks == whole.tasks
    assert dask.compute(output.data)[0].shape[-2:] == split.parts[0].window.shape


def test_parts_stay_within_the_limit_of_tasks(tiny: Any) -> None:
    process = make_graph(("ndvi", {"nir": "B08", "red": "B04"}))
    env = Environment(tiny)
    limits = PartLimits(tasks=150, block=8, most_repeats=math.inf)
    split = plan_parts(process, env, limits)
    assert split.kind == "space"
    for part in split.parts:
        value, _ = evaluate_part(process, env, split, part)
        assert measure_value(value).tasks <= limits.tasks


def test_parts_stay_within_the_memory_of_workers(tiny: Any) -> None:
    threads = 3
    process = make_graph(
        ("ndvi", {"nir": "B08", "red": "B04"}),
        ("reduce_dimension", {"dimension": "t", "reducer": child("median", data=DATA)}),
    )
    env = Environment(tiny)
    assert plan_parts(process, env, PartLimits(block=8, most_repeats=math.inf)).is_whole
    limits = PartLimits(worker_bytes=2_500 * (1 + threads), worker_threads=threads, block=8)
    case = make_case(tiny, process, {}, replace(limits, most_repeats=math.inf))
    assert (case.split.kind, case.split.reason) == ("space", None)
    for part in choose_parts(case.split, 6):
        size = measure_part(process, env, case.split.template, part, threads=threads)
        assert size.worker_bytes <= limits.worker_bytes
        check_part(case, part)


def test_dates_split_where_there_are_no_pixels(tiny: Any) -> None:
    process = make_graph(("reduce_spatial", {"reducer": child("median", data=DATA)}))
    case = make_case(tiny, process, {}, TINY)
    assert case.split.kind == "time"
    combined = combine_parts(case.split, [check_part(case, part) for part in case.split.parts])
    assert_same(combined, case.whole)


RANDOM_POINTS = {
    "process_id": "vector_to_random_points",
    "arguments": {
        "data": {
            "type": "Polygon",
            "coordinates": [[[10.312, 46.939], [10.316, 46.939], [10.312, 46.94], [10.312, 46.939]]],
        },
        "geometry_count": 3,
    },
}


def _sample_randomly() -> dict[str, Any]:
    geometries = {"geometries": {"from_node": "points"}, "reducer": child("mean", data=DATA)}
    process = make_graph(("aggregate_spatial", geometries))
    process["process_graph"]["points"] = RANDOM_POINTS
    return process


def _save_twice() -> dict[str, Any]:
    process = make_graph(("save_result", {"format": "GTiff"}))
    process["process_graph"]["again"] = {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": "load"}, "format": "netCDF"},
    }
    return process


@pytest.mark.parametrize(
    ("process", "reason"),
    [
        (_sample_randomly(), "random points differ"),
        (_save_twice(), "several results"),
        (make_graph(("reduce_dimension", {"dimension": "x", "reducer": child("median", data=DATA)}),
                    ("reduce_dimension", {"dimension": "y", "reducer": child("median", data=DATA)}),
                    ("reduce_dimension", {"dimension": "t", "reducer": child("median", data=DATA)})),
         "no pixels, geometries or dates"),
    ],
    ids=["random points", "two results", "one value of each band"],
)  # fmt: skip
def test_what_does_not_split_says_why(tiny: Any, process: dict[str, Any], reason: str) -> None:
    split = plan_parts(process, Environment(tiny), TINY)
    assert split.is_whole
    assert reason in (split.reason or "")
    assert len(split.parts) == 1


def test_small_jobs_stay_whole_without_a_reason(tiny: Any) -> None:
    split = plan_parts(make_graph(("save_result", {"format": "GTiff"})), Environment(tiny))
    assert (split.kind, split.reason, len(split.parts)) == ("whole", None, 1)
    assert split.template.format == "GTiff"
    assert split.template.labels["bands"] == ["B04", "B08"]
    assert JobSplit.from_dict(split.to_dict()) == split
