"""Scenes in buckets of an S3 server: values as in the files, and what is said when they cannot be read."""

from __future__ import annotations

import logging
import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import morecantile
import numpy as np
import pytest
import rioxarray  # noqa: F401  (the accessor `rio`)
import xarray as xr
import yaml
from pyproj import Transformer
from rasterio.io import MemoryFile

from odc_openeo.app import create_app
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, FileContentInvalid, StorageFailure
from odc_openeo.load import object_environment
from odc_openeo.load.bucket_check import check_buckets
from odc_openeo.load.object_environment import forget_credentials
from odc_openeo.stack import doctor
from odc_openeo.users import accounts
from tests.catalog.scenes import Index, bands_of, scene
from tests.load.test_load_collection import load
from tests.support import bucket_server
from tests.support.bucket_server import KEY, SECRET, Gate, Store

API = "/openeo/1.3"

pytest.importorskip("boto3", reason="needs the extra s3")
pytest.importorskip("moto.server", reason="needs moto[server], an S3 server for tests")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with bucket_server.start_store() as server:
        yield server


@pytest.fixture
def gate(store: Store) -> Iterator[Gate]:
    with bucket_server.open_gate(store.port) as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials but those that a test sets."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws" / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws" / "config"))
    forget_credentials()
    yield
    forget_credentials()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


Open = Callable[..., Catalog]


@pytest.fixture
def open_catalog(odc_config: Config, index: Index, tmp_path: Path) -> Iterator[Open]:
    """Opens the catalogue with rules for buckets."""
    catalogs = []

    def open_with(prefixes: dict[str, Any] | None = None, products: dict[str, Any] | None = None) -> Catalog:
        file = tmp_path / "buckets.yaml"
        file.write_text(yaml.safe_dump({"prefixes": prefixes or {}, "products": products or {}}))
        catalogs.append(Catalog(odc_config.model_copy(update={"buckets": file})))
        return catalogs[-1]

    yield open_with
    for catalog in catalogs:
        catalog.close()


@pytest.fixture
def remote(index: Index, store: Store, tmp_path: Path) -> np.ndarray:
    """A scene in the bucket and nowhere else; its values of B04."""
    name = f"scene-{tmp_path.name}"
    index.add(store.put_scene(scene(tmp_path / name, 1, "2022-06-01T10:00:00Z")))
    for file in (tmp_path / name).glob("*.tif"):
        file.unlink()
    return bands_of(1)["B04"][1]


def read(catalog: Catalog) -> xr.DataArray:
    return load(catalog, box=None, bands=["B04"])[0, 0].compute(scheduler="threads")


def fail(catalog: Catalog) -> str:
    with pytest.raises(StorageFailure) as caught:
        read(catalog)
    assert SECRET not in caught.value.message
    assert KEY not in caught.value.message
    assert str(Path.home()) not in caught.value.message
    return caught.value.message


