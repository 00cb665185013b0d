"""Signing in, and what is refused to those who are not."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient
from joserfc import jws
from werkzeug.test import TestResponse

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API, PASSWORD, addition, code


@pytest.mark.usefixtures("token")
def test_basic_gives_a_token_that_signs_in(client: FlaskClient) -> None:
    given = client.get(f"{API}/credentials/basic", auth=("ada", PASSWORD))
    assert given.status_code == 200
    token = given.get_json()["access_token"]
    claims = jws.extract_compact(token.encode()).payload
    assert json.loads(claims)["iss"] == f"http://localhost{API}/credentials/basic"
    for form in (f"Bearer basic//{token}", f"Bearer {token}", f"bearer basic//{token}"):
        me = client.get(f"{API}/me", headers={"Authorization": form})
        assert me.status_code == 200
        assert me.get_json()["name"] == "ada"
        assert {**me.get_json(), "user_id": ""} == {
            "user_id": "",
            "name": "ada",
            "roles": ["user"],
            "budget": None,
            "storage": {"free": 50 * 2**30, "quota": 50 * 2**30},
            "links": [],
        }


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        (None, 401, "AuthenticationRequired"),
        ("Bearer basic//wrong", 403, "TokenInvalid"),
        ("Bearer wrong", 403, "TokenInvalid"),
        ("Bearer oidc/egi/token", 403, "AuthenticationSchemeInvalid"),
        ("Basic YWRhOmFkYQ==", 403, "AuthenticationSchemeInvalid"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/me"), ("POST", "/result")])
def test_without_a_good_token(
    client: FlaskClient, method: str, path: str, header: str | None, status: int, expected: str
) -> None:
    headers = {"Authorization": header} if header else {}
    response = client.open(f"{API}{path}", method=method, headers=headers)
    assert (response.status_code, code(response)) == (status, expected)


@pytest.mark.usefixtures("token")
def test_wrong_credentials(client: FlaskClient) -> None:
    wrong = client.get(f"{API}/credentials/basic", auth=("ada", "guessed password"))
    assert (wrong.status_code, code(wrong)) == (403, "CredentialsInvalid")
    unknown = client.get(f"{API}/credentials/basic", auth=("nobody", PASSWORD))
    assert (unknown.status_code, code(unknown)) == (403, "CredentialsInvalid")
    none = client.get(f"{API}/credentials/basic")
    assert (none.status_code, code(none)) == (401, "AuthenticationRequired")
    broken = client.get(f"{API}/credentials/basic", headers={"Authorization": "Basic ???"})
    assert (broken.status_code, code(broken)) == (403, "AuthenticationSchemeInvalid")


def test_public_addresses_do_not_mind_an_expired_token(client: FlaskClient) -> None:
    headers = {"Authorization": "Bearer basic//expired"}
    assert client.get(f"{API}/", headers=headers).status_code == 200


def test_validation_minds_an_expired_token_as_it_could_not_see_stored_processes(client: FlaskClient) -> None:
    headers = {"Authorization": "Bearer basic//expired"}
    refused = client.post(f"{API}/validation", json=addition(), headers=headers)
    assert (refused.status_code, code(refused)) == (403, "TokenInvalid")
    assert client.post(f"{API}/validation", json=addition()).status_code == 200


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("proxies", [0, 1])
def test_too_many_attempts(odc_config: Config, proxies: int) -> None:
    changes = {"login_attempts": 1, "trusted_proxies": proxies}
    client = create_app(odc_config.model_copy(update=changes)).test_client()

    def log_in(password: str, address: str) -> TestResponse:
        headers = {"X-Forwarded-For": f"10.9.9.9, {address}"}
        return client.get(f"{API}/credentials/basic", auth=("ada", password), headers=headers)

    assert log_in("wrong", "192.0.2.1").status_code == 403
    refused = log_in(PASSWORD, "192.0.2.1")
    assert (refused.status_code, code(refused)) == (429, "TooManyRequests")
    assert 290 < int(refused.headers["Retry-After"]) <= 300
    assert log_in(PASSWORD, "192.0.2.2").status_code == (200 if proxies else 429)


def test_only_enabled_endpoints_are_listed(odc_config: Config, client: FlaskClient) -> None:
    assert client.get(f"{API}/credentials/oidc").status_code == 404
    off = create_app(odc_config.model_copy(update={"basic_login": False})).test_client()
    assert off.get(f"{API}/credentials/basic", auth=("ada", PASSWORD)).status_code == 404
    paths = {endpoint["path"] for endpoint in off.get(f"{API}/").get_json()["endpoints"]}
    assert not {path for path in paths if path.startswith("/credentials")}
