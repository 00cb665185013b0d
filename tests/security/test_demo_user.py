"""The user demo with password demo is nobody where others can come in."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from odc_openeo import db
from odc_openeo.app import create_app
from odc_openeo.config import DEMO_USER, Config
from odc_openeo.errors import CredentialsInvalid, TokenInvalid
from odc_openeo.stack.embedded import Stack, StackError
from odc_openeo.users import accounts, browser_sessions
from tests.api.conftest import API
from tests.api.html import HTML

ADDRESS = "127.0.0.1"
REACHABLE: list[dict[str, Any]] = [
    {"host": "0.0.0.0"},  # noqa: S104  (nothing listens)
    {"host": "192.0.2.1"},
    {"host": "eo.example.org"},
    {"public_url": "https://eo.example.org"},
    {"public_url": "http://192.0.2.1:8080/cube"},
    {"public_url": "http://localhost.example.org"},
    {"public_url": "http://127.0.0.1@eo.example.org/"},
    {"trusted_proxies": 1},
    {"trusted_proxies": 1, "public_url": "http://localhost:8080"},
]
LOCAL: list[dict[str, Any]] = [
    {},
    {"host": "localhost"},
    {"host": "::1"},
    {"public_url": "http://localhost:9000"},
    {"public_url": "http://[::1]:9000/x"},
    {"public_url": "http://127.0.0.1:9000"},
]


@pytest.mark.parametrize("settings", REACHABLE, ids=str)
def test_the_demo_user_of_an_earlier_start_is_unknown(odc_config: Config, settings: dict[str, Any]) -> None:
    accounts.ensure_demo_user(odc_config)
    demo = accounts.log_in(odc_config, DEMO_USER, DEMO_USER, ADDRESS)
    token, session = accounts.issue_token(odc_config, demo), browser_sessions.begin(odc_config, demo)
    open_config = odc_config.model_copy(update=settings)
    with pytest.raises(CredentialsInvalid):
        accounts.log_in(open_config, DEMO_USER, DEMO_USER, ADDRESS)
    with pytest.raises(TokenInvalid):
        accounts.get_user_by_token(open_config, token)
    with pytest.raises(TokenInvalid):
        browser_sessions.get_user(open_config, session)
    with pytest.raises(ValueError, match=DEMO_USER):
        accounts.ensure_demo_user(open_config)
    assert not accounts.has_demo_user(open_config)
    client = create_app(open_config).test_client()
    assert client.get(f"{API}/credentials/basic", auth=(DEMO_USER, DEMO_USER)).status_code == 403
    assert client.get(f"{API}/me", headers={"Authorization": f"Bearer basic//{token}"}).status_code == 403
    for page in ("/", "/sign-in"):
        assert "<code>demo</code>" not in client.get(page, headers=HTML).text
    db.dispose_engine(open_config)


@pytest.mark.parametrize("settings", LOCAL, ids=str)
def test_the_demo_user_exists_where_nobody_else_can_come_in(
    odc_config: Config, settings: dict[str, Any]
) -> None:
    local = odc_config.model_copy(update=settings)
    accounts.ensure_demo_user(local)
    assert accounts.log_in(local, DEMO_USER, DEMO_USER, ADDRESS).name == DEMO_USER
    assert accounts.has_demo_user(local)


def test_pages_mention_the_demo_user_only_if_it_exists(odc_config: Config) -> None:
    client = create_app(odc_config).test_client()
    for page in ("/", "/sign-in"):
        assert "<code>demo</code>" not in client.get(page, headers=HTML).text
    accounts.ensure_demo_user(odc_config)
    for page in ("/", "/sign-in"):
        assert "<code>demo</code>" in client.get(page, headers=HTML).text
    accounts.disable_user(odc_config, DEMO_USER)
    for page in ("/", "/sign-in"):
        assert "<code>demo</code>" not in client.get(page, headers=HTML).text


@pytest.mark.parametrize("settings", REACHABLE, ids=str)
def test_demo_user_of_reachable_service_is_refused(config: Config, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="odc-openeo user add"):
        Config(demo_user=True, **settings)
    changed_config = config.model_copy(update={"demo_user": True, **settings})
    with pytest.raises(StackError, match="DEMO_USER"), Stack(changed_config, samples=False):
        pass


def test_up_says_how_to_make_users(config: Config) -> None:
    said: list[str] = []
    Stack(config.model_copy(update={"trusted_proxies": 1}), say=said.append)._prepare_users()
    assert [line for line in said if "user add" in line and "trusted_proxies" in line]
    accounts.create_user(config, "ada", "correct horse")
    said.clear()
    Stack(config.model_copy(update={"trusted_proxies": 1}), say=said.append)._prepare_users()
    assert said == []
    assert not accounts.has_demo_user(config)


@pytest.mark.parametrize(
    "settings", [{"public_url": "https://eo.example.org"}, {"trusted_proxies": 1}], ids=str
)
def test_a_proxy_on_this_machine_is_limited(config: Config, settings: dict[str, Any]) -> None:
    limited = config.model_copy(update={"requests_per_minute_address": 3, **settings})
    client = create_app(limited).test_client()
    answers = [client.get(f"{API}/conformance").status_code for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_the_operator_is_not_limited(config: Config) -> None:
    client = create_app(config.model_copy(update={"requests_per_minute_address": 3})).test_client()
    assert {client.get(f"{API}/conformance").status_code for _ in range(5)} == {200}
