"""Signing in with a provider that others have written: npm's `oidc-provider`, run by Node on loopback."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import openeo
import pytest
import requests
from openeo.rest.auth.config import RefreshTokenStore

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.clients.conftest import NODE
from tests.clients.test_oidc import providers_file
from tests.identity_provider import AUDIENCE, DEVICE, MACHINE, PUBLIC, SECRET
from tests.support.http_service import serve_application


@pytest.fixture(params=["jwt", "introspection", "userinfo"])
def tokens(request: pytest.FixtureRequest) -> str:
    """How access tokens are checked."""
    return str(request.param)


@pytest.fixture
def issuer(node_modules: Path, tokens: str) -> Iterator[str]:
    command = ["node", "provider.mjs", "jwt" if tokens == "jwt" else "opaque", AUDIENCE]
    with subprocess.Popen(
        command, cwd=NODE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = next((line for line in process.stdout if line.startswith("http")), "")
        assert url, f"Node ended with status {process.wait(10)}"
        yield url.strip()
        process.terminate()


@pytest.fixture
def connection(issuer: str, tokens: str, odc_config: Config, tmp_path: Path) -> Iterator[openeo.Connection]:
    client = {"id": PUBLIC, "grant_types": [DEVICE, "refresh_token"]}
    settings: dict[str, Any] = {
        "id": "node",
        "issuer": issuer,
        "title": "Node",
        "scopes": ["openid", "profile"],
    }
    settings |= {"default_clients": [client], "audiences": [AUDIENCE], "clients": ["machine"]}
    if tokens == "userinfo":
        settings |= {"opaque_tokens": tokens, "any_audience": True}
    if tokens == "introspection":
        client_settings = {"client_id": MACHINE, "client_secret": SECRET, "userinfo_claims": True}
        settings |= {"opaque_tokens": tokens, **client_settings}
    path = providers_file(tmp_path, settings)
    with serve_application(create_app(odc_config.model_copy(update={"oidc_providers": path}))) as url:
        yield openeo.Connection(url, refresh_token_store=RefreshTokenStore(tmp_path / "refresh"))


def fill_in(page: requests.Response, session: requests.Session) -> requests.Response:
    """Send the form of a page: hidden fields as they are, `anna` as the user."""
    form = re.search(r"<form.*?</form>", page.text, re.DOTALL)
    assert form is not None
    action = re.search(r'action="([^"]*)"', form.group(0))
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form.group(0)):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        fields[pairs.get("name", "")] = unescape(pairs.get("value", ""))
    fields |= {name: "anna" for name in ("login", "password") if name in fields}
    assert action is not None
    return session.post(requests.compat.urljoin(page.url, unescape(action.group(1))), data=fields, timeout=60)


def person(text: str, **_: Any) -> None:
    """Opens the page that the client shows, signs in and agrees to everything."""
    url = re.search(r"http\S+user_code=\S+", text)
    if url is None:
        return

    def browse() -> None:
        with requests.Session() as session:
            page = session.get(url.group(0), timeout=60)
            for _ in range(10):
                if "<form" not in page.text or not page.ok:
                    break
                page = fill_in(page, session)

    threading.Thread(target=browse).start()


def test_device_flow_and_refresh(connection: openeo.Connection, tokens: str) -> None:
    connection.authenticate_oidc_device(
        use_pkce=False, display=person, store_refresh_token=True, max_poll_time=40
    )
    me = connection.describe_account()
    assert me["name"] == ("anna" if tokens == "jwt" else "anna of Node")
    first = connection.auth.bearer
    assert (first.count(".") == 2) == (tokens == "jwt")
    connection.authenticate_oidc_refresh_token()
    assert connection.auth.bearer != first
    assert connection.describe_account() == me


def test_client_credentials(connection: openeo.Connection, tokens: str) -> None:
    connection.authenticate_oidc_client_credentials("machine", SECRET)
    if tokens == "userinfo":
        with pytest.raises(openeo.rest.OpenEoApiError, match="TokenInvalid"):
            connection.describe_account()
    else:
        assert connection.describe_account()["name"] == "machine"
