"""Each process that the service lists, run through ``POST /result`` of the running stack.

Processes with published examples of JSON values run these; the table has a small graph for each of the
others. Values are tested elsewhere: here it counts that a process works from request to answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import openeo
import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.indexing.samples import DEM_PRODUCT, S2_PRODUCT
from odc_openeo.registry.process import PROCESSES
from tests.clients.test_external import write_item
from tests.conformance.comparison import difference
from tests.conftest import Site
from tests.support.graphs import child, value

WEST, SOUTH = 680000.0, 5151500.0
SIDE = 10
DATES = ["2022-06-01", "2022-06-20"]
"""Three acquisitions."""
WAVE = ["B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12"]


def node(id_: str) -> dict[str, str]:
    return {"from_node": id_}


def extent(side: float = SIDE * 10) -> dict[str, Any]:
    edges = {"west": WEST, "south": SOUTH, "east": WEST + side, "north": SOUTH + side}
    return {**edges, "crs": 32632}


def square(west: float, south: float, side: float) -> dict[str, Any]:
    ring = [(west, south), (west + side, south), (west + side, south + side), (west, south + side)]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def sites() -> dict[str, Any]:
    """Two fields in the box with a number to learn."""
    places = [(square(WEST + 5, SOUTH + 5, 30), 1), (square(WEST + 45, SOUTH + 45, 40), 2)]
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
        "features": [
            {"type": "Feature", "geometry": shape, "properties": {"target": target}}
            for shape, target in places
        ],
    }


LINE = {
    "process_graph": {
        "a": {"process_id": "array_element", "arguments": {"data": value("parameters"), "index": 0}},
        "b": {"process_id": "array_element", "arguments": {"data": value("parameters"), "index": 1}},
        "bx": {"process_id": "multiply", "arguments": {"x": node("b"), "y": value("x")}},
        "y": {"process_id": "add", "arguments": {"x": node("a"), "y": node("bx")}, "result": True},
    }
}
MEAN = child("mean", data=value("data"))

SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "load": (
        "load_collection",
        {"id": S2_PRODUCT, "spatial_extent": extent(), "temporal_extent": DATES, "bands": ["B04", "B08"]},
    ),
    "red": ("filter_bands", {"data": node("load"), "bands": ["B04"]}),
    "image": ("reduce_dimension", {"data": node("load"), "dimension": "t", "reducer": MEAN}),
    "gray": ("reduce_dimension", {"data": node("image"), "dimension": "bands", "reducer": MEAN}),
    "bright": ("apply", {"data": node("gray"), "process": child("gt", x=value("x"), y=1500)}),
    "dem": (
        "load_collection",
        {"id": DEM_PRODUCT, "spatial_extent": extent(300), "temporal_extent": None},
    ),
    "sites": ("load_geojson", {"data": sites(), "properties": ["target"]}),
    "geographic": ("vector_reproject", {"data": node("sites"), "projection": 4326}),
    "table": ("aggregate_spatial", {"data": node("image"), "geometries": node("sites"), "reducer": MEAN}),
    "forest": (
        "fit_class_random_forest",
        {"predictors": node("table"), "target": sites(), "num_trees": 3, "seed": 1},
    ),
    "tall": (
        "flatten_dimensions",
        {"data": node("load"), "dimensions": ["t", "bands"], "target_dimension": "v"},
    ),
    "years": (
        "aggregate_temporal",
        {
            "data": node("load"),
            "intervals": [DATES, DATES],
            "labels": ["2021-06", "2022-06"],
            "reducer": MEAN,
        },
    ),
    "normals": (
        "climatological_normal",
        {"data": node("years"), "period": "month", "climatology_period": [2021, 2022]},
    ),
    "ten": (
        "apply_dimension",
        {
            "data": node("red"),
            "dimension": "bands",
            "process": {
                "process_graph": {
                    "one": {"process_id": "array_element", "arguments": {"data": value("data"), "index": 0}},
                    "r": {"process_id": "multiply", "arguments": {"x": node("one"), "y": 0.0001}},
                    "all": {
                        "process_id": "array_create",
                        "arguments": {"data": [node("r")] * 10},
                        "result": True,
                    },
                }
            },
        },
    ),
    "bands": ("rename_labels", {"data": node("ten"), "dimension": "bands", "target": WAVE}),
    "line": (
        "apply_dimension",
        {
            "data": node("load"),
            "dimension": "t",
            "target_dimension": "p",
            "process": child("fit_curve", data=value("data"), parameters=[1, 1], function=LINE),
        },
    ),
    "single": ("add_dimension", {"data": node("gray"), "name": "z", "label": "here"}),
}

OF = {"data": node("load")}
IN_PIXELS = {"x": SIDE, "y": SIDE}
ALL = {"t": 3, "bands": 2, **IN_PIXELS}

Row = tuple[dict[str, Any], Mapping[str, int] | None]
"""Arguments, and the size of each dimension of the resulting cube (None: what it is, is not checked)."""

TABLE: dict[str, Row] = {
    "resample_spatial": ({**OF, "resolution": 20}, {**ALL, "x": 5, "y": 5}),
    "resample_cube_spatial": ({"data": node("load"), "target": node("gray")}, ALL),
    "create_data_cube": ({}, {}),
    "add_dimension": (SHARED["single"][1], {**IN_PIXELS, "z": 1}),
    "drop_dimension": ({"data": node("red"), "name": "bands"}, {"t": 3, **IN_PIXELS}),
    "rename_dimension": ({**OF, "source": "t", "target": "time"}, {"time": 3, "bands": 2, **IN_PIXELS}),
    "rename_labels": (
        {**OF, "dimension": "bands", "source": ["B04", "B08"], "target": ["red", "nir"]},
        ALL,
    ),
    "dimension_labels": ({**OF, "dimension": "bands"}, None),
    "trim_cube": (OF, ALL),
    "flatten_dimensions": (SHARED["tall"][1], {"v": 6, **IN_PIXELS}),
    "unflatten_dimension": (
        {"data": node("tall"), "dimension": "v", "target_dimensions": ["t", "bands"]},
        ALL,
    ),
    "filter_bands": ({**OF, "bands": ["B08"]}, {**ALL, "bands": 1}),
    "filter_bbox": ({**OF, "extent": extent(40)}, {**ALL, "x": 4, "y": 4}),
    "filter_temporal": ({**OF, "extent": ["2022-06-01", "2022-06-03"]}, {**ALL, "t": 1}),
    "filter_labels": (
        {**OF, "dimension": "bands", "condition": child("eq", x=value("value"), y="B08")},
        {**ALL, "bands": 1},
    ),
    "apply": ({**OF, "process": child("absolute", x=value("x"))}, ALL),
    "apply_dimension": ({**OF, "dimension": "t", "process": child("sort", data=value("data"))}, ALL),
    "reduce_dimension": (SHARED["image"][1], {"bands": 2, **IN_PIXELS}),
    "reduce_spatial": ({**OF, "reducer": MEAN}, {"t": 3, "bands": 2}),
    "climatological_normal": (SHARED["normals"][1], {**ALL, "t": None}),
    "anomaly": (
        {"data": node("years"), "normals": node("normals"), "period": "month"},
        {**ALL, "t": 2},
    ),
    "cloud_detection": ({"data": node("bands"), "method": "s2cloudless"}, {**ALL, "bands": 1}),
    "filter_spatial": ({**OF, "geometries": node("sites")}, {"t": 3, "bands": 2}),
    "mask_polygon": ({**OF, "mask": node("sites")}, ALL),
    "filter_vector": ({"data": node("table"), "geometries": node("sites")}, None),
    "apply_polygon": (
        {**OF, "geometries": node("sites"), "process": child("add", x=value("data"), y=1)},
        None,
    ),
    "chunk_polygon": (
        {**OF, "chunks": node("sites"), "process": child("add", x=value("data"), y=1)},
        None,
    ),
    "load_collection": (SHARED["load"][1], ALL),
    "save_result": ({**OF, "format": "JSON"}, None),
    "ndvi": (OF, {"t": 3, **IN_PIXELS}),
    "apply_kernel": ({**OF, "kernel": [[1, 1, 1]] * 3, "factor": 1 / 9}, ALL),
    "aggregate_spatial_window": ({**OF, "reducer": MEAN, "size": [5, 5]}, {**ALL, "x": 2, "y": 2}),
    "fit_regr_random_forest": ({**SHARED["forest"][1]}, None),
    "mask": ({"data": node("gray"), "mask": node("bright")}, IN_PIXELS),
    "merge_cubes": (
        {
            "cube1": node("load"),
            "cube2": node("red"),
            "overlap_resolver": child("max", data=[value("x"), value("y")]),
        },
        ALL,
    ),  # fmt: skip
    "apply_neighborhood": (
        {
            **OF,
            "process": child("add", x=value("data"), y=1),
            "size": [{"dimension": d, "value": 4, "unit": "px"} for d in ("x", "y")],
        },
        None,
    ),
    "load_geojson": (SHARED["sites"][1], None),
    "load_uploaded_files": ({"paths": ["every/sites.geojson"], "format": "GeoJSON"}, None),
    "load_stac": ({"url": "site"}, {"t": 1, "bands": 1, "y": 40, "x": 50}),
    "load_url": ({"url": "sites", "format": "GeoJSON"}, None),
    "vector_buffer": ({"geometries": node("sites"), "distance": 10}, None),
    "vector_reproject": (SHARED["geographic"][1], None),
    "vector_to_random_points": ({"data": node("sites"), "geometry_count": 3, "seed": 1}, None),
    "vector_to_regular_points": ({"data": node("sites"), "distance": 10}, None),
    "vector_to_raster": ({"data": node("sites"), "target": node("gray")}, {"properties": 1, **IN_PIXELS}),
    "raster_to_vector": ({"data": node("bright")}, None),
    "predict_curve": (
        {"parameters": node("line"), "function": LINE, "dimension": "t", "labels": ["2022-07-01"]},
        {**ALL, "t": 1},
    ),
    "aggregate_temporal": ({**OF, "intervals": [DATES], "reducer": MEAN}, {**ALL, "t": 1}),
    "aggregate_temporal_period": ({**OF, "period": "month", "reducer": MEAN}, {**ALL, "t": 1}),
    "resample_cube_temporal": ({**OF, "target": node("red")}, ALL),
    "slope": ({"data": node("dem")}, None),
    "aspect": ({"data": node("dem")}, None),
    "aggregate_spatial": (SHARED["table"][1], {"geometry": 2, "bands": 2}),
    "predict_random_forest": ({"data": [1000, 2000], "model": node("forest")}, None),
    "to_scl_dilation_mask": ({**OF, "scl_band_name": "B04"}, {**ALL, "bands": 1}),
    "mask_scl_dilation": ({**OF, "scl_band_name": "B04"}, ALL),
    "convert_data_type": ({**OF, "data_type": "uint8"}, ALL),
    "array_create_labeled": ({"data": [1, 2], "labels": ["a", "b"]}, None),
    "nan": ({}, None),
}
THROUGH_A_JOB = {"fit_class_random_forest", "save_ml_model", "load_ml_model", "load_result",
                 "export_workspace", "export_collection"}  # fmt: skip
USER_CODE = {"run_udf"}
"""Processes that `test_udf.py` runs, where a sandbox can be closed."""
PLAIN = {"save_result", "dimension_labels", "array_create_labeled", "nan", "predict_random_forest",
         "fit_regr_random_forest"}  # fmt: skip
"""Processes that give no cube, but JSON."""
VECTORS = {"load_geojson", "load_uploaded_files", "load_url", "vector_buffer", "vector_reproject",
           "vector_to_random_points", "vector_to_regular_points", "raster_to_vector",
           "filter_vector"}  # fmt: skip


def references(argument: Any) -> Iterator[str]:
    if isinstance(argument, Mapping):
        if set(argument) == {"from_node"}:
            yield argument["from_node"]
        elif "process_graph" not in argument:
            for item in argument.values():
                yield from references(item)
    elif isinstance(argument, list):
        for item in argument:
            yield from references(item)


def graph_of(process_id: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The process on top of the shared nodes that it needs."""
    nodes: dict[str, Any] = {"it": {"process_id": process_id, "arguments": dict(arguments), "result": True}}
    waiting = list(references(arguments))
    while waiting:
        name = waiting.pop()
        if name not in nodes:
            shared, given = SHARED[name]
            nodes[name] = {"process_id": shared, "arguments": given}
            waiting += references(given)
    return nodes


