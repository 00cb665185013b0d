"""What the service tells of itself, compared with the schemas of the openEO API."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from jsonschema import Draft7Validator

from odc_openeo.app import create_app
from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.stack.embedded import free_port
from tests.api.conftest import API

OPENAPI = Path(__file__).parents[2].parent / "shared" / "openeo" / "openapi-1.3.0.yaml"


@cache
def definition() -> dict[str, Any]:
    if not OPENAPI.exists():
        pytest.skip(f"the openEO API definition is not at {OPENAPI}")
    loaded = yaml.load(OPENAPI.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return dict(as_json_schema(loaded))


def as_json_schema(value: Any) -> Any:
    """OpenAPI 3.0 → JSON Schema: `nullable`, and alternatives that only discriminators tell apart."""
    if isinstance(value, list):
        return [as_json_schema(v) for v in value]
    if not isinstance(value, dict):
        return value
    plain = {"anyOf" if k == "oneOf" else k: as_json_schema(v) for k, v in value.items() if k != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if value.get("nullable") is True else plain


def validator(path: str, media_type: str = "application/json") -> Draft7Validator:
    """Checks the body of ``GET path`` against its schema in the API definition."""
    keys = ["paths", path, "get", "responses", "200", "content", media_type, "schema"]
    pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in keys)
    return Draft7Validator({**definition(), "$ref": f"#/{pointer}"})


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/", f"{API}/"),
        ("/", API),
        ("/.well-known/openeo", "/.well-known/openeo"),
        ("/conformance", f"{API}/conformance"),
        ("/file_formats", f"{API}/file_formats"),
        ("/service_types", f"{API}/service_types"),
        ("/processes", f"{API}/processes"),
        ("/collections", f"{API}/collections"),
    ],
)
def test_answers_fit_the_api_definition(client: FlaskClient, path: str, url: str) -> None:
    response = client.get(url)
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert [e.message for e in validator(path).iter_errors(response.json)] == []


WORKSPACE = "/workspaces/{workspace_id}"
BEYOND = {
    ("/collections/{collection_id}", "DELETE"),
    ("/processing_parameters", "GET"),
    ("/workspace_providers", "GET"),
    *(("/workspaces", method) for method in ("GET", "POST")),
    ("/explain", "POST"),
    *((WORKSPACE, method) for method in ("GET", "PATCH", "DELETE")),
    *((f"{WORKSPACE}/files{below}", "GET") for below in ("", "/{path}")),
}
"""Offers beyond the API: extensions, the files in workspaces, own collections, explanations."""


def test_every_endpoint_of_the_listing_is_in_the_api_definition(client: FlaskClient) -> None:
    endpoints = client.get(f"{API}/").get_json()["endpoints"]
    paths = definition()["paths"]
    offered = {(e["path"], method) for e in endpoints for method in e["methods"]}
    defined = {(path, method.upper()) for path, operations in paths.items() for method in operations}
    assert offered - defined == BEYOND
    assert len({e["path"] for e in endpoints}) == len(endpoints)


def test_endpoints_that_clients_look_for_are_listed(client: FlaskClient) -> None:
    listed = {(e["path"], m) for e in client.get(f"{API}/").get_json()["endpoints"] for m in e["methods"]}
    assert {
        ("/collections", "GET"),
        ("/collections/{collection_id}", "GET"),
        ("/collections/{collection_id}/queryables", "GET"),
        ("/credentials/basic", "GET"),
        ("/me", "GET"),
        ("/processes", "GET"),
        ("/result", "POST"),
        ("/validation", "POST"),
    } <= listed
    assert not {path for path, _ in listed} & {"", "/"}


def test_conformance_is_the_same_in_both_places(client: FlaskClient) -> None:
    capabilities = client.get(f"{API}/").get_json()
    assert client.get(f"{API}/conformance").get_json() == {"conformsTo": capabilities["conformsTo"]}
    assert "https://api.openeo.org/1.3.0" in capabilities["conformsTo"]


def test_well_known_leads_to_the_capabilities(client: FlaskClient) -> None:
    (version,) = client.get("/.well-known/openeo").get_json()["versions"]
    capabilities = client.get(version["url"].removeprefix("http://localhost")).get_json()
    assert capabilities["api_version"] == version["api_version"] == "1.3.0"
    assert capabilities["production"] == version["production"]


def test_user_code_is_offered_with_its_runtimes(client: FlaskClient) -> None:
    endpoints = {endpoint["path"] for endpoint in client.get(f"{API}/").get_json()["endpoints"]}
    runtimes = client.get(f"{API}/udf_runtimes").get_json() if "/udf_runtimes" in endpoints else {}
    processes = {process["id"] for process in client.get(f"{API}/processes").get_json()["processes"]}
    assert ("run_udf" in processes) == bool(runtimes)
    for runtime in runtimes.values():
        assert runtime["type"] == "language"
        assert "numpy" in runtime["versions"][runtime["default"]]["libraries"]


def test_no_user_code_is_claimed_where_it_is_turned_off(odc_config: Config) -> None:
    client = create_app(odc_config.model_copy(update={"udf": "off"})).test_client()
    endpoints = client.get(f"{API}/").get_json()["endpoints"]
    assert "/udf_runtimes" not in {endpoint["path"] for endpoint in endpoints}
    assert client.get(f"{API}/udf_runtimes").get_json() == {}
    listed = client.get(f"{API}/processes").get_json()["processes"]
    assert "run_udf" not in {process["id"] for process in listed}
    assert client.get("/processes/run_udf").status_code == 404


def test_user_code_is_offered_while_its_workers_are_missing(odc_config: Config) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    client = create_app(odc_config.model_copy(update={"udf_scheduler": address})).test_client()
    begin = time.monotonic()
    for _ in range(3):
        endpoints = client.get(f"{API}/").get_json()["endpoints"]
        assert "/udf_runtimes" in {endpoint["path"] for endpoint in endpoints}
    response = client.get(f"{API}/udf_runtimes")
    assert (response.status_code, response.get_json()["code"]) == (503, "InfrastructureBusy")
    assert address not in response.get_data(as_text=True)
    # They are asked once, which takes the time to give up connecting, not at each request.
    assert time.monotonic() - begin < 4 * cluster.CONNECT_SECONDS


def test_links_of_the_landing_page_have_titles_of_their_own(client: FlaskClient) -> None:
    titles = [link["title"] for link in client.get(f"{API}/").get_json()["links"]]
    assert len(titles) == len(set(titles))


def test_processes_are_not_sent_again_when_unchanged(client: FlaskClient) -> None:
    first = client.get(f"{API}/processes")
    again = client.get(f"{API}/processes", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_unknown_collections_are_named(client: FlaskClient) -> None:
    response = client.get(f"{API}/collections/nowhere")
    assert response.status_code == 404
    assert response.get_json()["code"] == "CollectionNotFound"
    assert "nowhere" in response.get_json()["message"]


def test_health_says_ok(client: FlaskClient) -> None:
    response = client.get("/health")
    assert (response.status_code, response.get_json()["status"]) == (200, "ok")
