"""The application with a real database, asked through Flask's test client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts

API = "/openeo/1.3"
PASSWORD = "correct horse"

Request = Callable[..., TestResponse]


@pytest.fixture
def app(odc_config: Config) -> Flask:
    """The application with our tables and an empty index."""
    return create_app(odc_config)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def token(odc_config: Config) -> str:
    """The token of a user who is signed in."""
    return accounts.issue_token(odc_config, accounts.create_user(odc_config, "ada", PASSWORD))


@pytest.fixture
def bearer(token: str) -> dict[str, str]:
    """The header that signs a request in, as the Python client sends it."""
    return {"Authorization": f"Bearer basic//{token}"}


def addition() -> dict[str, Any]:
    """A process that adds 1 and 1."""
    node = {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}
    return {"process_graph": {"add": node}}


def code(response: TestResponse) -> str:
    """The openEO error code of an answer, which must be a complete openEO error."""
    body = response.get_json()
    assert set(body) == {"id", "code", "message"}
    assert body["message"].endswith((".", "…"))
    return str(body["code"])
