"""Signing in with OpenID Connect by the `openeo` client, against a real provider on loopback."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openeo
import pytest
import requests
import yaml
from openeo.rest.auth.config import RefreshTokenStore

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.identity_provider import (
    DEFAULT_CLIENT,
    DEVICE,
    MACHINE,
    OPAQUE,
    SECRET,
    IdentityProvider,
    running_provider,
    settings_of,
)
from tests.support.http_service import serve_application


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def oidc_config(odc_config: Config, provider: IdentityProvider, tmp_path: Path) -> Config:
    path = providers_file(tmp_path, settings_of(provider, leeway_s=0))
    return odc_config.model_copy(update={"oidc_providers": path})


def providers_file(folder: Path, *providers: dict[str, object]) -> Path:
    path = folder / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": list(providers)}))
    return path


@pytest.fixture
def service(oidc_config: Config) -> Iterator[str]:
    with serve_application(create_app(oidc_config)) as url:
        yield url


@pytest.fixture
def connection(service: str, tmp_path: Path) -> openeo.Connection:
    store = RefreshTokenStore(tmp_path / "refresh.json")
    return openeo.Connection(service, refresh_token_store=store)


def approving(provider: IdentityProvider):
    """Stands for the person who reads what the client shows and enters the code."""

    def display(text: str, **_: object) -> None:
        code = re.search(r"user_code=(\w+)", text)
        if code:
            provider.approve(code.group(1))

    return display


def compute(connection: openeo.Connection) -> float:
    process = {"add": {"process_id": "add", "arguments": {"x": 1, "y": 2}, "result": True}}
    return connection.execute(process)


def test_device_flow_and_refresh(
    connection: openeo.Connection, provider: IdentityProvider, oidc_config: Config
) -> None:
    connection.authenticate_oidc_device(display=approving(provider), store_refresh_token=True)
    me = connection.describe_account()
    assert (me["name"], me["roles"]) == ("Anna Example", ["user"])
    assert compute(connection) == 3
    first = connection.auth.bearer
    assert first.startswith("oidc/local/")
    connection.authenticate_oidc_refresh_token()
    assert connection.auth.bearer != first
    assert connection.describe_account() == me
    users = accounts.list_users(oidc_config)
    assert [(user.name, user.issuer, str(user.id)) for user in users] == [
        ("Anna Example", provider.issuer, me["user_id"])
    ]


def test_the_client_renews_expired_tokens(connection: openeo.Connection, provider: IdentityProvider) -> None:
    provider.lifetime = 1
    connection.authenticate_oidc_device(display=approving(provider), store_refresh_token=True)
    first = connection.auth.bearer
    time.sleep(2.1)
    # The next one must not expire before it is used.
    provider.lifetime = 300
    assert connection.describe_account()["name"] == "Anna Example"
    assert connection.auth.bearer != first


def test_client_credentials(connection: openeo.Connection, provider: IdentityProvider) -> None:
    connection.authenticate_oidc_client_credentials(MACHINE, SECRET)
    assert connection.describe_account()["name"] == MACHINE
    assert compute(connection) == 3


def test_authorization_code_with_pkce(connection: openeo.Connection, provider: IdentityProvider) -> None:
    visits: list[threading.Thread] = []

    def browse(url: str) -> None:
        visits.append(threading.Thread(target=requests.get, args=(url,), kwargs={"timeout": 10}))
        visits[0].start()

    connection.authenticate_oidc_authorization_code(
        webbrowser_open=browse, server_address=("127.0.0.1", 0), timeout=60
    )
    visits[0].join()
    assert connection.describe_account()["name"] == "Anna Example"


@pytest.mark.parametrize("way", ["introspection", "userinfo"])
def test_opaque_tokens(way: str, odc_config: Config, provider: IdentityProvider, tmp_path: Path) -> None:
    client = {"id": OPAQUE, "grant_types": [DEVICE, "refresh_token"]}
    settings = {"client_id": MACHINE, "client_secret": SECRET, "any_audience": way == "userinfo"}
    path = providers_file(
        tmp_path, settings_of(provider, default_clients=[client], opaque_tokens=way, **settings)
    )
    app = create_app(odc_config.model_copy(update={"oidc_providers": path}))
    with serve_application(app) as url:
        connection = openeo.Connection(url, refresh_token_store=RefreshTokenStore(tmp_path / "refresh"))
        connection.authenticate_oidc_device(
            client_secret="", use_pkce=False, display=approving(provider), store_refresh_token=True
        )
        assert [connection.describe_account()["name"] for _ in range(3)] == ["Anna Example"] * 3
        assert provider.requests_by_path["/introspect"] + provider.requests_by_path["/userinfo"] == 1
        assert connection.auth.bearer.startswith("oidc/local/at/")


def test_providers_are_described_to_clients(service: str, provider: IdentityProvider) -> None:
    document = requests.get(f"{service}/openeo/1.3/credentials/oidc", timeout=60).json()
    assert document == {
        "providers": [
            {
                "id": "local",
                "issuer": provider.issuer,
                "title": "Local login",
                "scopes": ["openid", "email"],
                "default_clients": [DEFAULT_CLIENT],
            }
        ]
    }
    root = requests.get(f"{service}/openeo/1.3/", timeout=60).json()
    assert "https://api.openeo.org/1.3.0/authentication/jwt" in root["conformsTo"]
    assert {"path": "/credentials/oidc", "methods": ["GET"]} in root["endpoints"]


def test_all_forms_of_the_header(service: str, provider: IdentityProvider) -> None:
    token = provider.token()
    answers = [
        requests.get(f"{service}/openeo/1.3/me", headers={"Authorization": form}, timeout=60)
        for form in (f"Bearer {token}", f"Bearer oidc/local/{token}", f"bearer  {token} ")
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["user_id"] for answer in answers}) == 1
    for form, code in [
        (f"Bearer basic//{token}", "TokenInvalid"),
        (f"Bearer oidc/other/{token}", "AuthenticationSchemeInvalid"),
        (f"Bearer oidc//{token}", "AuthenticationSchemeInvalid"),
        (f"Bearer {provider.id_token()}", "TokenInvalid"),
    ]:
        refused = requests.get(f"{service}/openeo/1.3/me", headers={"Authorization": form}, timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (403, code)


def test_disabled_users_are_out_at_once(
    service: str, provider: IdentityProvider, oidc_config: Config
) -> None:
    headers = {"Authorization": f"Bearer {provider.token()}"}
    me = requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60).json()
    accounts.disable_user(oidc_config, me["user_id"])
    refused = requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (403, "TokenInvalid")
    accounts.disable_user(oidc_config, me["user_id"], disabled=False)
    assert requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60).json() == me


def test_a_provider_that_does_not_answer(service: str, provider: IdentityProvider) -> None:
    provider.broken = True
    headers = {"Authorization": f"Bearer {provider.token()}"}
    answer = requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "InfrastructureBusy")
    assert int(answer.headers["Retry-After"]) > 0
    provider.broken = False
    time.sleep(0.3)
    assert requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60).status_code == 200


def test_tokens_are_not_logged(
    service: str, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    good, bad = provider.token(), provider.token(provider.claims(aud="elsewhere", client_id="other"))
    for form in (good, f"oidc/local/{good}", bad, f"oidc/local/{bad}", "oidc/local/opaque-opaque", "x.y.z"):
        headers = {"Authorization": f"Bearer {form}"}
        requests.get(f"{service}/openeo/1.3/me", headers=headers, timeout=60)
    assert "elsewhere" in caplog.text
    for secret in (good, bad, good.split(".")[2], "opaque-opaque"):
        assert secret not in caplog.text


def test_start_page_shows_how_to_sign_in(service: str) -> None:
    page = requests.get(service, headers={"Accept": "text/html"}, timeout=60).text
    assert "connection.authenticate_oidc()\nconnection.list_collection_ids()" in page
    assert "authenticate_basic" not in page
