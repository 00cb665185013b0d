"""The plan of a graph: what each load is told, without any data."""

from __future__ import annotations

from typing import Any

import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.graph.parse import parse_process
from odc_openeo.graph.plan import Plan, make_plan
from odc_openeo.load.request import select_subset
from odc_openeo.registry.demand import ALL, Demand, Grid, enclose_intervals, is_comparable
from odc_openeo.registry.process import PROCESSES
from odc_openeo.spatial.boxes import Box
from tests.support.graphs import child

DATA, X = ({"from_parameter": name} for name in ("data", "x"))
BOX = {"west": 1, "south": 2, "east": 3, "north": 4}
THERE = (Box(1, 2, 3, 4),)

WITHOUT_RULE = {
    "dimension_labels",
    "filter_vector",
    "fit_class_random_forest",
    "fit_regr_random_forest",
    "load_collection",
    "load_result",
    "load_stac",
    "raster_to_vector",
    "trim_cube",
    "vector_buffer",
    "vector_reproject",
    "vector_to_random_points",
    "vector_to_regular_points",
}
"""They look at everything they are given, or at geometries only."""


def test_processes_on_cubes_declare_their_demand() -> None:
    """A new process gets a rule, or its name into the list above."""
    without = {
        p.id
        for p in PROCESSES.values()
        if p.needs is None
        and any(s.get("subtype") == "datacube" for q in p.parameters.values() for s in q.alternatives)
    }
    assert without == WITHOUT_RULE


def node(process_id: str, of: str = "load", **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": {"data": {"from_node": of}, **arguments}}


def load(id_: str = "s2") -> dict[str, Any]:
    arguments = {"id": id_, "spatial_extent": None, "temporal_extent": None}
    return {"process_id": "load_collection", "arguments": arguments}


def plan(
    nodes: dict[str, Any], parameters: dict[str, Any] | None = None, stored: dict[str, Any] | None = None
) -> Plan:
    graph = {"load": load(), **nodes}
    graph["end"] = {**graph["end"], "result": True}
    result, errors = parse_process({"process_graph": graph}, lookup=lambda id_, _: (stored or {}).get(id_))
    assert result is not None
    assert errors == []
    return make_plan(result, parameters or {})


MEAN = child("mean", data=DATA)
PICK = child("array_element", data=DATA, label="B04")
COARSE = Grid("end", (100, 100), None, "upper-left")
EAST = node("filter_bbox", extent={**BOX, "west": 5, "east": 9})
LATER = node("filter_temporal", extent=["2022-02-01", None])
BEFORE = node("filter_temporal", extent=[None, "2021-01-01"])
THEN_BOX = node("filter_bbox", extent=BOX)
SINCE = node("filter_temporal", extent=["2022-01-01", None])
TWO = [["2022-01-01", "2022-02-01"], ["2022-03-01", "2022-04-01"]]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([node("filter_bbox", extent=BOX)], Demand(THERE, 2)),
        ([node("filter_bbox", extent={**BOX, "west": 2}), node("slope"), THEN_BOX],
         Demand((Box(2, 2, 3, 4),), 3)),
        ([EAST, THEN_BOX], Demand((Box(1, 2, 3, 4, limits=(Box(5, 2, 9, 4),)),), 2)),
        ([LATER, SINCE], Demand(interval=("2022-02-01", None))),
        ([BEFORE, SINCE], Demand(interval=(None, "2021-01-01"))),
        ([node("slope"), THEN_BOX], Demand(THERE, 3)),
        ([node("apply_kernel", kernel=[[1] * 7]), THEN_BOX], Demand(THERE, 5)),
        ([node("apply_kernel", kernel=[[1]], border="wrap"), THEN_BOX], ALL),
        ([node("aggregate_spatial_window", reducer=MEAN, size=[2, 2]), THEN_BOX], ALL),
        (
            [node("aggregate_temporal", intervals=TWO,
                  reducer=MEAN)],
            Demand(interval=("2022-01-01", "2022-04-01")),
        ),
        ([node("aggregate_temporal", intervals=[["06:00:00", "18:00:00"]], reducer=MEAN)], ALL),
        (
            [node("reduce_dimension", dimension="t", reducer=MEAN),
             node("add_dimension", name="t", label="2022-01-01", type="temporal"),
             SINCE],
            ALL,
        ),
        (
            [node("add_dimension", name="kind", label="a", type="bands"), node("filter_bands", bands=["a"])],
            ALL,
        ),
        ([node("rename_dimension", source="t", target="time"), SINCE],
         ALL),
        ([node("rename_labels", dimension="bands", source=["B04"], target=["red"]),
          node("filter_bands", bands=["red"])], ALL),
        ([node("ndvi", nir="B08", red="B04")], Demand(bands=("B08", "B04"))),
        ([node("ndvi", target_band="ndvi")], ALL),
        ([node("ndvi", target_band="i"), node("filter_bands", bands=["i", "B02"])],
         Demand(bands=("B02", "nir", "red"))),
        ([node("filter_bands", bands=["B04"], wavelengths=[[0.6, 0.7]])], ALL),
        ([node("reduce_dimension", dimension="bands", reducer=PICK)],
         Demand(bands=("B04",))),
        ([node("reduce_dimension", dimension="bands", reducer=child("array_element", data=DATA, index=0))],
         ALL),
        ([node("reduce_dimension", dimension="bands", reducer=MEAN)], ALL),
        ([node("apply_dimension", dimension="t", target_dimension="bands", process=child("sort", data=DATA)),
          node("filter_bands", bands=["B04"])], ALL),
        ([node("apply_polygon", geometries=[], process=child("absolute", x=DATA)),
          node("filter_bbox", extent=BOX)], ALL),
        ([node("resample_spatial", resolution=100)], Demand(grid=COARSE)),
        ([node("resample_spatial", resolution=100, method="average")], ALL),
        ([node("filter_bbox", extent=BOX), node("resample_spatial", resolution=100)], Demand(THERE, 2)),
        ([node("inspect"), THEN_BOX], ALL),
    ],
)  # fmt: skip
def test_load_receives_its_demand(steps: list[dict[str, Any]], expected: Demand) -> None:
    names = [*(f"n{i}" for i in range(len(steps) - 1)), "end"]
    sources = ["load", *names[:-1]]
    nodes = {
        name: {**step, "arguments": {**step["arguments"], "data": {"from_node": source}}}
        for name, source, step in zip(names, sources, steps, strict=True)
    }
    assert plan(nodes).get_demand("load") == expected


