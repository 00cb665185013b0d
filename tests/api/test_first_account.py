"""The first account, made in a browser on this machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.api.conftest import PASSWORD
from tests.api.html import HTML, form_key

ADDRESS = "/first-account"


def fill_in(client: FlaskClient, **changes: str) -> Any:
    """Fill in the form as a browser does."""
    key = form_key(client.get(ADDRESS, headers=HTML))
    fields = {"form_key": key, "name": "ada", "password": PASSWORD, "repeated": PASSWORD}
    return client.post(ADDRESS, data={**fields, **changes}, headers=HTML)


def test_the_first_account_is_signed_in_and_the_only_one(client: FlaskClient, odc_config: Config) -> None:
    accounts.ensure_demo_user(odc_config)
    assert ADDRESS in client.get("/sign-in", headers=HTML).text
    created = fill_in(client)
    assert (created.status_code, created.headers["Location"]) == (303, "/my/jobs")
    assert client.get("/my/jobs", headers=HTML).status_code == 200
    assert accounts.verify_password(odc_config, "ada", PASSWORD).roles == ()
    assert client.get(ADDRESS, headers=HTML).status_code == 404
    client.delete_cookie("openeo-session")
    assert ADDRESS not in client.get("/sign-in", headers=HTML).text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"password": "short", "repeated": "short"}, "8 to 1024 characters"),
        ({"repeated": "correct house"}, "The two passwords differ"),
        ({"name": "a b"}, "is not a valid user name"),
        ({"name": "demo"}, "is reserved"),
        ({"form_key": "forged"}, "form"),
    ],
)
def test_what_is_refused(client: FlaskClient, odc_config: Config, changes: dict[str, str], text: str) -> None:
    refused = fill_in(client, **changes)
    assert refused.status_code in (400, 403)
    assert text in refused.text
    assert not accounts.has_users(odc_config)


@pytest.mark.parametrize(
    ("settings", "request_environment"),
    [
        ({"host": "0.0.0.0"}, {}),
        ({"trusted_proxies": 1}, {}),
        ({"public_url": "https://eo.example.org"}, {}),
        ({}, {"REMOTE_ADDR": "192.0.2.1"}),
        ({}, {"HTTP_HOST": "rebound.example.org"}),
        ({"basic_login": False}, {}),
    ],
)
def test_nobody_else_may_make_it(
    odc_config: Config, settings: dict[str, Any], request_environment: dict[str, str]
) -> None:
    client = create_app(odc_config.model_copy(update=settings)).test_client()
    for method in ("GET", "POST"):
        assert client.open(ADDRESS, method=method, environ_overrides=request_environment).status_code == 404
    # Nor does the sign-in page lead there.
    page = client.get("/sign-in", headers=HTML, environ_overrides=request_environment)
    assert page.status_code == 200
    assert ADDRESS not in page.text


def test_only_one_of_many_at_once(app: Flask, odc_config: Config) -> None:
    def create(number: int) -> str:
        try:
            return accounts.create_first_user(odc_config, f"user{number}", PASSWORD).name
        except ValueError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        names = [name for name in pool.map(create, range(4)) if name]
    assert [user.name for user in accounts.list_users(odc_config)] == names
    assert len(names) == 1
