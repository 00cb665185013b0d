"""Signing in to the pages with a provider: authorization code with PKCE, as a browser does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.html import HTML, checked, text_of
from tests.clients.test_oidc import providers_file
from tests.identity_provider import DEFAULT_CLIENT, PUBLIC, IdentityProvider, running_provider, settings_of

CALLBACK = "http://localhost/sign-in/callback"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def client(odc_config: Config, provider: IdentityProvider, tmp_path: Path) -> FlaskClient:
    default = {**DEFAULT_CLIENT, "redirect_urls": [CALLBACK]}
    local = settings_of(provider, leeway_s=0, default_clients=[default])
    path = providers_file(tmp_path, local)
    return create_app(odc_config.model_copy(update={"oidc_providers": path})).test_client()


def go(client: FlaskClient, to: str = "") -> tuple[str, dict[str, str]]:
    """Follow the button to the provider and back: the path to return to, and what the provider was asked."""
    left = client.get(f"/sign-in/with/local?to={to}")
    assert left.status_code == 303
    query = {k: v[0] for k, v in parse_qs(urlsplit(left.headers["Location"]).query).items()}
    back = requests.get(left.headers["Location"], allow_redirects=False, timeout=10).headers["Location"]
    assert back.startswith(f"{CALLBACK}?")
    return back.removeprefix("http://localhost"), query


def test_a_provider_signs_in(client: FlaskClient) -> None:
    root = checked(client.get("/sign-in", headers=HTML))
    assert "Local login" in text_of(root)
    back, query = go(client, "/my/files")
    assert (query["code_challenge_method"], query["client_id"]) == ("S256", PUBLIC)
    assert query["redirect_uri"] == CALLBACK
    arrived = client.get(back)
    assert (arrived.status_code, arrived.headers["Location"]) == (303, "/my/files")
    assert "Sign out Anna Example" in text_of(checked(client.get("/my/files")))


def test_answers_for_others_are_refused(client: FlaskClient) -> None:
    back, _ = go(client)
    stranger = client.application.test_client()
    assert stranger.get(back).status_code == 403
    go(stranger)
    assert stranger.get(back).status_code == 403
    for made_up in ("", "?code=x", "?state=x", "?error=access_denied"):
        assert client.get(f"/sign-in/callback{made_up}").status_code == 403
    assert client.get("/my/jobs").status_code == 303
    assert client.get(back).status_code == 303
    assert client.get("/my/jobs").status_code == 200


def test_codes_are_good_once(client: FlaskClient, provider: IdentityProvider) -> None:
    back, _ = go(client)
    assert client.get(back).status_code == 303
    client.delete_cookie("openeo-session")
    assert client.get(back).status_code == 403
    assert client.get("/my/jobs").status_code == 303


def test_another_issuer_in_the_answer_is_refused(client: FlaskClient) -> None:
    back, _ = go(client)
    assert client.get(f"{back}&iss=https://evil.example").status_code == 403
    assert client.get("/my/jobs").status_code == 303


def test_an_unavailable_provider_is_reported(client: FlaskClient, provider: IdentityProvider) -> None:
    provider.broken = True
    answer = client.get("/sign-in/with/local")
    assert answer.status_code == 503
    assert "cannot be reached" in text_of(checked(answer))


def test_providers_without_our_address_are_not_offered(
    odc_config: Config, provider: IdentityProvider, tmp_path: Path
) -> None:
    path = providers_file(tmp_path, settings_of(provider))
    client = create_app(odc_config.model_copy(update={"oidc_providers": path})).test_client()
    assert "Local login" not in client.get("/sign-in").text
    assert client.get("/sign-in/with/local").status_code == 403
    assert client.get("/sign-in/with/nobody").status_code == 403