def test_unknown_arguments_do_not_narrow_demand() -> None:
    unknown = {"from_parameter": "where"}
    nodes = {"end": node("filter_bbox", extent=unknown)}
    assert plan(nodes, {"where": BOX}).get_demand("load") == Demand(THERE, 2)
    assert plan(nodes).get_demand("load") == ALL
    nodes = {"end": node("filter_temporal", extent=["2022-01-01", None], dimension={"from_parameter": "d"})}
    assert plan(nodes).get_demand("load") == ALL
    nodes = {"end": node("ndvi", nir={"from_parameter": "band"}, red="B04")}
    assert plan(nodes).get_demand("load") == ALL


def test_cubes_that_children_may_meet_are_needed_in_full() -> None:
    nodes = {
        "other": load("other"),
        "a": node(
            "apply",
            process=child("add", x=X, y={"from_parameter": "context"}),
            context={"from_node": "other"},
        ),
        "end": node("filter_bbox", "a", extent=BOX),
    }
    result = plan(nodes)
    assert result.get_demand("load") == result.get_demand("other") == ALL


def test_demands_go_through_stored_processes() -> None:
    inner = {
        "a": {
            "process_id": "filter_bands",
            "arguments": {"data": DATA, "bands": {"from_parameter": "names"}},
        },
        "b": {**node("slope", "a"), "result": True},
    }
    declared = [
        {"name": "data", "description": "", "schema": {}},
        {"name": "names", "description": "", "schema": {}, "optional": True, "default": ["B02"]},
    ]
    stored = {"own": {"process_graph": inner, "parameters": declared}}

    def plan_demand(**arguments: Any) -> Demand:
        nodes = {"o": node("own", **arguments), "end": node("filter_bbox", "o", extent=BOX)}
        return plan(nodes, stored=stored).get_demand("load")

    assert plan_demand(names=["B04"]) == Demand(THERE, 3, bands=("B04",))
    assert plan_demand() == Demand(THERE, 3, bands=("B02",))
    assert plan_demand(names={"from_parameter": "later"}) == Demand(THERE, 3)


def masked(**more: Any) -> dict[str, Any]:
    return {
        "other": load("other"),
        "m": node("mask", mask={"from_node": "other"}),
        "end": node("resample_spatial", "m", resolution=100),
        **more,
    }


