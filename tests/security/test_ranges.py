"""Range requests (RFC 9110, 14) of every address that gives files."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API, addition
from tests.catalog.scenes import PRODUCT, Index, scene

CONTENT = b"0123456789"


@pytest.fixture
def downloads(
    odc_config: Config, client: FlaskClient, bearer: dict[str, str], tmp_path: Path
) -> dict[str, bytes]:
    """Addresses of files of a user, and of a dataset; and what they give."""
    index = Index()
    index.add_product(PRODUCT)
    document = scene(tmp_path / "scene", 1, "2022-06-01T10:00:00Z")
    index.add(document)
    index.datacube.close()
    client.put(f"{API}/files/a.txt", data=CONTENT, headers=bearer)
    items = client.get(f"{API}/collections/{PRODUCT['name']}/items").get_json()["features"]
    asset = next(iter(items[0]["assets"].values()))["href"].removeprefix("http://localhost")
    return {f"{API}/files/a.txt": CONTENT, asset: client.get(asset).data}


IGNORED = (
    *(
        "items=0-1",
        "seconds=1-2",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=--1",
        "=0-1",
    ),
    *("bytes=0-1,3-4", "bytes=0-0,-1", "bytes=0-1, 99999999-", "bytes=" + "9" * 4400 + "-", "0-1", "\u0663"),
)


def test_ranges_that_are_ignored(
    client: FlaskClient, bearer: dict[str, str], downloads: dict[str, bytes]
) -> None:
    for address, content in downloads.items():
        for header in IGNORED:
            sent = header.encode().decode("latin-1")
            answer = client.get(address, headers={**bearer, "Range": sent})
            assert (answer.status_code, answer.data) == (200, content), header
            assert "Content-Range" not in answer.headers


def test_ranges_that_are_served(
    client: FlaskClient, bearer: dict[str, str], downloads: dict[str, bytes]
) -> None:
    for address, content in downloads.items():
        size = len(content)
        parts = {
            "bytes=0-0": (0, 1),
            "bytes=2-4": (2, 5),
            "Bytes=2-": (2, size),
            "bytes=-3": (size - 3, size),
            f"bytes=-{size + 5}": (0, size),
            "bytes=1-99999999999999": (1, size),
            f"bytes={size - 1}-": (size - 1, size),
        }
        for header, (start, stop) in parts.items():
            answer = client.get(address, headers={**bearer, "Range": header})
            assert answer.status_code == 206, header
            assert answer.data == content[start:stop], header
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
            assert int(answer.headers["Content-Length"]) == stop - start


def test_ranges_after_the_end(
    client: FlaskClient, bearer: dict[str, str], downloads: dict[str, bytes]
) -> None:
    for address, content in downloads.items():
        for header in (f"bytes={len(content)}-", f"bytes={len(content)}-{len(content) + 5}", "bytes=-0"):
            answer = client.get(address, headers={**bearer, "Range": header})
            assert answer.status_code == 416, header
            assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_conditions_come_before_ranges(
    client: FlaskClient, bearer: dict[str, str], downloads: dict[str, bytes]
) -> None:
    for address, content in downloads.items():
        etag = client.get(address, headers=bearer).headers["ETag"]
        beyond = {**bearer, "Range": f"bytes={len(content)}-"}
        assert client.get(address, headers={**beyond, "If-None-Match": etag}).status_code == 304
        assert client.get(address, headers={**beyond, "If-Range": '"other"'}).data == content
        part = {**bearer, "Range": "bytes=1-2"}
        assert client.get(address, headers={**part, "If-Range": etag}).data == content[1:3]
        assert client.get(address, headers={**part, "If-Range": '"other"'}).data == content


def test_ranges_are_for_get_only(
    client: FlaskClient, bearer: dict[str, str], downloads: dict[str, bytes]
) -> None:
    for address, content in downloads.items():
        answer = client.head(address, headers={**bearer, "Range": "bytes=0-0"})
        assert (answer.status_code, int(answer.headers["Content-Length"])) == (200, len(content))
    for header in ("items=0-1", "bytes=0-0", "bytes=99999-"):
        answer = client.post(
            f"{API}/result", json={"process": addition()}, headers={**bearer, "Range": header}
        )
        assert (answer.status_code, answer.data.strip()) == (200, b"2")


def test_ranges_of_the_editor(odc_config: Config, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(CONTENT)
    app: Flask = create_app(odc_config.model_copy(update={"web_editor_dir": tmp_path}))
    client = app.test_client()
    assert client.get("/editor/index.html", headers={"Range": "items=0-1"}).data == CONTENT
    assert client.get("/editor/index.html", headers={"Range": "bytes=1-2"}).data == b"12"
    assert client.get("/editor/index.html", headers={"Range": "bytes=10-"}).status_code == 416
