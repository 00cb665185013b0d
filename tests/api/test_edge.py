"""What every answer has: headers, ids, JSON errors; limits of requests; and what is not written into logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo.api.middleware.rate_limit import RateLimiter
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.errors import TooManyRequests
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, addition, code

ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}
EVERY_ANSWER = {
    "Access-Control-Allow-Origin": "*",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def limited(config: Config, **limits: int) -> FlaskClient:
    return create_app(config.model_copy(update=limits)).test_client()


def addresses(app: Flask) -> Iterator[tuple[str, set[str]]]:
    """Each address, with something for its parameters, and its methods."""
    methods_by_path: dict[str, set[str]] = {}
    some = {"uuid": "00000000-0000-0000-0000-000000000000", "int": "1", "float": "1.0"}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:(\w+)(?:\([^)]*\))?:)?\w+>", lambda m: some.get(m[1] or "", "none"), rule.rule)
        methods_by_path.setdefault(path, set()).update(rule.methods or set())
    # Actions of jobs and services may have any name, which is refused later.
    for path in [path for path in methods_by_path if re.fullmatch(r"/my/(jobs|services)/[^/]+/[^/]+", path)]:
        methods_by_path[path] |= {"POST", "OPTIONS"}
    yield from methods_by_path.items()


def check_edge(answer: TestResponse) -> None:
    """What all answers have in common."""
    assert {name: answer.headers.get(name) for name in EVERY_ANSWER} == EVERY_ANSWER
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert "Content-Security-Policy" in answer.headers
    assert answer.headers["Referrer-Policy"] in ("no-referrer", "same-origin")
    assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
    # Pages answer people, and services say in pictures and XML what is wrong.
    ours = answer.is_json or answer.request.path.startswith(API)
    if answer.status_code >= 400 and ours and answer.data:
        assert answer.get_json()["id"] == answer.headers["X-Request-Id"]
        assert code(answer)


def test_every_address_with_every_method(app: Flask, client: FlaskClient, bearer: dict[str, str]) -> None:
    for path, methods in addresses(app):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
            answer = client.open(path, method=method, headers=bearer)
            check_edge(answer)
            assert answer.status_code < 500, (method, path, answer.text)
            if method == "OPTIONS":
                assert (answer.status_code, answer.data) == (204, b""), path
                assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == methods
            elif method not in methods:
                assert answer.status_code == 405, path
                assert set(answer.headers["Allow"].split(", ")) == methods
                assert method == "HEAD" or code(answer) == "MethodNotAllowed"


def test_head_is_get_without_the_content(client: FlaskClient, bearer: dict[str, str]) -> None:
    for path in ("/", "/collections", "/processes", "/me", "/jobs", "/files", "/file_formats"):
        got = client.get(f"{API}{path}", headers=bearer)
        head = client.head(f"{API}{path}", headers=bearer)
        assert (head.status_code, head.data) == (got.status_code, b"")
        assert (head.content_length, head.content_type) == (got.content_length, got.content_type)


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/png", "*/*", "nonsense", ""])
def test_api_always_answers_in_json(client: FlaskClient, accept: str) -> None:
    for path in ("/", "/collections", "/nothing", "/me"):
        answer = client.get(f"{API}{path}", headers={"Accept": accept})
        assert answer.mimetype == "application/json"
        check_edge(answer)


def test_bodies_that_are_refused(odc_config: Config, bearer: dict[str, str]) -> None:
    client = limited(odc_config, max_body_bytes=2000)
    deep = "[" * 5000 + "]" * 5000
    for body, type_, expected in (
        (b"{" + b" " * 3000 + b"}", "application/json", (413, "RequestTooLarge")),
        (b'{"process": %s}' % deep.encode()[:900], "application/json", (400, "RequestInvalid")),
        (b"\xff\xfe", "application/json", (400, "RequestInvalid")),
        (b"<xml/>", "application/xml", (400, "ContentTypeInvalid")),
        (b"[1]", "application/json", (400, "RequestInvalid")),
    ):
        answer = client.post(f"{API}/jobs", data=body, content_type=type_, headers=bearer)
        assert (answer.status_code, code(answer)) == expected, body[:20]
        check_edge(answer)


# --- Limits of requests --------------------------------------------------------------------------


def test_limit_of_an_address(odc_config: Config, token: str) -> None:
    client = limited(odc_config, requests_per_minute_address=3)
    answers = [client.get(f"{API}/conformance", environ_overrides=ELSEWHERE) for _ in range(4)]
    assert [response.status_code for response in answers] == [200, 200, 200, 429]
    assert code(answers[3]) == "TooManyRequests"
    assert 0 < int(answers[3].headers["Retry-After"]) <= 20
    check_edge(answers[3])
    # Another address, this machine, preflights, and users who are signed in go on.
    assert client.get(f"{API}/", environ_overrides={"REMOTE_ADDR": "192.0.2.8"}).status_code == 200
    assert client.get(f"{API}/").status_code == 200
    assert client.options(f"{API}/jobs", environ_overrides=ELSEWHERE).status_code == 204
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get(f"{API}/me", headers=headers, environ_overrides=ELSEWHERE).status_code == 200
    # Made-up tokens are of nobody, so they count.
    forged = {"Authorization": "Bearer made-up"}
    assert client.get(f"{API}/me", headers=forged, environ_overrides=ELSEWHERE).status_code == 429


def test_limit_of_a_user(odc_config: Config, token: str) -> None:
    client = limited(odc_config, requests_per_minute_user=2)
    bob = accounts.issue_token(odc_config, accounts.create_user(odc_config, "bob", PASSWORD))

    def status(of: str, address: str) -> int:
        headers = {"Authorization": f"Bearer {of}"}
        return client.get(
            f"{API}/me", headers=headers, environ_overrides={"REMOTE_ADDR": address}
        ).status_code

    assert [status(token, f"192.0.2.{n}") for n in range(3)] == [200, 200, 429]
    assert status(bob, "192.0.2.1") == 200
    body = {"process": addition()}
    refused = client.post(f"{API}/result", json=body, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, code(refused)) == (429, "TooManyRequests")


def test_no_limits(odc_config: Config) -> None:
    client = limited(odc_config, requests_per_minute_address=0)
    answers = [client.get(f"{API}/conformance", environ_overrides=ELSEWHERE) for _ in range(20)]
    assert {response.status_code for response in answers} == {200}


def test_the_share_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("odc_openeo.api.middleware.rate_limit.time.monotonic", lambda: now)
    rates = RateLimiter(6)
    for _ in range(6):
        rates.take("a")
    with pytest.raises(TooManyRequests) as refused:
        rates.take("a")
    assert refused.value.seconds == 10
    rates.take("b")
    now += 10
    rates.take("a")
    with pytest.raises(TooManyRequests):
        rates.take("a")


# --- Logs and ids --------------------------------------------------------------------------------


def test_secrets_are_not_logged(client: FlaskClient, token: str, caplog: pytest.LogCaptureFixture) -> None:
    uuid = "00000000-0000-0000-0000-000000000000"
    with caplog.at_level(logging.DEBUG):
        client.get(f"/results/{uuid}/99999999999/thesignature/a.tif")
        client.get(f"/shared/processes/{uuid}")
        client.get(f"{API}/me?token=inthequery", headers={"Authorization": f"Bearer {token}"})
        client.get(f"{API}/me", headers={"Authorization": "Bearer basic//madeup"})
        client.get(f"{API}/credentials/basic", auth=("ada", "thepassword"))
    for secret in ("thesignature", "inthequery", token, "madeup", "thepassword", "processes/0000"):
        assert secret not in caplog.text
    assert f"/results/{uuid}/99999999999/***/a.tif 410" in caplog.text


def test_one_request_is_one_line(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "odc_openeo"):
        answer = client.get(f"{API}/files/a%0a[0] GET%20/forged%20200")
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("request_log")]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert answer.headers["X-Request-Id"] in lines[0]


@pytest.mark.parametrize(("proxies", "taken"), [(0, False), (1, True)])
def test_ids_of_a_trusted_proxy(odc_config: Config, proxies: int, taken: bool) -> None:
    client = limited(odc_config, trusted_proxies=proxies)
    answer = client.get(f"{API}/nothing", headers={"X-Request-Id": "from-the-proxy"})
    assert (answer.headers["X-Request-Id"] == "from-the-proxy") is taken
    assert answer.get_json()["id"] == answer.headers["X-Request-Id"]
    odd = client.get(f"{API}/", headers={"X-Request-Id": "<script>alert(1)</script>"})
    assert re.fullmatch(r"[0-9a-f]{32}", odd.headers["X-Request-Id"])


def test_answers_to_users_are_not_kept(client: FlaskClient, bearer: dict[str, str]) -> None:
    for path in ("/me", "/jobs", "/files", "/process_graphs"):
        control = client.get(f"{API}{path}", headers=bearer).headers["Cache-Control"]
        assert "private" in control, path
