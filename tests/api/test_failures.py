"""What goes wrong outside of a request's own content: addresses, our own faults, a database that is gone."""

from __future__ import annotations

import logging
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API, code


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", f"{API}/nothing", 404, "NotFound"),
        ("GET", "/openeo/1.2/", 404, "UnsupportedApiVersion"),
        ("GET", "/openeo/0.4/collections", 404, "UnsupportedApiVersion"),
        ("DELETE", f"{API}/collections", 405, "MethodNotAllowed"),
    ],
)
def test_unknown_addresses_are_not_found(
    client: FlaskClient, method: str, path: str, status: int, expected: str
) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, code(response)) == (status, expected)


def test_our_own_faults_are_logged_and_not_shown(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/fault")
    def fault() -> str:
        raise ZeroDivisionError("secret detail")

    with caplog.at_level(logging.ERROR, "odc_openeo"):
        response = app.test_client().get("/fault")
    assert (response.status_code, code(response)) == (500, "Internal")
    assert "secret" not in response.text
    assert response.get_json()["id"] in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text


def test_a_database_that_is_gone(odc_config: Config) -> None:
    gone = odc_config.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")})
    client = create_app(gone).test_client()
    start = time.monotonic()
    response = client.get("/health")
    assert (response.status_code, code(response)) == (503, "InfrastructureBusy")
    assert int(response.headers["Retry-After"]) > 0
    me = client.get(f"{API}/me", headers={"Authorization": "Bearer token"})
    assert (me.status_code, code(me)) == (503, "InfrastructureBusy")
    assert client.get(f"{API}/").status_code == 200
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "cannot be reached" in page.text
    assert time.monotonic() - start < 10
