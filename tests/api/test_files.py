"""``/files``: kept whole or not at all, within paths, sizes and quotas; users do not see each other's."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, code

Headers = dict[str, str]


def sign_in(config: Config, name: str) -> Headers:
    token = accounts.issue_token(config, accounts.create_user(config, name, PASSWORD))
    return {"Authorization": f"Bearer basic//{token}"}


def paths(client: FlaskClient, bearer: Headers) -> list[str]:
    return [f["path"] for f in client.get(f"{API}/files", headers=bearer).get_json()["files"]]


def left(config: Config) -> list[str]:
    """What is in the storage beside locks."""
    top = config.data_dir / "storage"
    return sorted(p.name for p in top.rglob("*") if p.is_file() and p.name != ".lock")


def test_a_file_comes_back_as_it_was(client: FlaskClient, bearer: Headers) -> None:
    content = bytes(range(256)) * 100
    url = f"{API}/files/{quote('österreich/münster 1.shp')}"
    sent = client.put(url, data=content, headers=bearer)
    assert sent.status_code == 200
    document = sent.get_json()
    assert (document["path"], document["size"]) == ("österreich/münster 1.shp", len(content))
    assert document["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert paths(client, bearer) == ["österreich/münster 1.shp"]
    got = client.get(url, headers=bearer)
    assert got.data == content
    part = client.get(url, headers={**bearer, "Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, content[10:20])
    same = client.get(url, headers={**bearer, "If-None-Match": got.headers["ETag"]})
    assert same.status_code == 304
    head = client.head(url, headers=bearer)
    assert (head.content_length, head.data) == (len(content), b"")
    client.put(url, data=b"new", headers=bearer)
    assert client.get(url, headers=bearer).headers["ETag"] != got.headers["ETag"]


def test_deleting_removes_empty_folders(client: FlaskClient, bearer: Headers, odc_config: Config) -> None:
    for path in ("a/b/c.txt", "a/d.txt"):
        client.put(f"{API}/files/{path}", data=b"1", headers=bearer)
    assert code(client.delete(f"{API}/files/a/b", headers=bearer)) == "FileOperationUnsupported"
    assert code(client.get(f"{API}/files/a", headers=bearer)) == "FileOperationUnsupported"
    assert client.delete(f"{API}/files/a/b/c.txt", headers=bearer).status_code == 204
    assert not list((odc_config.data_dir / "storage").rglob("b"))
    assert paths(client, bearer) == ["a/d.txt"]
    missing = client.delete(f"{API}/files/a/b/c.txt", headers=bearer)
    assert (missing.status_code, code(missing)) == (404, "FileNotFound")


def test_files_are_listed_in_pages(client: FlaskClient, bearer: Headers) -> None:
    names = [f"{i}.txt" for i in range(5)]
    for name in names:
        client.put(f"{API}/files/{name}", data=b"1", headers=bearer)
    url, items = f"{API}/files?limit=2", []
    for _ in range(3):
        page = client.get(url, headers=bearer).get_json()
        items += [f["path"] for f in page["files"]]
        url = page["links"][0]["href"] if page["links"] else ""
    assert (items, url) == (names, "")


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "a/./x", ".hidden", "a/.b", "a%09b", "a%5Cb", "%ff", "a:b", "f" * 256,
     "/".join(["d" * 100] * 11), "a/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_paths_that_are_refused(
    client: FlaskClient, bearer: Headers, odc_config: Config, path: str, method: str
) -> None:
    answer = client.open(f"{API}/files/{path}", method=method, data=b"1", headers=bearer)
    assert (answer.status_code, code(answer)) == (400, "FilePathInvalid")
    assert left(odc_config) == []


def test_files_and_folders_do_not_mix(client: FlaskClient, bearer: Headers) -> None:
    client.put(f"{API}/files/a/b.txt", data=b"1", headers=bearer)
    for path in ("a", "a/b.txt/c"):
        assert code(client.put(f"{API}/files/{path}", data=b"2", headers=bearer)) == "FilePathInvalid"
    assert paths(client, bearer) == ["a/b.txt"]


def test_links_out_are_not_followed(
    client: FlaskClient, bearer: Headers, odc_config: Config, tmp_path: Path
) -> None:
    client.put(f"{API}/files/a.txt", data=b"1", headers=bearer)
    (tmp_path / "secret").write_text("secret")
    top = next((odc_config.data_dir / "storage" / "files").iterdir())
    (top / "file").symlink_to(tmp_path / "secret")
    (top / "folder").symlink_to(tmp_path)
    for path in ("file", "folder/secret"):
        assert code(client.get(f"{API}/files/{path}", headers=bearer)) == "FilePathInvalid"
        assert code(client.put(f"{API}/files/{path}", data=b"x", headers=bearer)) == "FilePathInvalid"
    assert (tmp_path / "secret").read_text() == "secret"
    assert paths(client, bearer) == ["a.txt"]


def test_users_are_apart(client: FlaskClient, bearer: Headers, odc_config: Config) -> None:
    other = sign_in(odc_config, "bob")
    client.put(f"{API}/files/a.txt", data=b"ada", headers=bearer)
    assert paths(client, other) == []
    assert code(client.get(f"{API}/files/a.txt", headers=other)) == "FileNotFound"
    client.put(f"{API}/files/a.txt", data=b"bob", headers=other)
    assert client.get(f"{API}/files/a.txt", headers=bearer).data == b"ada"
    assert code(client.get(f"{API}/files")) == "AuthenticationRequired"


@pytest.fixture
def limited(odc_config: Config) -> Config:
    limits = {"max_file_bytes": 3000, "user_storage_bytes": 4000, "max_body_bytes": 1024}
    return odc_config.model_copy(update=limits)


def test_file_limits_are_enforced(limited: Config) -> None:
    client, bearer = create_app(limited).test_client(), sign_in(limited, "eve")

    def put(name: str, size: int) -> str | None:
        answer = client.put(f"{API}/files/{name}", data=b"x" * size, headers=bearer)
        return None if answer.status_code == 200 else code(answer)

    assert put("a", 3001) == "FileSizeExceeded"
    assert put("a", 2500) is None, "the limit of JSON bodies is another"
    assert put("b", 1501) == "StorageQuotaExceeded"
    assert put("a", 3000) is None, "what is replaced does not count"
    assert put("b", 1000) is None
    me = client.get(f"{API}/me", headers=bearer).get_json()
    assert me["storage"] == {"free": 0, "quota": 4000}
    assert left(limited) == ["a", "b"]


@pytest.fixture
def address(app: Flask) -> Iterator[tuple[str, int]]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "127.0.0.1", server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_interrupted_upload_leaves_no_file(
    address: tuple[str, int], client: FlaskClient, bearer: Headers, odc_config: Config
) -> None:
    client.put(f"{API}/files/a.txt", data=b"old", headers=bearer)
    head = f"PUT {API}/files/a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    with socket.create_connection(address) as sender:
        sender.sendall(f"{head}Authorization: {bearer['Authorization']}\r\n\r\nhalf".encode())
        sender.shutdown(socket.SHUT_WR)
        assert b" 400 " in sender.recv(1000)
    assert client.get(f"{API}/files/a.txt", headers=bearer).data == b"old"
    assert left(odc_config) == ["a.txt"]
