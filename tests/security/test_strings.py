"""Strings that nothing can store, wherever a request may hold them: refused, never a server error."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from odc_openeo.api.json_body import read_json_object
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.errors import RequestInvalid
from odc_openeo.untrusted.strict_json import check_string, parse_json
from tests.api.conftest import API, addition
from tests.api.html import HTML, form_key
from tests.api.test_edge import addresses

BAD = {
    "NUL": "\\u0000",
    "high surrogate": "\\ud800",
    "low surrogate": "\\uDFFF",
    "reversed pair": "\\udc00\\ud800",
}


@pytest.mark.parametrize("escape", BAD.values(), ids=list(BAD))
@pytest.mark.parametrize(
    "text",
    [
        '{"a": "%s"}',
        '{"a%s": 1}',
        '[{"x": [["b", "%s"]]}]',
        '"%s"',
        '{"a": {"%s": null}}',
        '{"a": "\\u0041x%sy"}',
    ],
)
def test_json_with_such_strings_is_refused(text: str, escape: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_json(text % escape)


def test_json_with_other_strings_is_parsed() -> None:
    value = {"a\\u0000": ["\\ud800 as text", "😀", "\u0001", 10**307, "9" * 400]}
    for ensure_ascii in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii)) == value


def test_integers_beyond_float_are_refused() -> None:
    for value in (10**309, -(10**400), 2 * int(1.7e308)):
        with pytest.raises(RequestInvalid, match="integer"):
            parse_json(json.dumps({"a": [value]}))


def test_every_body_is_read_by_the_same_parser(client: FlaskClient, bearer: dict[str, str]) -> None:
    """No address that takes JSON lets such a string through, whichever member holds it."""
    app = client.application
    for path, methods in addresses(app):
        for method in sorted(methods & {"POST", "PUT", "PATCH"}):
            if "/files/" in path or not path.startswith(API):
                continue
            for escape in BAD.values():
                for body in (f'{{"title": "{escape}"}}', f'{{"{escape}": 1}}'):
                    answer = client.open(
                        path, method=method, data=body, content_type="application/json", headers=bearer
                    )
                    assert 400 <= answer.status_code < 500, (method, path, body)


@pytest.mark.parametrize(
    "raw", [b'{"a": "\xed\xa0\x80"}', '{"a": "\0"}'.encode("utf-16"), b'{"a": "\0"}', b"\xff"]
)
def test_bodies_are_strict_utf8(config: Config, raw: bytes) -> None:
    app = create_app(config)
    body = {"data": raw, "content_type": "application/json"}
    with app.test_request_context("/", method="POST", **body), pytest.raises(RequestInvalid):
        read_json_object()


def test_nul_in_every_part_of_a_request(client: FlaskClient, bearer: dict[str, str]) -> None:
    basic = b64encode(b"a\0b:c\0d").decode()
    requests: list[dict[str, Any]] = [
        {"path": f"{API}/collections/a%00b"},
        {"path": f"{API}/files/a%00b", "headers": bearer},
        {"path": f"{API}/jobs/%00", "headers": bearer},
        {"path": f"{API}/jobs", "query_string": "limit=1&after=%00", "headers": bearer},
        {"path": f"{API}/search", "query_string": "ids=%00"},
        {"path": f"{API}/search", "query_string": "filter=id%20=%20'%00'"},
        {"path": f"{API}/search", "query_string": "filter-lang=cql2-json&filter=" + quote('"\\u0000"')},
        {"path": f"{API}/search", "query_string": "%00=1"},
        {"path": f"{API}/credentials/basic", "headers": {"Authorization": f"Basic {basic}"}},
        {"path": "/", "headers": {"Cookie": 'openeo-session="\\000"'}},
        {"path": "/collections/%00", "headers": HTML},
        {"path": "/sign-in", "query_string": "to=%00", "headers": HTML},
    ]
    client = client.application.test_client(use_cookies=False)
    for request in requests:
        answer = client.get(**request)
        assert answer.status_code == 400, request
        if request["path"].startswith(API):
            assert answer.get_json()["code"] == "RequestInvalid"


def test_strings_of_forms(client: FlaskClient) -> None:
    key = form_key(client.get("/sign-in", headers=HTML))
    for fields in ({"name": "a\0b"}, {"password": "a\0b"}, {"to": "\0"}, {"a\0b": "c"}):
        data = {"form_key": key, "name": "ada", "password": "x", **fields}
        assert client.post("/sign-in", data=data, headers=HTML).status_code == 400, fields


def test_headers_that_are_not_ascii(client: FlaskClient) -> None:
    for header in ("Basic \xe9", "Bearer \xe9", "\xe9", "Digest \xff"):
        answer = client.get(f"{API}/credentials/basic", headers={"Authorization": header})
        assert answer.status_code == 403, header


def test_a_string_that_is_refused_leaves_nothing(client: FlaskClient, bearer: dict[str, str]) -> None:
    body = json.dumps({**addition(), "summary": "HERE"}).replace("HERE", "\\ud800")
    assert client.put(f"{API}/process_graphs/p", data=body, headers=bearer).status_code == 400
    assert client.get(f"{API}/process_graphs", headers=bearer).get_json()["processes"] == []


def test_numbers_in_paths_and_queries(client: FlaskClient, bearer: dict[str, str]) -> None:
    for digits in ("9" * 30, "9" * 400, "9" * 4400, "%D9%A3"):
        none = "00000000-0000-0000-0000-000000000000"
        for path in (
            f"/services/{none}/{digits}/0/0",
            f"/services/{none}/1/{digits}/0",
            f"/services/{none}/wmts/x/{digits}/{digits}/{digits}",
            f"/results/{none}/{digits}/x/y",
            f"{API}/search?limit={digits}",
            f"{API}/jobs?limit={digits}",
            f"{API}/jobs/{none}/logs?offset={digits}",
            f"/?page={digits}",
        ):
            assert client.get(path, headers=bearer).status_code < 500, path


def test_which_strings_are_refused() -> None:
    for value in ("a\0", "\ud800", "x\udfff"):
        with pytest.raises(RequestInvalid):
            check_string(value)
    for value in ("", "é", "😀", "\ufffd", "\ud7ff\ue000", "\x01"):
        check_string(value)
