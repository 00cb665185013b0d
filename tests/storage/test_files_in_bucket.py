"""``/files`` in a bucket: the same promises as in a folder, and what only a bucket can do wrong."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import numpy as np
import pytest
import rasterio
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.errors import FileNotFound, StorageQuotaExceeded
from odc_openeo.storage import get_storage
from odc_openeo.user_data import files
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, code
from tests.storage.conftest import InBucket
from tests.support import bucket_server
from tests.support.bucket_server import Gate, Store

Headers = dict[str, str]
MIB = 2**20


@pytest.fixture
def config(odc_config: Config, in_bucket: InBucket) -> Config:
    return in_bucket(odc_config)


@pytest.fixture
def client(config: Config) -> FlaskClient:
    return create_app(config).test_client()


def sign_in(config: Config, name: str) -> Headers:
    token = accounts.issue_token(config, accounts.create_user(config, name, PASSWORD))
    return {"Authorization": f"Bearer basic//{token}"}


def paths(client: FlaskClient, bearer: Headers) -> list[str]:
    return [f["path"] for f in client.get(f"{API}/files", headers=bearer).get_json()["files"]]


def put(client: FlaskClient, bearer: Headers, path: str, content: bytes = b"x") -> Any:
    return client.put(f"{API}/files/{quote(path)}", data=content, headers=bearer)


def test_a_file_comes_back_as_it_was(
    config: Config, client: FlaskClient, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    bearer = sign_in(config, "ada")
    content = os.urandom(20 * MIB + 3)
    url = f"{API}/files/{quote('österreich/münster 1%2F+.shp')}"
    sent = client.put(url, data=content, headers=bearer)
    assert sent.status_code == 200, sent.get_json()
    document = sent.get_json()
    assert (document["path"], document["size"]) == ("österreich/münster 1%2F+.shp", len(content))
    assert document["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert sum("partNumber" in r.path for r in gate.requests if r.method == "PUT") == 3
    assert paths(client, bearer) == ["österreich/münster 1%2F+.shp"]
    response = client.get(url, headers=bearer)
    assert response.data == content
    part = client.get(url, headers={**bearer, "Range": f"bytes={9 * MIB}-{9 * MIB + 9}"})
    assert (part.status_code, part.data) == (206, content[9 * MIB : 9 * MIB + 10])
    same = client.get(url, headers={**bearer, "If-None-Match": response.headers["ETag"]})
    assert same.status_code == 304
    head = client.head(url, headers=bearer)
    assert (head.content_length, head.data) == (len(content), b"")
    client.put(url, data=b"new", headers=bearer)
    assert client.get(url, headers=bearer).headers["ETag"] != response.headers["ETag"]
    assert client.delete(url, headers=bearer).status_code == 204
    assert client.get(url, headers=bearer).status_code == 404
    assert get_storage(config).walk("files") == []
    assert bucket_server.SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "path", ["../{ada}/secret", "a/../../{ada}/secret", "..%2f{ada}%2fsecret", "%2e%2e/{ada}/secret", "a//b"]
)
def test_users_do_not_reach_each_other(config: Config, client: FlaskClient, path: str) -> None:
    ada = accounts.create_user(config, "ada", PASSWORD)
    bearer = {"Authorization": f"Bearer basic//{accounts.issue_token(config, ada)}"}
    eve = sign_in(config, "eve")
    assert put(client, bearer, "secret", b"ada's").status_code == 200
    for send in (client.get, client.put, client.delete):
        response = send(f"{API}/files/{path.format(ada=ada.id)}", headers=eve)
        assert response.status_code in (400, 404)
    assert paths(client, eve) == []
    assert client.get(f"{API}/files/secret", headers=eve).status_code == 404
    assert client.get(f"{API}/files//secret", headers=eve).status_code in (308, 400, 404)
    assert client.get(f"{API}/files/secret", headers=bearer).data == b"ada's"


def test_names_that_a_folder_would_not_take(config: Config, client: FlaskClient) -> None:
    bearer = sign_in(config, "ada")
    assert put(client, bearer, "a/b").status_code == 200
    for path in ("a", "a/b/c", "x" * 256, "y/" * 511 + "y", "a\u202eb", "ü" * 500):
        response = put(client, bearer, path)
        assert (response.status_code, code(response)) == (400, "FilePathInvalid"), path
    assert client.get(f"{API}/files/a", headers=bearer).get_json()["code"] == "FileOperationUnsupported"
    assert client.delete(f"{API}/files/a", headers=bearer).get_json()["code"] == "FileOperationUnsupported"
    # A name that begins with another one is not below it.
    assert put(client, bearer, "a/bc").status_code == 200
    assert client.delete(f"{API}/files/a/b", headers=bearer).status_code == 204
    assert paths(client, bearer) == ["a/bc"]


class Slow(io.RawIOBase):
    """A body without an announced size; it fails after some blocks if it is told to."""

    def __init__(self, size: int, fails: bool = False) -> None:
        self.left, self.fails = size, fails

    def read(self, size: int = -1) -> bytes:
        count = min(size, self.left)
        self.left -= count
        if not count and self.fails:
            raise OSError("connection reset")
        return bytes(count)


def test_uploads_that_lie_or_end_early_leave_nothing(config: Config, store: Store) -> None:
    user = str(accounts.create_user(config, "ada", PASSWORD).id)
    config = config.model_copy(update={"max_file_bytes": 12 * MIB, "user_storage_bytes": 20 * MIB})
    for stream, length in ((Slow(30 * MIB), None), (Slow(30 * MIB), 5), (Slow(11 * MIB, True), 12 * MIB)):
        with pytest.raises(Exception, match="too large|ended before"):
            files.receive_file(config, user, "x", stream, length)
    top = config.storage.removeprefix("s3://data/")
    assert store.client.list_multipart_uploads(Bucket="data", Prefix=top).get("Uploads", []) == []
    assert get_storage(config).walk("files") == []


def test_uploads_at_the_same_time_keep_the_quota(config: Config) -> None:
    user = str(accounts.create_user(config, "ada", PASSWORD).id)
    config = config.model_copy(update={"user_storage_bytes": 5 * MIB})
    barrier = threading.Barrier(4)

    def upload(number: int) -> bool:
        barrier.wait(20)
        try:
            files.receive_file(config, user, f"file-{number}", Slow(2 * MIB), None)
        except StorageQuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(upload, range(4))) == 2
    assert files.count_used_bytes(config, user) == 4 * MIB


def test_a_store_that_fails_is_not_our_fault(config: Config, client: FlaskClient, gate: Gate) -> None:
    bearer = sign_in(config, "ada")
    assert put(client, bearer, "a.tif").status_code == 200
    denied = bucket_server.make_error(403, "AccessDenied", "Access Denied")
    gate.rules.append(lambda request: denied)
    for response in (
        client.get(f"{API}/files/a.tif", headers=bearer),
        client.get(f"{API}/files", headers=bearer),
        put(client, bearer, "b.tif"),
        client.delete(f"{API}/files/a.tif", headers=bearer),
    ):
        assert (response.status_code, code(response)) == (500, "StorageFailure")
        text = response.get_data(as_text=True)
        for secret in ("127.0.0.1", "s3://", bucket_server.KEY, "Traceback", "retries"):
            assert secret not in text
    gate.rules.clear()
    assert client.get(f"{API}/files/a.tif", headers=bearer).data == b"x"


def test_copies_for_libraries_are_never_out_of_date(config: Config, tmp_path: Path) -> None:
    ada, eve = (str(accounts.create_user(config, name, PASSWORD).id) for name in ("ada", "eve"))
    for value in (1, 2):
        image = tmp_path / f"{value}.tif"
        profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
        with rasterio.open(image, "w", **profile) as file:
            file.write(np.full((1, 4, 4), value, "uint8"))
        with image.open("rb") as stream:
            files.receive_file(config, ada, "maps/a.tif", stream, None)
        copy = files.get_local_path(config, ada, "maps/a.tif")
        assert copy == files.get_local_path(config, ada, "/maps/a.tif")
        with rasterio.open(copy) as file:
            assert (file.read() == value).all()
    assert copy.name == "a.tif"
    assert str(UUID(ada)) == ada
    with pytest.raises(FileNotFound):
        files.get_local_path(config, eve, "maps/a.tif")
    with pytest.raises(FileNotFound):
        files.get_local_path(config, ada, "maps/b.tif")