def saved(nodes: dict[str, Any], format_: str) -> dict[str, Any]:
    """The graph with its result saved in a format."""
    inner = {k: v for k, v in nodes["it"].items() if k != "result"}
    end = {"process_id": "save_result", "arguments": {"data": node("it"), "format": format_}, "result": True}
    return {**nodes, "it": inner, "save": end}


def test_every_listed_process_is_tested(connection: openeo.Connection) -> None:
    listed = {process["id"] for process in connection.get("/processes").json()["processes"]}
    with_examples = {id_ for id_, process in PROCESSES.items() if process.examples}
    assert listed - with_examples - TABLE.keys() - THROUGH_A_JOB - USER_CODE == set()


WITH_EXAMPLES = sorted(id_ for id_, process in PROCESSES.items() if process.examples)
BATCH = 20


@pytest.mark.parametrize("start", range(0, len(WITH_EXAMPLES), BATCH))
def test_examples_over_http_give_published_results(connection: openeo.Connection, start: int) -> None:
    """One request evaluates the first example of each of many processes; all are checked in-process too."""
    examples = {id_: PROCESSES[id_].examples[0] for id_ in WITH_EXAMPLES[start : start + BATCH]}
    nodes: dict[str, Any] = {
        id_: {"process_id": id_, "arguments": dict(example.arguments)} for id_, example in examples.items()
    }
    results = {"data": [node(id_) for id_ in examples]}
    nodes["results"] = {"process_id": "array_create", "arguments": results, "result": True}
    response = connection.post("/result", json={"process": {"process_graph": nodes}}).json()
    differences = {
        id_: difference(result, _as_json(example.returns), 1e-9)
        for (id_, example), result in zip(examples.items(), response, strict=True)
    }
    assert differences == dict.fromkeys(examples)


