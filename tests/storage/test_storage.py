"""What each storage does: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure
from odc_openeo.storage import Storage, get_storage
from odc_openeo.storage.bucket_client import abort_uploads
from odc_openeo.storage.buckets import DEFAULT_ACCESS, Location
from tests.storage.conftest import CUT_SECONDS, Cut, InBucket
from tests.support.bucket_server import SECRET, Gate, Store

MIB = 2**20

KEYS = [
    "files/ada/plain.tif",
    "files/ada/a b+c%2F%20&=?#~[]{}^`|<>*!;@$,.tif",
    "files/ada/Größe/山/😀.tif",
    "files/ada/" + "n" * 200 + ".tif",
]


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    config = Config(data_dir=tmp_path / "data")
    if request.param == "bucket":
        in_bucket: InBucket = request.getfixturevalue("in_bucket")
        config = in_bucket(config)
    return get_storage(config)


@pytest.mark.parametrize("key", KEYS)
def test_files_come_back(storage: Storage, tmp_path: Path, key: str) -> None:
    storage.write(key, io.BytesIO(b"first"))
    storage.write(key, iter([b"second", b" time"]))
    with storage.open(key) as stream:
        assert stream.read() == b"second time"
    assert storage.size(key) == 11
    assert storage.walk("files/ada") == [key] == storage.walk(key)
    assert storage.get_status(key) == storage.list_files("files")[key]
    storage.copy(storage, key, "copies/" + key)
    assert storage.sizes("copies") == {"copies/" + key: 11}
    storage.delete(key)
    assert storage.walk("files") == []
    with pytest.raises(FileNotFoundError):
        storage.open(key)
    with pytest.raises(FileNotFoundError):
        storage.size(key)
    storage.delete(key)


@pytest.mark.parametrize(
    "key", ["", "..", "../x", "a/../../x", "/etc/x", "a\\b", "a\0b", ".", "files/../../x"]
)
def test_keys_stay_in_the_tree(storage: Storage, key: str) -> None:
    for use in (storage.open, storage.size, storage.walk, storage.delete, storage.list_folders):
        with pytest.raises(ValueError, match="not a key"):
            use(key)
    with pytest.raises(ValueError, match="not a key"):
        storage.write(key, io.BytesIO(b"x"))


def test_large_files_are_uploaded_in_parts(storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(20 * MIB + 7)
    (tmp_path / "large").write_bytes(content)
    storage.put(tmp_path / "large", "results/large.tif", "image/tiff")
    assert storage.size("results/large.tif") == len(content)
    with storage.open("results/large.tif") as stream:
        assert stream.read() == content
        stream.seek(9 * MIB)
        assert stream.read(3) == content[9 * MIB : 9 * MIB + 3]
        assert stream.seek(-5, io.SEEK_END) == len(content) - 5
        assert stream.read(10) == content[-5:]
        assert stream.read() == b""
        stream.seek(1)
        assert stream.read(1) == content[1:2]


def test_folders(storage: Storage, tmp_path: Path) -> None:
    top = tmp_path / "cube.zarr"
    for i in range(40):
        (top / f"c/{i % 4}").mkdir(parents=True, exist_ok=True)
        (top / f"c/{i % 4}/{i}").write_bytes(bytes([i]) * i)
    storage.put(top, "results/1/cube.zarr")
    storage.write("results/10/other.tif", io.BytesIO(b"x"))
    assert sum(storage.sizes("results/1").values()) == sum(range(40))
    assert len(storage.walk("results/1/cube.zarr")) == 40
    assert storage.size("results/1/cube.zarr") is None
    assert sorted(storage.list_folders("results")) == ["1", "10"]
    assert storage.list_folders("results/1/cube.zarr/c/0") == storage.list_folders("nothing") == []
    with zipfile.ZipFile(io.BytesIO(), "w") as archive, storage.open("results/1/cube.zarr/c/3/39") as stream:
        archive.writestr("x", stream.read())
    # A folder is not the one whose name begins with its name.
    storage.delete("results/1")
    assert storage.walk("results") == ["results/10/other.tif"]


def test_a_stream_that_fails_leaves_nothing(storage: Storage, request: pytest.FixtureRequest) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(3):
            yield bytes(9 * MIB)
        raise RuntimeError("the sender is gone")

    storage.write("files/ada/x", io.BytesIO(b"old"))
    with pytest.raises(RuntimeError, match="the sender is gone"):
        storage.write("files/ada/x", blocks())
    assert storage.sizes("files") == {"files/ada/x": 3}
    if storage.find_local_path("x") is None:
        store: Store = request.getfixturevalue("store")
        assert store.client.list_multipart_uploads(Bucket="data").get("Uploads", []) == []


def test_a_file_that_is_replaced_is_not_mixed(storage: Storage) -> None:
    storage.write("a", io.BytesIO(b"1" * 20 * MIB))
    with storage.open("a") as stream:
        start = stream.read(3 * MIB)
        storage.write("a", io.BytesIO(b"2" * 20 * MIB))
        if storage.find_local_path("a") is None:
            with pytest.raises(StorageFailure, match="replaced"):
                stream.read()
        else:
            assert set(start + stream.read()) == {ord("1")}


def test_files_move_between_storages(storage: Storage, in_bucket: InBucket, tmp_path: Path) -> None:
    other = get_storage(in_bucket(Config()))
    content = os.urandom(20 * MIB)
    storage.write("a", io.BytesIO(content))
    other.copy(storage, "a", "b")
    storage.copy(other, "b", "c")
    with storage.open("c") as stream:
        assert stream.read() == content
    with pytest.raises(FileNotFoundError):
        other.copy(storage, "nothing", "c")


def test_check(storage: Storage) -> None:
    assert storage.check().startswith("can write to ")
    assert storage.walk("x") == []


def test_folders_have_no_signed_urls(tmp_path: Path) -> None:
    assert get_storage(Config(data_dir=tmp_path)).sign_url("a", 10) is None


def test_unfinished_uploads_of_killed_processes(in_bucket: InBucket, store: Store) -> None:
    """Their parts are removed with the folder that they were for, and no others."""
    config = in_bucket(Config())
    top = config.storage.removeprefix("s3://data/")
    uploads: list[Any] = [
        store.client.create_multipart_upload(Bucket="data", Key=f"{top}/{key}")
        for key in ("results/1/a.tif", "results/10/a.tif")
    ]
    store.client.upload_part(
        Bucket="data", Key=uploads[0]["Key"], UploadId=uploads[0]["UploadId"], PartNumber=1, Body=b"x"
    )
    get_storage(config).delete("results/1")
    left = store.client.list_multipart_uploads(Bucket="data", Prefix=top)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{top}/results/10/a.tif"]
    # The server says that all uploads began in 2010.
    assert abort_uploads(Location("s3", "data"), DEFAULT_ACCESS, f"{top}/", age_s=1.5e9) == 0
    get_storage(config).remove_abandoned()
    assert store.client.list_multipart_uploads(Bucket="data", Prefix=top).get("Uploads", []) == []


def test_an_upload_in_parts_survives_a_cut(in_bucket: InBucket, gate: Gate, tmp_path: Path) -> None:
    """The store is out of reach for some seconds between two parts: a stored part is not sent again."""
    content = os.urandom(60 * MIB)
    (tmp_path / "large").write_bytes(content)
    storage = get_storage(in_bucket(Config()), patient=True)
    cut = Cut(gate, "partNumber=5", after="partNumber=1&")
    storage.put(tmp_path / "large", "results/large.tif", "image/tiff")
    assert cut.seconds >= CUT_SECONDS
    with storage.open("results/large.tif") as stream:
        assert stream.read() == content
    first = [r for r in gate.requests if r.method == "PUT" and "partNumber=1&" in r.path]
    assert len(first) == 1


def test_signed_urls(in_bucket: InBucket, environment: pytest.MonkeyPatch, gate: Gate) -> None:
    """They are for one object and one time, at the address where users reach the store."""
    config = in_bucket(Config())
    get_storage(config).write("results/1/a b.tif", io.BytesIO(b"content"))
    url = get_storage(config).sign_url("results/1/a b.tif", 60)
    assert url is not None
    assert requests.get(url, timeout=20).content == b"content"
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert SECRET not in url
    public = config.model_copy(update={"storage_public_endpoint": "https://files.example.org"})
    url = get_storage(public).sign_url("results/1/a b.tif", 60)
    assert url is not None
    assert url.startswith("https://files.example.org/data/")
    assert get_storage(public).size("results/1/a b.tif") == 7
