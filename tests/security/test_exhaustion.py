"""Small requests that ask for much: refused by the runner's limits, and the process that answers stays small.

Budgets of processes refuse most of these at once; here it only counts that no answer is a server error and
that the HTTP process takes no part in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import shapely
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD

MEMORY = 512 * 2**20
TIMEOUT_S = 12.0
GROWTH = 200 * 2**20
"""Bytes that the process that answers may grow by: far less than any of these requests would take."""

Graph = dict[str, Any]
Ask = Callable[[Graph], TestResponse]


def node(process_id: str, **arguments: Any) -> Graph:
    return {"process_id": process_id, "arguments": arguments}


def ref(name: str) -> dict[str, str]:
    return {"from_node": name}


def parameter(name: str) -> dict[str, str]:
    return {"from_parameter": name}


def child(**nodes: Graph) -> Graph:
    return {"process_graph": finish(nodes)}


def finish(nodes: Graph) -> Graph:
    last = list(nodes)[-1]
    return {**nodes, last: {**nodes[last], "result": True}}


def polygon(size: float, vertices: int = 4) -> Graph:
    shape = shapely.Point(11, 46).buffer(size, quad_segs=max(vertices // 4, 1))
    return {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}


@pytest.fixture
def limited(odc_config: Config) -> Config:
    limits = {"runner_memory": MEMORY, "sync_timeout_s": TIMEOUT_S, "tile_timeout_s": TIMEOUT_S}
    return odc_config.model_copy(update=limits)


@pytest.fixture
def app(limited: Config) -> Flask:
    return create_app(limited)


@pytest.fixture
def client(app: Flask, limited: Config) -> FlaskClient:
    token = accounts.issue_token(limited, accounts.create_user(limited, "ada", PASSWORD))
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


@pytest.fixture
def ask(client: FlaskClient) -> Ask:
    """Sends a graph; checks that this process, which answers HTTP, has not grown."""

    def send(graph: Graph) -> TestResponse:
        process = psutil.Process()
        before = process.memory_info().rss
        response = client.post(f"{API}/result", json={"process": {"process_graph": graph}})
        assert process.memory_info().rss - before < GROWTH
        return response

    # Imports and caches of the first request are no growth.
    assert send(finish({"a": node("add", x=1, y=1)})).get_json() == 2
    return send


def repeated_text() -> Graph:
    nodes = {"n0": node("text_concat", data=["x" * 1000, "y"])}
    for i in range(1, 26):
        nodes[f"n{i}"] = node("text_concat", data=[ref(f"n{i - 1}"), ref(f"n{i - 1}")])
    return nodes


def doubled_arrays() -> Graph:
    nodes = {"n0": node("array_create", data=[1], repeat=10_000_000)}
    for i in range(1, 7):
        nodes[f"n{i}"] = node("array_concat", array1=ref(f"n{i - 1}"), array2=ref(f"n{i - 1}"))
    return nodes


def nested_arrays() -> Graph:
    nodes = {"n0": node("array_create", data=[1, 2])}
    for i in range(1, 12):
        nodes[f"n{i}"] = node("array_create", data=[ref(f"n{i - 1}")] * 10)
    return nodes


def applied_twice() -> Graph:
    inner = child(
        a=node("array_apply", data=parameter("context"), process=child(b=node("add", x=parameter("x"), y=1)))
    )
    return {
        "n": node("array_create", data=[1], repeat=100_000),
        "m": node("array_apply", data=ref("n"), process=inner, context=ref("n")),
    }


def many_points() -> Graph:
    return {"a": node("vector_to_random_points", data=polygon(0.1), geometry_count=1_000_000_000)}


def dense_points() -> Graph:
    return {"a": node("vector_to_regular_points", data=polygon(0.5), distance=0.001)}


GRAPHS = {
    "text": repeated_text,
    "arrays": doubled_arrays,
    "nested arrays": nested_arrays,
    "array_apply in array_apply": applied_twice,
    "random points": many_points,
    "regular points": dense_points,
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS.keys())
def test_small_graphs_of_large_values(ask: Ask, make: Callable[[], Graph]) -> None:
    response = ask(finish(make()))
    assert 400 <= response.status_code < 500, response.text
    assert response.get_json()["code"] in {
        "ProcessGraphComplexity",
        "ProcessParameterInvalid",
        "RequestTimeout",
    }
    # The service goes on.
    assert ask(finish({"a": node("add", x=1, y=2)})).get_json() == 3


# --- Files -----------------------------------------------------------------------------------------


def netcdf_with_endless_coordinate(path: Path) -> None:
    """A few kilobytes that declare a coordinate of 1.5e9 values."""
    with h5py.File(path, "w") as file:
        size = 1_500_000_000
        x = file.create_dataset("x", (size,), "f8", chunks=(2**20,))
        y = file.create_dataset("y", data=np.arange(2.0))
        for axis, name in ((x, "x"), (y, "y")):
            axis.make_scale(name)
            axis.attrs["standard_name"] = f"projection_{name}_coordinate"
        values = file.create_dataset("v", (2, size), "f4", chunks=(1, 2**20))
        values.dims[0].attach_scale(y)
        values.dims[1].attach_scale(x)


def long_geojson(path: Path) -> None:
    feature = {"type": "Feature", "properties": None, "geometry": {"type": "Point", "coordinates": [1, 2]}}
    text = json.dumps(feature)
    path.write_text('{"type":"FeatureCollection","features":[' + ",".join([text] * 250_000) + "]}")


FILES = {
    "netCDF": netcdf_with_endless_coordinate,
    "GeoJSON": long_geojson,
}


@pytest.mark.parametrize("format_", FILES)
def test_small_files_of_large_contents(client: FlaskClient, ask: Ask, tmp_path: Path, format_: str) -> None:
    FILES[format_](tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert client.put(f"{API}/files/file.bin", data=io.BytesIO(content)).status_code == 200
    response = ask(finish({"a": node("load_uploaded_files", paths=["file.bin"], format=format_)}))
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.get_json()["code"] in {
            "FileContentInvalid",
            "ProcessGraphComplexity",
            "RequestTimeout",
        }
    assert ask(finish({"a": node("add", x=1, y=2)})).get_json() == 3


def test_deep_validation_is_no_work_of_this_process(client: FlaskClient, ask: Ask) -> None:
    process = psutil.Process()
    before = sum(process.cpu_times()[:2])
    nodes = {f"n{i}": node("add", x=1, y=i) for i in range(9_000)}
    response = client.post(f"{API}/validation", json={"process_graph": finish(nodes)})
    assert response.get_json() == {"errors": []}
    assert sum(process.cpu_times()[:2]) - before < 3
