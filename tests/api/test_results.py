"""Synchronous results that need no collection, and bodies that are refused."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, addition, code


def test_one_plus_one_is_two(client: FlaskClient, bearer: dict[str, str]) -> None:
    body = {"process": addition(), "plan": "gold", "budget": 1, "log_level": "debug"}
    response = client.post(f"{API}/result", json=body, headers=bearer)
    assert response.status_code == 200
    assert response.get_json() == 2
    assert response.mimetype == "application/json"
    assert response.headers["OpenEO-Identifier"]
    assert response.headers["Content-Disposition"] == "attachment; filename=result.json"
    assert response.content_length == len(response.data)


def test_nothing_is_left_behind(
    client: FlaskClient, bearer: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client.post(f"{API}/result", json={"process": addition()}, headers=bearer)
    failing = {"process_graph": {"x": {"process_id": "nope", "arguments": {}, "result": True}}}
    client.post(f"{API}/result", json={"process": failing}, headers=bearer)
    assert list(tmp_path.glob("odc-openeo-*")) == []


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        (b"", "RequestInvalid", "empty"),
        (b"{", "RequestInvalid", "line 1, column 2"),
        (b"[1]", "RequestInvalid", "an array"),
        (b"\xff\xfe{}", "RequestInvalid", "not valid UTF-8"),
        (b"[" * 100_000, "RequestInvalid", "nested"),
        (b'{"a":' * 700 + b"1" + b"}" * 700, "RequestInvalid", "nested"),
        (b"{" + b'"a":' + b"1" * 10_000 + b"}", "RequestInvalid", "too long"),
        (b"{}", "ProcessInvalid", "'process'"),
        (b'{"process_graph": {}}', "ProcessInvalid", "'process'"),
        (b'{"process": {}}', "ProcessGraphMissing", "process_graph"),
        (b'{"process": {"process_graph": {}}}', "ProcessGraphInvalid", "at least one node"),
        (b'{"process": null}', "ProcessInvalid", "'process'"),
    ],
)
def test_invalid_bodies_are_refused(
    client: FlaskClient, bearer: dict[str, str], body: bytes, expected: str, says: str
) -> None:
    response = client.post(f"{API}/result", data=body, headers=bearer, content_type="application/json")
    assert (response.status_code, code(response)) == (400, expected)
    assert says in response.get_json()["message"]


def test_nan_may_be_sent(client: FlaskClient) -> None:
    body = b'{"process_graph": {"a": {"process_id": "add", "arguments": {"x": NaN, "y": 1}, "result": true}}}'
    response = client.post(f"{API}/validation", data=body, content_type="application/json")
    assert response.get_json() == {"errors": []}


def test_media_types_other_than_json(client: FlaskClient) -> None:
    response = client.post(f"{API}/validation", data=b"<a/>", content_type="application/xml")
    assert (response.status_code, code(response)) == (400, "ContentTypeInvalid")


class Unreadable(io.RawIOBase):
    """A request body that must not be read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("the body was read")


def test_a_huge_body_is_refused_unread(client: FlaskClient, bearer: dict[str, str]) -> None:
    response = client.post(
        f"{API}/result",
        headers=bearer,
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": str(100 * 2**20), "wsgi.input": Unreadable()},
    )
    assert (response.status_code, code(response)) == (413, "RequestTooLarge")
    assert "8388608 bytes" in response.get_json()["message"]


def test_a_graph_of_200_000_nodes(odc_config: Config) -> None:
    config = odc_config.model_copy(update={"max_body_bytes": 64 * 2**20})
    token = accounts.issue_token(config, accounts.create_user(config, "bea", PASSWORD))
    node = {"process_id": "add", "arguments": {"x": 1, "y": 2}}
    graph = {f"n{i}": node for i in range(200_000)} | {"r": {**node, "result": True}}
    body = json.dumps({"process": {"process_graph": graph}})
    response = (
        create_app(config)
        .test_client()
        .post(
            f"{API}/result",
            data=body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
    )
    assert (response.status_code, code(response)) == (400, "ProcessGraphComplexity")


def nested(levels: int) -> dict[str, Any]:
    """A process whose conditions are child processes in one another."""
    process: dict[str, Any] = addition()
    for _ in range(levels):
        arguments = {"data": [1], "reducer": process, "dimension": "t"}
        node = {"process_id": "reduce_dimension", "arguments": arguments, "result": True}
        process = {"process_graph": {"node": node}}
    return process


def test_levels_of_child_processes(client: FlaskClient, bearer: dict[str, str]) -> None:
    fifty = client.post(f"{API}/result", json={"process": nested(50)}, headers=bearer)
    assert (fifty.status_code, code(fifty)) == (400, "ProcessParameterInvalid")
    hundreds = client.post(f"{API}/result", json={"process": nested(120)}, headers=bearer)
    assert (hundreds.status_code, code(hundreds)) == (400, "ProcessGraphComplexity")


def test_validation_reports_every_error(client: FlaskClient) -> None:
    graph = {
        "a": {"process_id": "nope", "arguments": {}},
        "b": {"process_id": "add", "arguments": {"x": 1, "z": 2}, "result": True},
    }
    response = client.post(f"{API}/validation", json={"process_graph": graph})
    assert response.status_code == 200
    codes = sorted(error["code"] for error in response.get_json()["errors"])
    assert codes == ["ProcessParameterRequired", "ProcessParameterUnsupported", "ProcessUnsupported"]


def test_validation_leaves_parameters_without_value_alone(client: FlaskClient) -> None:
    arguments = {"x": {"from_parameter": "later"}, "y": 1}
    graph = {"a": {"process_id": "add", "arguments": arguments, "result": True}}
    assert client.post(f"{API}/validation", json={"process_graph": graph}).get_json() == {"errors": []}
    assert client.post(f"{API}/validation", json={}).status_code == 200


def test_errors_of_processes_name_the_node(client: FlaskClient, bearer: dict[str, str]) -> None:
    graph = {"lost": {"process_id": "nope", "arguments": {}, "result": True}}
    response = client.post(f"{API}/result", json={"process": {"process_graph": graph}}, headers=bearer)
    assert (response.status_code, code(response)) == (400, "ProcessUnsupported")
    assert "'lost'" in response.get_json()["message"]


@pytest.mark.parametrize(
    ("nodes", "expected", "says"),
    [
        (
            {
                "a": {"process_id": "constant", "arguments": {"x": [None]}},
                "b": {
                    "process_id": "rearrange",
                    "arguments": {"data": [1], "order": {"from_node": "a"}},
                    "result": True,
                },
            },
            "ProcessParameterInvalid",
            "Node 'b': The value for parameter 'order' of process 'rearrange'",
        ),
        (
            {
                "a": {"process_id": "array_create", "arguments": {"data": [1], "repeat": 10**6}},
                "b": {
                    "process_id": "array_concat",
                    "arguments": {"array1": {"from_node": "a"}, "array2": {"from_node": "a"}},
                    "result": True,
                },
            },
            "ProcessGraphComplexity",
            "1,000,000 elements",
        ),
    ],
)
def test_values_of_nodes_are_checked(
    client: FlaskClient, bearer: dict[str, str], nodes: dict[str, Any], expected: str, says: str
) -> None:
    response = client.post(f"{API}/result", json={"process": {"process_graph": nodes}}, headers=bearer)
    assert response.status_code == 400
    assert response.get_json()["code"] == expected
    assert says in response.get_json()["message"]