def test_a_mask_follows_onto_the_grid_of_the_data() -> None:
    result = plan(masked())
    assert result.grid_leaders == {"other": "load"}
    assert result.get_demand("load").grid == Grid("end", (100, 100), None, "upper-left")
    needed_elsewhere = plan(masked(also=node("save_result", "other", format="GTiff")))
    assert needed_elsewhere.grid_leaders == {}
    assert needed_elsewhere.get_demand("other") == ALL
    without_leader = plan(masked(also=node("save_result", "load", format="GTiff")))
    assert without_leader.get_demand("load") == without_leader.get_demand("other") == ALL


def test_grid_is_not_taken_from_either_of_two_candidates() -> None:
    nodes = {
        "other": load("other"),
        "choice": {
            "process_id": "if",
            "arguments": {"value": True, "accept": {"from_node": "load"}, "reject": {"from_node": "other"}},
        },
        "end": node("resample_spatial", "choice", resolution=100),
    }
    assert plan(nodes).get_demand("load") == ALL


def test_margin_scales_with_pixel_size() -> None:
    nodes = {
        "other": load("other"),
        "m": node("mask", mask={"from_node": "other"}),
        "s": node("slope", "m"),
        "end": node("filter_bbox", "s", extent=BOX),
    }
    result = plan(nodes)
    assert result.get_demand("load") == Demand(THERE, 3)
    assert result.get_demand("other") == Demand(THERE, 5, elsewhere=3)
    assert select_subset(result.get_demand("load"), crop=True).boxes is not None
    assert select_subset(result.get_demand("other"), crop=True).boxes is None


def test_a_mask_from_the_same_load_is_on_the_same_grid() -> None:
    shifted = node("apply", process=child("add", x={"from_parameter": "x"}, y=1))
    nodes = {
        "marks": {**shifted, "arguments": {**shifted["arguments"], "data": {"from_node": "load"}}},
        "m": node("mask", mask={"from_node": "marks"}),
        "s": node("slope", "m"),
        "end": node("filter_bbox", "s", extent=BOX),
    }
    assert plan(nodes).get_demand("load") == Demand(THERE, 5)
    stored = {"own": {"process_graph": {"l": {**load("other"), "result": True}}}}
    nodes["marks"] = {"process_id": "own", "arguments": {}}
    assert plan(nodes, stored=stored).get_demand("load") == Demand(THERE, 3)


def test_intervals_are_compared_and_enclosed() -> None:
    assert is_comparable(["2022-01-01", None])
    assert is_comparable(("2022-01-01T00:00:00Z", "2022-01-02T00:00:00Z"))
    for wrong in ("2022", ["2022-01-01"], ["2022-01-01", "2022-01-01T00:00:00Z"], [1, 2], ["06:00:00", None]):
        assert not is_comparable(wrong)
    assert enclose_intervals([["2022-01-05", "2022-01-06"], ["2022-01-01", "2022-01-02"]]) == (
        "2022-01-01",
        "2022-01-06",
    )
    assert enclose_intervals([["2022-01-05", None], ["2022-01-01", "2022-01-02"]]) == ("2022-01-01", None)
    assert enclose_intervals([["2022-01-05", None], ["06:00:00", "07:00:00"]]) is None
    assert enclose_intervals([]) is None


USER_CODE = child("run_udf", data={"from_parameter": "x"}, udf="a\nb", runtime="Python")


@pytest.mark.parametrize(
    ("process", "bands"), [(USER_CODE, None), (child("absolute", x={"from_parameter": "x"}), ("B04",))]
)
def test_user_code_gets_all_bands(process: Any, bands: Any) -> None:
    steps = {
        "apply": node("apply", process=process),
        "box": node("filter_bbox", "apply", extent=BOX),
        "end": node("filter_bands", "box", bands=["B04"]),
    }
    assert plan(steps).get_demand("load") == Demand(THERE, 2, bands=bands)


def test_user_code_in_a_stored_process_gets_all_bands() -> None:
    inner = {"run": {**USER_CODE["process_graph"]["it"]}}
    stored = {"mine": {"id": "mine", "process_graph": inner, "parameters": [{"name": "x", "schema": {}}]}}
    process = child("mine", x={"from_parameter": "x"})
    steps = {
        "apply": node("apply", process=process),
        "end": node("filter_bands", "apply", bands=["B04"]),
    }
    assert plan(steps, stored=stored).get_demand("load").bands is None
