"""What the graph needs reaches the loads, and the values are the same as without any planning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.catalog import Catalog
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.graph.evaluate import evaluate
from odc_openeo.process import Environment
from tests.load.test_load_collection import BOX, two  # noqa: F401  (a fixture)

Graph = dict[str, dict[str, Any]]


def node(process_id: str, source: str | None = "load", **arguments: Any) -> dict[str, Any]:
    data = {"data": {"from_node": source}} if source else {}
    return {"process_id": process_id, "arguments": {**data, **arguments}}


def child(process_id: str, **arguments: Any) -> dict[str, Any]:
    return {"process_graph": {"c": {"process_id": process_id, "arguments": arguments, "result": True}}}


X = {"from_parameter": "x"}
DATA = {"from_parameter": "data"}
LOAD = node("load_collection", None, id="tiny_s2", spatial_extent=None, temporal_extent=None)
HALF = {**BOX, "east": BOX["west"] + 50}
DEGREES = {"west": 10.301, "south": 46.941, "east": 10.302, "north": 46.9415}

GRAPHS: dict[str, Graph] = {
    "box": {"end": node("filter_bbox", extent=BOX)},
    "box in degrees": {"end": node("filter_bbox", extent=DEGREES)},
    "box outside": {"end": node("filter_bbox", extent={**BOX, "west": 700000, "east": 700100})},
    "two boxes": {"a": node("filter_bbox", extent=BOX), "end": node("filter_bbox", "a", extent=HALF)},
    "time": {"end": node("filter_temporal", extent=["2022-06-03", None])},
    "time without data": {"end": node("filter_temporal", extent=["2020-01-01", "2020-02-01"])},
    "bands": {"end": node("filter_bands", bands=["SCL", "B04"])},
    "bands by alias and common name": {"end": node("filter_bands", bands=["infrared"])},
    "after a mean over time": {
        "a": node("reduce_dimension", dimension="t", reducer=child("mean", data=DATA)),
        "end": node("filter_bbox", "a", extent=BOX),
    },
    "after a band": {
        "a": node("reduce_dimension", dimension="bands", reducer=child("array_element", data=DATA, index=1)),
        "end": node("filter_temporal", "a", extent=["2022-06-01", "2022-06-02"]),
    },
    "mask": {
        "scl": node("filter_bands", bands=["SCL"]),
        "flat": node("drop_dimension", "scl", name="bands"),
        "clouds": node("apply", "flat", process=child("gt", x=X, y=100)),
        "masked": node("mask", mask={"from_node": "clouds"}),
        "end": node("filter_bbox", "masked", extent=BOX),
    },
    "merged": {
        "a": node("filter_bands", bands=["B04"]),
        "b": node("filter_bands", bands=["B08"]),
        "m": {
            "process_id": "merge_cubes",
            "arguments": {"cube1": {"from_node": "a"}, "cube2": {"from_node": "b"}},
        },
        "end": node("filter_bbox", "m", extent=BOX),
    },
    "months": {
        "a": node("aggregate_temporal_period", period="month", reducer=child("max", data=DATA)),
        "end": node("filter_bbox", "a", extent=BOX),
    },
    "two consumers": {
        "a": node("filter_bbox", extent=HALF),
        "b": node("filter_temporal", extent=["2022-06-03", None]),
        "r": node("reduce_dimension", "b", dimension="t", reducer=child("max", data=DATA)),
        "end": {
            "process_id": "merge_cubes",
            "arguments": {
                "cube1": {"from_node": "a"},
                "cube2": {"from_node": "r"},
                "overlap_resolver": child("subtract", x=X, y={"from_parameter": "y"}),
            },
        },
    },
}


def run(catalog: Catalog, graph: Graph, *, plan: bool = True) -> xr.DataArray:
    nodes = {"load": LOAD, **graph}
    nodes["end"] = {**nodes["end"], "result": True}
    found = evaluate({"process_graph": nodes}, Environment(catalog), plan=plan)
    return found.compute(scheduler="threads")


@pytest.mark.parametrize("name", GRAPHS)
def test_values_are_the_same_without_a_plan(
    catalog: Catalog,
    two: Path,  # noqa: F811
    name: str,
) -> None:
    planned = run(catalog, GRAPHS[name])
    unplanned = run(catalog, GRAPHS[name], plan=False)
    xr.testing.assert_equal(planned.drop_attrs(), unplanned.drop_attrs())
    assert planned.dtype == unplanned.dtype
    assert planned.attrs.get("nodata") == unplanned.attrs.get("nodata")


def test_a_load_that_is_filtered_afterwards_is_not_refused(catalog: Catalog, two: Path) -> None:  # noqa: F811
    """The limit counts what is needed, not what the arguments of the load alone would give."""
    limited: Callable[[Graph], Any] = lambda graph: evaluate(  # noqa: E731
        {"process_graph": {"load": LOAD, **graph}},
        Environment(catalog, settings={"load_max_bytes": 20_000}),
    )
    with pytest.raises(ProcessGraphComplexity, match="80 x 60 pixels"):
        limited({"end": {**node("apply", process=child("absolute", x=X)), "result": True}})
    small = limited({"end": {**node("filter_bbox", extent=BOX), "result": True}})
    assert small.sizes["x"] == 10
