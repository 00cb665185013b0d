"""Validation tells what running would tell, without reading a pixel or fetching a file."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import openeo
import pytest
import requests

from odc_openeo.indexing.samples import CLIMATE_PRODUCT, CONFORMANCE_BOX, S2_PRODUCT

BOX = {**CONFORMANCE_BOX, "crs": 32632}
JUNE = ["2022-06-01", "2022-07-01"]
POINT = {"type": "Point", "coordinates": [11.35, 46.49]}

Nodes = dict[str, Any]


def node(process_id: str, **arguments: Any) -> Nodes:
    return {"process_id": process_id, "arguments": arguments}


def of(id_: str) -> dict[str, str]:
    return {"from_node": id_}


def child(process_id: str, **arguments: Any) -> Nodes:
    arguments = arguments or {"data": {"from_parameter": "data"}}
    return {"process_graph": {"n": {**node(process_id, **arguments), "result": True}}}


def load(*bands: str, **changes: Any) -> Nodes:
    arguments = {
        "id": S2_PRODUCT,
        "spatial_extent": BOX,
        "temporal_extent": JUNE,
        "bands": list(bands) or None,
    }
    return node("load_collection", **{**arguments, **changes})


def saved(last: Nodes, format_: str = "netCDF", **more: Any) -> Nodes:
    """A graph of two loads, a node on the first, and its result."""
    options = more.pop("options", {})
    save = {**node("save_result", data=of("last"), format=format_, options=options), "result": True}
    loads = {
        "load": load("B04", "B08"),
        "other": load("B04", "B08", temporal_extent=["2022-06-01", "2022-06-10"]),
    }
    used = {id_: loads[id_] for id_ in loads if of(id_) in last["arguments"].values()}
    return {**used, **more, "last": last, "save": save}


def on_load(process_id: str, **arguments: Any) -> Nodes:
    return saved(node(process_id, data=of("load"), **arguments))


BAD: dict[str, Nodes] = {
    "format": saved(load("B04"), "GTIF"),
    "value of a format option": saved(load("B04"), "GTiff", options={"tile_size": "large"}),
    "collection": saved(load(id="no_such_collection")),
    "band": saved(load("B99")),
    "reversed interval": saved(load(temporal_extent=JUNE[::-1])),
    "empty interval": saved(load(temporal_extent=["2022-06-01", "2022-06-01"])),
    "interval without a date": saved(load(temporal_extent=["yesterday", "today"])),
    "time without data": saved(load(temporal_extent=["1990-01-01", "1991-01-01"])),
    "place without data": saved(load(spatial_extent={"west": 0, "east": 1, "south": 0, "north": 1})),
    "swapped box": saved(load(spatial_extent={"west": 12, "east": 11, "south": 46, "north": 47})),
    "reference system of a box": saved(load(spatial_extent={**BOX, "crs": 999999})),
    "member of a box": saved(load(spatial_extent={"west": 11, "east": 12, "south": 46})),
    "width": saved(load("B04", width=100)),
    "dimension": on_load("reduce_dimension", dimension="time", reducer=child("mean")),
    "reducer": on_load("reduce_dimension", dimension="t", reducer=child("average")),
    "geometry collection": on_load(
        "aggregate_spatial",
        geometries={"type": "GeometryCollection", "geometries": [POINT]},
        reducer=child("mean"),
    ),
    "coordinates": on_load("filter_spatial", geometries={"type": "Polygon", "coordinates": [[1, 2]]}),
    "labels without source": on_load("rename_labels", dimension="bands", target=["red", "nir"]),
    "label": on_load("rename_labels", dimension="bands", target=["x"], source=["B01"]),
    "merge without resolver": saved(node("merge_cubes", cube1=of("load"), cube2=of("other"))),
    "child process in an array": on_load(
        "apply_dimension",
        dimension="bands",
        process=child("array_create", data=[child("eq", x={"from_parameter": "x"}, y=1)]),
    ),
    "new band": on_load("ndvi", target_band="NDVI-band"),
    "bands of an index": saved(node("ndvi", data=of("blue")), blue=load("B02")),
    "projection": on_load("resample_spatial", projection=123456),
    "method": on_load("resample_spatial", method="best"),
    "period": on_load("aggregate_temporal_period", period="months", reducer=child("mean")),
    "bands of a picture": saved(load("B04", "B08"), "PNG"),
    "nothing left": on_load("filter_temporal", extent=["1990-01-01", "1991-01-01"]),
    "dropped dimension": on_load("drop_dimension", name="bands"),
    "added dimension": on_load("add_dimension", name="t", label="x"),
    "kernel": on_load("apply_kernel", kernel=[[1, 1], [1, 1]]),
    "index of an element": on_load(
        "reduce_dimension",
        dimension="bands",
        reducer=child("array_element", data={"from_parameter": "data"}, index=7),
    ),
    "label of an element": on_load(
        "reduce_dimension",
        dimension="bands",
        reducer=child("array_element", data={"from_parameter": "data"}, label="B99"),
    ),
    "input format": saved(node("load_url", url="http://127.0.0.1:9/a", format="XYZ")),
    "file": saved(node("load_uploaded_files", paths=["no_such_file.tif"], format="GTiff")),
    "job": saved(node("load_result", id=str(uuid4()))),
    "parameter": saved(node("apply", data=of("load"), process=child("absolute", y=1))),
    "argument": saved(node("apply", data=of("load"))),
    "process": saved(node("no_such_process", data=of("load"))),
    "inverted mask": saved(
        node("mask", data=of("load"), mask=of("climate")), climate=load(id=CLIMATE_PRODUCT, bands=None)
    ),
}
GOOD: dict[str, Nodes] = {
    "mean": on_load("reduce_dimension", dimension="t", reducer=child("mean")),
    "branch that is not taken": saved(
        node("if", value=True, accept=of("load"), reject=of("bad")), bad=load(id="no_such_collection")
    ),
    "arguments of other back-ends": saved(load("B04", featureflags={"tilesize": 256})),
}


def ask(connection: openeo.Connection, nodes: Nodes) -> tuple[list[dict[str, Any]], requests.Response]:
    """What validating a graph says, and the answer to running it."""
    process = {"process_graph": nodes}
    errors = connection.post("/validation", json=process).json()["errors"]
    return errors, connection.post("/result", json={"process": process}, check_error=False)


@pytest.mark.parametrize("name", BAD)
def test_validation_says_what_running_says(connection: openeo.Connection, name: str) -> None:
    errors, answer = ask(connection, BAD[name])
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["code"] in [error["code"] for error in errors]
    messages = [error["message"] for error in errors]
    assert answer.json()["message"] in messages
    internals = ("function-", "Traceback", "None to None", "PROJCS", "is not of type", "Model")
    assert not any(mark in message for mark in internals for message in messages)
    assert all(error["message"].startswith("Node '") for error in errors)


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_wrong(connection: openeo.Connection, name: str) -> None:
    errors, answer = ask(connection, GOOD[name])
    assert (errors, answer.status_code) == ([], 200)


def test_every_branch_tells_its_error(connection: openeo.Connection) -> None:
    nodes = saved(
        node("merge_cubes", cube1=of("one"), cube2=of("two")),
        "no_such_format",
        one=load(id="no_such_collection"),
        two=load("B99"),
    )
    errors, _ = ask(connection, nodes)
    codes = {error["code"] for error in errors}
    assert codes == {"CollectionNotFound", "ProcessParameterInvalid", "FileTypeInvalid"}


def test_nothing_is_fetched_or_read(connection: openeo.Connection) -> None:
    """Addresses that nobody may read, and a result that does not exist yet, are told by running only."""
    for source in (
        node("load_url", url="http://127.0.0.1:9/a.tif", format="GTiff"),
        node("load_stac", url="http://127.0.0.1:9/item.json"),
    ):
        errors, answer = ask(connection, saved(source))
        assert errors == []
        assert answer.status_code == 400


def test_large_loads_are_checked_quickly(connection: openeo.Connection) -> None:
    """The whole collection at once is too large for an answer at once, and fine for a job."""
    nodes = saved(
        node("reduce_dimension", data=of("all"), dimension="t", reducer=child("mean")),
        all=load(spatial_extent=None, temporal_extent=None, bands=None),
    )
    answer = connection.post("/validation", json={"process_graph": nodes})
    assert answer.json()["errors"] == []
    assert answer.elapsed.total_seconds() < 30


def test_processes_with_parameters_can_be_validated(connection: openeo.Connection) -> None:
    process = {
        "process_graph": {
            "mean": node(
                "reduce_dimension", data={"from_parameter": "data"}, dimension="t", reducer=child("mean")
            ),
            "save": {**node("save_result", data=of("mean"), format="no_such_format"), "result": True},
        },
        "parameters": [
            {"name": "data", "description": "", "schema": {"type": "object", "subtype": "datacube"}}
        ],
    }
    (error,) = connection.post("/validation", json=process).json()["errors"]
    assert error["code"] == "FileTypeInvalid"


def test_anonymous_validation_sees_collections(stack: str) -> None:
    process = {"process_graph": saved(load("B99"))}
    answer = requests.post(f"{stack}/openeo/1.3/validation", json=process, timeout=60)
    (error,) = answer.json()["errors"]
    assert error["code"] == "ProcessParameterInvalid"
    assert "B04" in error["message"]