def _as_json(expected: Any) -> Any:
    """JSON has no NaN and no infinities."""
    if isinstance(expected, float) and not math.isfinite(expected):
        return None
    return [_as_json(v) for v in expected] if isinstance(expected, list) else expected


@pytest.mark.parametrize("process_id", sorted(TABLE))
def test_graph_of_each_process_over_http_gives_expected_dimensions(
    connection: openeo.Connection, site: Site, process_id: str
) -> None:
    arguments, sizes = TABLE[process_id]
    nodes = graph_of(process_id, arguments)
    if process_id == "fit_regr_random_forest":
        nodes["model"] = {k: v for k, v in nodes["it"].items() if k != "result"}
        nodes["it"] = {"process_id": "predict_random_forest", "result": True,
                       "arguments": {"data": [1000, 2000], "model": node("model")}}  # fmt: skip
    if process_id == "load_uploaded_files":
        connection.put("/files/every/sites.geojson", json=sites())
    if process_id == "load_url":
        (site.folder / "sites.geojson").write_text(json.dumps(sites()))
        nodes["it"]["arguments"]["url"] = f"{site.root}/sites.geojson"
    if process_id == "load_stac":
        write_item(site.folder, "a")
        nodes["it"]["arguments"]["url"] = f"{site.root}/a.json"
    if process_id not in PLAIN:
        nodes = saved(nodes, "GeoJSON" if process_id in VECTORS else "JSON")
    answer = connection.post("/result", json={"process": {"process_graph": nodes}}).json()
    if process_id in VECTORS:
        assert answer["type"] == "FeatureCollection"
        assert answer["features"]
        west = _first_number(answer["features"][0]["geometry"]["coordinates"])
        assert 11.3 < west < 11.4
    if sizes is not None:
        result = dict(zip(answer["dims"], _shape(answer["data"]), strict=True))
        assert {k: n for k, n in result.items() if sizes.get(k) is not None} == {
            k: n for k, n in sizes.items() if n is not None
        }


def _first_number(coordinates: Any) -> float:
    return _first_number(coordinates[0]) if isinstance(coordinates, list) else coordinates


def _shape(data: Any) -> list[int]:
    return [len(data), *_shape(data[0])] if isinstance(data, list) and data else []


def test_a_forest_is_saved_by_a_job_and_used(connection: openeo.Connection) -> None:
    nodes = graph_of("save_ml_model", {"data": node("forest")})
    job = connection.create_job(nodes)
    job.start_and_wait(print=lambda _: None, max_poll_interval=0.5)
    load = {"process_id": "load_ml_model", "arguments": {"id": job.job_id}}
    predict = {
        "process_id": "reduce_dimension",
        "arguments": {
            "data": node("image"),
            "dimension": "bands",
            "reducer": child("predict_random_forest", data=value("data"), model=value("context")),
            "context": node("model"),
        },
        "result": True,
    }
    nodes = {**graph_of("trim_cube", {"data": node("image")}), "model": load, "it": predict}
    answer = connection.post("/result", json={"process": {"process_graph": saved(nodes, "JSON")}}).json()
    assert {v for row in answer["data"] for v in row} <= {1, 2}
