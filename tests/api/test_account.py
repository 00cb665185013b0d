"""Signing in, and what is refused to those who are not."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.api.conftest import API, PASSWORD, addition, code


@pytest.mark.usefixtures("token")
def test_basic_gives_a_token_that_signs_in(client: FlaskClient) -> None:
    given = client.get(f"{API}/credentials/basic", auth=("ada", PASSWORD))
    assert given.status_code == 200
    token = given.get_json()["access_token"]
    for form in (f"Bearer basic//{token}", f"Bearer {token}", f"bearer basic//{token}"):
        me = client.get(f"{API}/me", headers={"Authorization": form})
        assert me.status_code == 200
        assert me.get_json()["name"] == "ada"
        assert {**me.get_json(), "user_id": ""} == {
            "user_id": "",
            "name": "ada",
            "roles": ["user"],
            "budget": None,
            "storage": None,
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
    assert client.post(f"{API}/validation", json=addition(), headers=headers).status_code == 200