def test_values_of_a_signed_bucket(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    gate.rules.append(bucket_server.demand_signature)
    catalog = open_catalog({"s3://data": {"endpoint": gate.url, "region": "us-east-1"}})
    np.testing.assert_array_equal(read(catalog), remote)
    assert all(KEY in request.headers["authorization"] for request in gate.requests)


def test_keys_are_in_no_graph_and_no_log(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="rasterio")
    caplog.set_level(logging.DEBUG, logger="odc_openeo")
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    data = load(catalog, box=None, bands=["B04"])
    data.compute(scheduler="threads")
    gate.rules.append(lambda request: bucket_server.make_error(404, "NoSuchKey", "Gone"))
    with pytest.raises(StorageFailure):
        load(catalog, box=None, bands=["B08"]).compute(scheduler="threads")
    graph = dict(data.__dask_graph__())
    assert "rasterio" in caplog.text
    for text in (caplog.text, repr(graph), repr(pickle.dumps(graph)), repr(data.__dask_keys__())):
        assert SECRET not in text
        assert KEY not in text
    # The owner of a job sees these: what the library says, with places of this machine, is the operator's.
    forwarded = [r.getMessage() for r in caplog.records if r.name.startswith(("rasterio", "odc_openeo.load"))]
    assert not any(gate.url in text for text in forwarded)


def test_replaced_objects_are_read_again(
    open_catalog: Open,
    remote: np.ndarray,
    gate: Gate,
    keys: None,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    np.testing.assert_array_equal(read(catalog), remote)
    scene(tmp_path / "new", 2, "2022-06-01T10:00:00Z")
    store.client.upload_file(str(tmp_path / "new" / "B04.tif"), "data", f"scene-{tmp_path.name}/B04.tif")
    monkeypatch.setattr(object_environment, "FRESH_S", 0.0)
    np.testing.assert_array_equal(read(catalog), bands_of(2)["B04"][1])


def test_unsigned_requests_have_no_signature(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, store: Store
) -> None:
    gate.rules.append(bucket_server.refuse_signature)
    signed = open_catalog({"s3://data": {"endpoint": gate.url}})
    assert "the credentials of the service are not accepted" in fail(signed)
    unsigned = open_catalog({"s3://data": {"endpoint": gate.url, "unsigned": True}})
    assert "access is denied (403)" in fail(unsigned)
    store.publish()
    np.testing.assert_array_equal(read(unsigned), remote)


def test_requester_pays(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    gate.rules.append(bucket_server.demand_payer)
    assert "requester_pays" in fail(open_catalog({"s3://data": {"endpoint": gate.url}}))
    catalog = open_catalog({"s3://data": {"endpoint": gate.url, "requester_pays": True}})
    np.testing.assert_array_equal(read(catalog), remote)


def test_endpoints_of_the_environment(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    np.testing.assert_array_equal(read(open_catalog()), remote)
    assert KEY in gate.requests[0].headers["authorization"]


def test_profiles(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, tmp_path: Path) -> None:
    catalog = open_catalog(products={"tiny_s2": {"endpoint": gate.url, "profile": "archive"}})
    assert "the AWS profile 'archive'" in fail(catalog)
    (tmp_path / "aws").mkdir()
    (tmp_path / "aws" / "credentials").write_text(
        "[archive]\naws_access_key_id = AKIAARCHIVE\naws_secret_access_key = another\n"
    )
    (tmp_path / "aws" / "config").write_text("[profile archive]\nregion = eu-central-1\n")
    np.testing.assert_array_equal(read(catalog), remote)
    assert "AKIAARCHIVE/" in gate.requests[0].headers["authorization"]
    assert "/eu-central-1/s3/" in gate.requests[0].headers["authorization"]
    assert not any("x-amz-security-token" in request.headers for request in gate.requests)


def test_missing_credentials(open_catalog: Open, remote: np.ndarray, gate: Gate) -> None:
    message = fail(open_catalog({"s3://data": {"endpoint": gate.url}}))
    assert re.fullmatch(
        r"Band B04 of dataset \S+ cannot be read from s3://data/scene-\S+/B04\.tif: the service has no "
        r"credentials for it\. .*Operators: set AWS_ACCESS_KEY_ID.*'unsigned'.*",
        message,
    )
    assert not gate.requests


def test_credentials_that_are_denied(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    denied = bucket_server.make_error(403, "AccessDenied", "Access Denied")
    gate.rules.append(lambda request: denied)
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    assert "access is denied (403)" in fail(catalog)
    # The same process reads as soon as the operator has given the right.
    gate.rules.clear()
    np.testing.assert_array_equal(read(catalog), remote)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ExpiredToken", "The provided token has expired."),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match the signature."),
    ],
)
def test_refused_credentials(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, code: str, text: str
) -> None:
    refused = bucket_server.make_error(400 if code == "ExpiredToken" else 403, code, text)
    gate.rules.append(lambda request: refused)
    assert "the credentials of the service are not accepted" in fail(
        open_catalog({"s3://data": {"endpoint": gate.url}})
    )


def test_wrong_region(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    def demand_region(request: bucket_server.Request) -> bucket_server.Answer | None:
        if "/eu-central-1/s3/" in request.headers["authorization"]:
            return None
        text = (
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'"
        )
        return bucket_server.make_error(400, "AuthorizationHeaderMalformed", text, more)

    gate.rules.append(demand_region)
    more = ""
    catalog = open_catalog({"s3://data": {"endpoint": gate.url, "region": "us-east-1"}})
    message = fail(catalog)
    assert "the bucket is in another region" in message
    assert "'region'" in message
    # Amazon's answer names the region, and then GDAL uses it.
    more = "<Region>eu-central-1</Region>"
    np.testing.assert_array_equal(read(catalog), remote)
    right = open_catalog({"s3://data": {"endpoint": gate.url, "region": "eu-central-1"}})
    np.testing.assert_array_equal(read(right), remote)


def test_vanished_object(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, store: Store, tmp_path: Path
) -> None:
    key = f"scene-{tmp_path.name}/B04.tif"
    content = store.client.get_object(Bucket="data", Key=key)["Body"].read()
    store.client.delete_object(Bucket="data", Key=key)
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    message = fail(catalog)
    assert f"s3://data/{key}: the object does not exist. Leave the dataset out" in message
    assert len(gate.requests) < 4
    store.client.put_object(Bucket="data", Key=key, Body=content)
    np.testing.assert_array_equal(read(catalog), remote)


def test_missing_bucket(open_catalog: Open, index: Index, gate: Gate, keys: None, tmp_path: Path) -> None:
    document = scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z")
    index.add({**document, "location": "s3://no-such-bucket/a/x.yaml"})
    message = fail(open_catalog({"s3://no-such-bucket": {"endpoint": gate.url}}))
    assert "s3://no-such-bucket/a/B04.tif: the bucket does not exist" in message


def test_damaged_object(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, store: Store, tmp_path: Path
) -> None:
    store.client.put_object(Bucket="data", Key=f"scene-{tmp_path.name}/B04.tif", Body=b"II*\0" + b"x" * 9000)
    message = fail(open_catalog({"s3://data": {"endpoint": gate.url}}))
    assert "the object is damaged" in message


# --- Throttling and lost connections -------------------------------------------------------------


def test_throttling_is_waited_out(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    throttled = []

    def throttle_often(request: bucket_server.Request) -> bucket_server.Answer | None:
        throttled.append(request)
        return bucket_server.throttle(request) if len(throttled) < 8 else None

    gate.rules.append(throttle_often)
    np.testing.assert_array_equal(read(open_catalog({"s3://data": {"endpoint": gate.url}})), remote)


def test_throttling_without_end(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    gate.rules.append(bucket_server.throttle)
    start = time.monotonic()
    with pytest.raises(StorageFailure, match="the store is throttling requests. Please try again") as caught:
        read(open_catalog({"s3://data": {"endpoint": gate.url, "retry_seconds": 1}}))
    assert time.monotonic() - start < 20
    assert not caught.value.is_permanent


def test_an_unreachable_store(open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None) -> None:
    gate.cut()
    catalog = open_catalog({"s3://data": {"endpoint": gate.url, "retry_seconds": 0.5}})
    assert "the store cannot be reached" in fail(catalog)
    gate.restore()
    np.testing.assert_array_equal(read(catalog), remote)


def test_lost_connections_never_change_values(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None
) -> None:
    """Every third answer is lost, cut short, or an error."""
    count = 0

    def spoil(request: bucket_server.Request) -> bucket_server.Answer | None:
        nonlocal count
        count += 1
        if count % 3:
            return None
        good = gate.forward(request)
        if count % 2:
            return bucket_server.Answer(500)
        # A length that does not come.
        headers = {**good.headers, "Content-Length": str(len(good.body) + 10)}
        return bucket_server.Answer(
            good.status, good.body[: len(good.body) // 2], {**headers, "Connection": "close"}
        )

    gate.rules.append(spoil)
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    for _ in range(4):
        np.testing.assert_array_equal(read(catalog), remote)


def test_layers_of_netcdf_files(
    open_catalog: Open, index: Index, gate: Gate, keys: None, store: Store, tmp_path: Path
) -> None:
    """GDAL would read them in a thread without credentials, and wait for ever."""
    values = bands_of(5)["B04"][1]
    y, x = 5200000 - 10 * np.arange(60) - 5.0, 600000 + 10 * np.arange(80) + 5.0
    layer = xr.DataArray(values, dims=("y", "x"), coords={"y": y, "x": x}, name="red")
    key = f"{tmp_path.name}/scene.nc"
    layer.rio.write_crs(32632).to_netcdf(tmp_path / "scene.nc")
    store.client.upload_file(str(tmp_path / "scene.nc"), "data", key)
    document = scene(tmp_path / "a", 5, "2022-06-01T10:00:00Z")
    document["measurements"]["B04"] = {"path": "scene.nc", "layer": "red"}
    document["measurements"]["B08"] = {"path": "scene.nc"}
    index.add({**document, "location": f"s3://data/{key}"})
    gate.rules.append(bucket_server.demand_signature)
    catalog = open_catalog({"s3://data": {"endpoint": gate.url}})
    with pytest.raises(FeatureUnsupported, match=r"netCDF files in buckets: band B04 of dataset"):
        read(catalog)
    with pytest.raises((StorageFailure, FileContentInvalid)):
        load(catalog, box=None, bands=["B08"]).compute(scheduler="threads")


# --- Doctor --------------------------------------------------------------------------------------


def test_doctor_reads_from_each_bucket(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.rules.append(bucket_server.demand_payer)
    dead = {"endpoint": "http://127.0.0.1:9", "unsigned": True, "retry_seconds": 0}
    paying = {"endpoint": gate.url, "requester_pays": True}
    config = open_catalog({"s3://data": {"endpoint": gate.url}, "s3://elsewhere/x": dead}).config
    with pytest.raises(ValueError, match="s3://data") as caught:
        check_buckets(config)
    problems = str(caught.value).split("; s3://")
    assert "s3://data: access is denied (403); check the rights" in str(caught.value)
    assert "elsewhere/x: the store cannot be reached; check the network" in problems[1]
    assert "\n" not in str(caught.value)
    config = open_catalog({"s3://data": paying, "s3://data/empty": paying}).config
    assert check_buckets(config) == ("can read s3://data, s3://data/empty (no dataset of the index is there)")
    config = open_catalog(products={"tiny_s2": paying}).config
    assert check_buckets(config) == "can read product tiny_s2"
    more = open_catalog(products={"tiny_s2": paying, "later": paying}).config
    assert check_buckets(more).endswith("tiny_s2, product later (no dataset of the index is there)")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_credentials()
    findings = {finding.part: finding for finding in doctor.run_checks(config)}
    assert not findings["buckets"].good
    assert "product tiny_s2: the service has no credentials for it; set AWS_ACC" in findings["buckets"].text


# --- All processes -------------------------------------------------------------------------------


def test_tiles_and_synchronous_results(
    open_catalog: Open, remote: np.ndarray, gate: Gate, keys: None
) -> None:
    """By the runners of the service."""
    gate.rules.append(bucket_server.demand_signature)
    config = open_catalog({"s3://data": {"endpoint": gate.url}}).config
    ada = accounts.create_user(config, "ada", "correct horse")
    client = create_app(config).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {accounts.issue_token(config, ada)}"
    extents = {"spatial_extent": None, "temporal_extent": None}
    load = {"process_id": "load_collection", "arguments": {"id": "tiny_s2", **extents, "bands": ["B04"]}}
    save = {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": "load"}, "format": "GTiff"},
        "result": True,
    }
    graph = {"load": load, "save": save}
    answer = client.post(f"{API}/result", json={"process": {"process_graph": graph}})
    assert answer.status_code == 200, answer.get_json()
    with MemoryFile(answer.data) as memory, memory.open() as file:
        np.testing.assert_array_equal(file.read(1), remote)
    count = len(gate.requests)
    png = {**save, "arguments": {"data": {"from_node": "load"}, "format": "PNG"}}
    body = {
        "type": "XYZ",
        "process": {"process_graph": {"load": load, "save": png}},
        "configuration": {"range": [0, 200]},
    }
    answer = client.post(f"{API}/services", json=body)
    assert answer.status_code == 201, answer.get_json()
    url = client.get(f"{API}/services/{answer.headers['OpenEO-Identifier']}").get_json()["url"]
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(600400, 5199700)
    tile = find_tile(lon, lat, 14)
    path = urlsplit(url).path.replace("{z}", "14").replace("{x}", str(tile[0])).replace("{y}", str(tile[1]))
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (200, "image/png"), answer.data
    with MemoryFile(answer.data) as memory, memory.open() as file:
        assert file.read(1).any()
    # Another runner has read the file: GDAL's caches are those of a process.
    assert len(gate.requests) > count
    # And what is wrong with a bucket is said over HTTP, too.
    gate.rules.insert(0, lambda request: bucket_server.make_error(404, "NoSuchKey", "Gone"))
    near = {"west": 600100, "south": 5199600, "east": 600200, "north": 5199700, "crs": 32632}
    other = {**load, "arguments": {**load["arguments"], "bands": ["B08"], "spatial_extent": near}}
    answer = client.post(f"{API}/result", json={"process": {"process_graph": {"load": other, "save": save}}})
    assert answer.get_json()["code"] == "StorageFailure"
    assert "B08.tif: the object does not exist" in answer.get_json()["message"]


def find_tile(lon: float, lat: float, zoom: int) -> tuple[int, int]:
    """Column and row of the map tile with a place."""
    tile = morecantile.tms.get("WebMercatorQuad").tile(lon, lat, zoom)
    return tile.x, tile.y
