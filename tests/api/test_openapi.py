"""The server's own OpenAPI document, compared with the routes that are served."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API
from tests.api.html import checked


@pytest.fixture(scope="module")
def unconnected(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The application without database: nothing here asks it."""
    return create_app(
        Config(database_url="postgresql://nobody@127.0.0.1:1/x", data_dir=tmp_path_factory.mktemp("d"))
    )


@pytest.fixture
def visitor(unconnected: Flask) -> FlaskClient:
    return unconnected.test_client()


def test_it_is_valid(visitor: FlaskClient) -> None:
    response = visitor.get("/api")
    assert response.content_type == "application/vnd.oai.openapi+json;version=3.0"
    validate(response.get_json(force=True))


def test_every_route_is_in_it(unconnected: Flask, visitor: FlaskClient) -> None:
    paths = visitor.get("/api").get_json(force=True)["paths"]
    documented = {(path, method.upper()) for path, operations in paths.items() for method in operations}
    served = {
        (re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in unconnected.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented == served
    for operations in paths.values():
        for operation in operations.values():
            assert len(operation["summary"]) > 5
            assert "``" not in operation["summary"]


def test_openapi_declares_parameters_bodies_answers_and_sign_in(visitor: FlaskClient) -> None:
    paths = visitor.get("/api").get_json(force=True)["paths"]
    jobs = paths[f"{API}/jobs"]
    assert jobs["post"]["security"] == [{"Bearer": []}]
    assert "requestBody" in jobs["post"]
    assert "201" in jobs["post"]["responses"]
    assert {p["name"] for p in jobs["get"]["parameters"]} == {"limit", "after"}
    search = paths[f"{API}/search"]["get"]
    assert search["security"] == [{}]
    assert {"bbox", "filter-lang", "sortby"} <= {p["name"] for p in search["parameters"]}
    assert "application/geo+json" in search["responses"]["200"]["content"]
    download = paths["/assets/{collection_id}/{item_id}/{key}/{name}"]["get"]
    assert download["parameters"][1]["schema"] == {"type": "string", "format": "uuid"}


@pytest.mark.parametrize(
    ("path", "method", "status", "media_type"),
    [
        (f"{API}/me", "get", "200", "application/json"),
        (f"{API}/jobs/{{job_id}}", "delete", "204", None),
        (f"{API}/jobs/{{job_id}}/results", "post", "202", None),
        (f"{API}/result", "post", "200", "*/*"),
        (f"{API}/collections/{{collection_id}}/queryables", "get", "200", "application/schema+json"),
        ("/services/{service_id}/signed/{key}/legend.png", "get", "200", "*/*"),
        ("/api.html", "get", "200", "text/html"),
        ("/health", "get", "200", "application/json"),
        ("/my/jobs", "get", "200", "text/html"),
        ("/static/{filename}", "get", "200", "*/*"),
    ],
)
def test_operations_declare_their_responses(
    visitor: FlaskClient, path: str, method: str, status: str, media_type: str | None
) -> None:
    operation = visitor.get("/api").get_json(force=True)["paths"][path][method]
    assert set(operation["responses"]) == {status, "default"}
    assert list(operation["responses"][status].get("content", ())) == ([media_type] if media_type else [])


def test_declared_request_bodies(visitor: FlaskClient) -> None:
    paths = visitor.get("/api").get_json(force=True)["paths"]
    upload = paths[f"{API}/files/{{path}}"]["put"]["requestBody"]["content"]
    assert list(upload) == ["application/octet-stream"]
    assert "requestBody" not in paths[f"{API}/jobs/{{job_id}}/results"]["post"]
    assert list(paths["/sign-in"]["post"]["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]


def test_capabilities_lead_to_it_and_to_its_page(visitor: FlaskClient) -> None:
    links = {link["rel"]: link["href"] for link in visitor.get(f"{API}/").get_json()["links"]}
    page = visitor.get(links["service-doc"].removeprefix("http://localhost"))
    checked(page)
    assert f"{API}/collections/{{collection_id}}/items" in page.text
    assert visitor.get(links["service-desc"].removeprefix("http://localhost")).status_code == 200


def test_it_is_not_sent_again_when_unchanged(visitor: FlaskClient) -> None:
    first = visitor.get("/api", headers={"Accept-Encoding": "gzip"})
    assert first.headers["Content-Encoding"] == "gzip"
    again = visitor.get("/api", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
