"""Services on two tiny scenes, asked through Flask's test client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.api.conftest import API, app, bearer, client, token
from tests.catalog.conftest import index
from tests.catalog.scenes import Index, scene

__all__ = ["app", "bearer", "client", "index", "token"]

TIMES = ("2022-06-01T10:00:00Z", "2022-06-04T10:00:00Z")

Create = Callable[..., str]


@pytest.fixture
def two(index: Index, tmp_path: Path) -> list[dict[str, Any]]:
    """The documents of two indexed scenes at the same place; their values are those of seeds 1 and 2."""
    root = [scene(tmp_path / f"s{seed}", seed, time) for seed, time in zip((1, 2), TIMES, strict=True)]
    index.add(*root)
    return root


@pytest.fixture
def create(app: Flask, client: FlaskClient, bearer: dict[str, str]) -> Create:
    """Makes a service of a process graph and settings; its path without host."""

    def make(graph: dict[str, Any], type_: str = "XYZ", **configuration: Any) -> str:
        body = {"type": type_, "process": {"process_graph": graph}, "configuration": configuration}
        answer = client.post(f"{API}/services", json=body, headers=bearer)
        assert answer.status_code == 201, answer.get_json()
        id_ = answer.headers["OpenEO-Identifier"]
        return path_of(client.get(f"{API}/services/{id_}", headers=bearer).get_json()["url"])

    return make


def path_of(url: str) -> str:
    """The path of a service's address, without placeholders."""
    return url.removeprefix("http://localhost").partition("/{z}")[0]


def load(**arguments: Any) -> dict[str, Any]:
    """A node that loads the tiny product."""
    extents = {"spatial_extent": None, "temporal_extent": None}
    return {"process_id": "load_collection", "arguments": {"id": "tiny_s2", **extents, **arguments}}


def node(process_id: str, source: str = "load", **arguments: Any) -> dict[str, Any]:
    """A node that works on the value of another."""
    return {"process_id": process_id, "arguments": {"data": {"from_node": source}, **arguments}}


def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
    """A process graph; its last node is the result."""
    last = list(nodes)[-1]
    return {**nodes, last: {**nodes[last], "result": True}}


DATA = {"from_parameter": "data"}
