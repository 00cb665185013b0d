"""Web pages of other origins may use the API."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API

EXPOSED = {"Link", "Location", "OpenEO-Costs", "OpenEO-Identifier", "Accept-Ranges", "Content-Range"}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (f"{API}/", {"GET"}),
        (f"{API}/result", {"POST"}),
        (f"{API}/collections/x", {"GET"}),
        ("/health", {"GET"}),
    ],
)
def test_preflight_allows_methods_and_headers(client: FlaskClient, path: str, methods: set[str]) -> None:
    headers = {"Origin": "https://editor.example", "Access-Control-Request-Method": "GET"}
    response = client.options(path, headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert methods | {"OPTIONS"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
    allowed = response.headers["Access-Control-Allow-Headers"]
    assert {"Authorization", "Content-Type", "Range"} <= set(allowed.split(", "))
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Allow"] == response.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("path", [f"{API}/", f"{API}/me", f"{API}/nothing", "/.well-known/openeo", "/health"])
def test_every_answer_has_the_headers(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert set(response.headers["Access-Control-Expose-Headers"].split(", ")) >= EXPOSED


def test_only_configured_origins(odc_config: Config) -> None:
    origins = {"cors_origins": "https://one.example, https://two.example"}
    client = create_app(odc_config.model_copy(update=origins)).test_client()
    two = client.get(f"{API}/", headers={"Origin": "https://two.example"})
    assert two.headers["Access-Control-Allow-Origin"] == "https://two.example"
    other = client.get(f"{API}/", headers={"Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers["Vary"]


def test_preflight_of_an_unknown_address_is_not_found(client: FlaskClient) -> None:
    assert client.options(f"{API}/nothing").status_code == 404
