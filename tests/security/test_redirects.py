"""The host that a client names is never where it is sent, and in no answer if there is a public URL."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.html import HTML
from tests.api.test_edge import addresses

EVIL = "evil.example"
SPELLINGS = ("//{0}", "/{0}/", "//{0}//", "///{0}", "/{0}//", "/%2f{0}", "/./{0}", "/{0}?next=1")


def ask(app: Flask, address: str, method: str = "GET", **headers: str) -> TestResponse:
    """Send a request whose path is as it is given, which the test client would take for a URL."""
    path, _, query = address.partition("?")
    environ = EnvironBuilder("/", method=method, headers=headers, query_string=query).get_environ()
    environ["PATH_INFO"] = unquote(path)
    return app.test_client().open(environ)


def spell(path: str) -> list[str]:
    return [spelling.format(path.lstrip("/")) for spelling in SPELLINGS]


def test_redirects_never_lead_to_the_host_of_the_client(client: FlaskClient, bearer: dict[str, str]) -> None:
    count = 0
    for path, _ in addresses(client.application):
        for address in [path, *spell(path), path.replace("/", "//"), f"//{EVIL}{path}", f"/{EVIL}//{path}"]:
            for headers in ({}, HTML, bearer):
                answer = ask(client.application, address, **{**headers, "Host": EVIL})
                if "Location" in answer.headers:
                    count += 1
                    target = urlsplit(answer.headers["Location"])
                    assert not target.scheme, (address, answer.headers["Location"])
                    assert not target.netloc, (address, answer.headers["Location"])
                    assert not answer.headers["Location"].startswith(("//", "/\\")), address
    assert count > 20


@pytest.mark.parametrize("public_url", ["https://eo.example.org", "https://eo.example.org/cube"])
def test_with_a_public_url_no_answer_holds_the_host(odc_config: Config, public_url: str) -> None:
    app = create_app(odc_config.model_copy(update={"public_url": public_url}))
    lies = {
        "Host": EVIL,
        "X-Forwarded-Host": EVIL,
        "X-Forwarded-Server": EVIL,
        "X-Original-URL": f"http://{EVIL}/",
        "Forwarded": f"host={EVIL}",
    }
    for path, methods in addresses(app):
        for method in sorted(methods):
            for address in (path, "/" + path):
                answer = ask(app, address, method, **lies)
                assert EVIL not in str(answer.headers), (method, address)
                assert EVIL not in answer.get_data(as_text=True), (method, address)


def test_merged_slashes_keep_query_and_prefix(odc_config: Config) -> None:
    answer = ask(create_app(odc_config), "/openeo//1.3/collections?limit=1&x=%2F")
    assert answer.status_code == 308
    assert answer.headers["Location"] == "/openeo/1.3/collections?limit=1&x=%2F"
    behind = odc_config.model_copy(update={"public_url": "https://eo.example.org/cube/"})
    answer = ask(create_app(behind), "/openeo/1.3//collections")
    assert answer.headers["Location"] == "/cube/openeo/1.3/collections"


@pytest.mark.parametrize(
    "to", [f"//{EVIL}", f"https://{EVIL}", f"/\\{EVIL}", f"/my/\\{EVIL}", "/my/\r\nx: y"]
)
def test_sign_in_leads_to_our_own_pages_only(client: FlaskClient, to: str) -> None:
    page = client.get("/sign-in", query_string={"to": to}, headers=HTML)
    assert page.status_code == 200
    answer = client.get("/my/jobs", headers={**HTML, "Host": EVIL})
    assert answer.status_code == 303
    assert not urlsplit(answer.headers["Location"]).netloc
