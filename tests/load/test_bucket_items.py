"""STAC Items of users that name objects in buckets: read if the operator has opened them, never with keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

import odc_openeo.processes  # noqa: F401  (registers load_stac)
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, OpenEOError
from odc_openeo.graph import evaluate
from odc_openeo.load.public_objects import make_public_url, replace_bucket_urls
from odc_openeo.registry.environment import Environment
from odc_openeo.storage.buckets import BucketAccess, BucketRules, Location
from tests.catalog.scenes import Index
from tests.conftest import Site
from tests.load.test_buckets import credentials, gate, keys, store
from tests.load.test_signed_urls import TokenServer, files, tokens
from tests.support.bucket_server import KEY, Gate, Store
from tests.support.items import PIXELS, make_asset, make_item, write_raster

__all__ = ["credentials", "files", "gate", "keys", "store", "tokens"]

pytest.importorskip("boto3", reason="needs the extra s3")
pytest.importorskip("moto.server", reason="needs moto[server], an S3 server for tests")


@pytest.fixture
def bucket(store: Store, tmp_path: Path) -> str:
    """A new bucket with a picture everybody may read."""
    name = f"open-{tmp_path.name.replace('_', '-')}"[:60].strip("-")
    store.client.create_bucket(Bucket=name)
    file = write_raster(tmp_path / "a.tif", PIXELS)
    for key in ("public/a.tif", "private/a.tif", "publicly/a.tif"):
        store.client.upload_file(str(file), name, key)
    store.publish(name)
    return name


@pytest.fixture
def load_href(odc_config: Config, index: Index, site: Site, tmp_path: Path) -> Iterator[Any]:
    """Loads an Item with an asset at an address by load_stac, with rules for buckets."""
    catalogs = []

    def load(href: str, prefixes: dict[str, Any]) -> np.ndarray:
        rules = tmp_path / "buckets.yaml"
        rules.write_text(yaml.safe_dump({"prefixes": prefixes}))
        item = make_item(1, {"B04": make_asset(Path("x"), "B04", href=href)})
        grid = {"proj:code": "EPSG:32632", "proj:shape": [10, 10]}
        item["geometry"] = {"type": "Point", "coordinates": [10.3, 46.9]}
        item["properties"] |= {**grid, "proj:transform": [10, 0, 600000, 0, -10, 5200000]}
        (site.folder / "item.json").write_text(json.dumps(item))
        changes = {"buckets": rules, "outgoing_allow": "127.0.0.1"}
        catalogs.append(Catalog(odc_config.model_copy(update=changes)))
        node = {"process_id": "load_stac", "arguments": {"url": f"{site.root}/item.json"}, "result": True}
        cube = evaluate({"process_graph": {"load": node}}, Environment(catalogs[-1]))
        return cube[0, 0].compute(scheduler="threads").values

    yield load
    for catalog in catalogs:
        catalog.close()


def test_open_prefixes_are_read_unsigned(load_href: Any, bucket: str, gate: Gate, keys: None) -> None:
    rules = {f"s3://{bucket}/public": {"endpoint": gate.url, "unsigned": True, "load_stac": True}}
    np.testing.assert_array_equal(load_href(f"s3://{bucket}/public/a.tif", rules), PIXELS)
    assert not any("authorization" in request.headers for request in gate.requests)
    assert not any(KEY in request.path for request in gate.requests)


@pytest.mark.parametrize(
    "href",
    [
        "s3://{bucket}/private/a.tif",
        "s3://{bucket}/publicly/a.tif",
        "s3://{bucket}/public/../private/a.tif",
        "s3://{bucket}/public/%2e%2e/private/a.tif",
        "s3://{bucket}/public/..%2fprivate/a.tif",
        "s3://{bucket}/public/a.tif?x=/../../private/a.tif",
        "s3://user:password@{bucket}/public/a.tif",
        "s3://{bucket}@other/public/a.tif",
        "s3://{bucket}x/public/a.tif",
        "/vsis3/{bucket}/private/a.tif",
        "/vsis3/{bucket}/public/a.tif",
        "/vsis3_streaming/{bucket}/private/a.tif",
        "/vsicurl/s3://{bucket}/private/a.tif",
        "vrt://s3://{bucket}/private/a.tif",
        "gs://{bucket}/private/a.tif",
        "az://{bucket}/private/a.tif",
    ],
)
def test_other_objects_stay_closed(
    load_href: Any, bucket: str, gate: Gate, keys: None, site: Site, href: str
) -> None:
    """Although the service itself has rules and keys for the whole bucket."""
    rules = {
        f"s3://{bucket}": {"endpoint": gate.url},
        f"s3://{bucket}/public": {"endpoint": gate.url, "unsigned": True, "load_stac": True},
    }
    with pytest.raises(OpenEOError) as caught:
        load_href(href.format(bucket=bucket), rules)
    assert not gate.requests
    assert caught.value.status < 502
    assert "password" not in caught.value.message


def test_closed_buckets_are_explained(load_href: Any, bucket: str, gate: Gate, keys: None) -> None:
    with pytest.raises(FeatureUnsupported, match="'s3', only by http and https"):
        load_href(f"s3://{bucket}/public/a.tif", {f"s3://{bucket}": {"endpoint": gate.url}})
    assert not gate.requests


def test_open_servers_are_checked_like_all(
    load_href: Any, bucket: str, gate: Gate, odc_config: Config
) -> None:
    """An endpoint in the network of the service needs the operator's outgoing_allow, too."""
    rules = {f"s3://{bucket}/public": {"endpoint": f"http://127.0.0.2:{gate.port}", "unsigned": True}}
    rules[f"s3://{bucket}/public"]["load_stac"] = True
    with pytest.raises(OpenEOError, match=r"127\.0\.0\.2"):
        load_href(f"s3://{bucket}/public/a.tif", rules)


def test_signed_urls_of_users(load_href: Any, site: Site, files: Gate, tokens: TokenServer) -> None:
    (site.folder / "open").mkdir()
    (site.folder / "opened").mkdir()
    for name in ("open", "opened"):
        write_raster(site.folder / name / "a.tif", PIXELS)
    signing = {"token_url": f"{tokens.url}/{{container}}"}
    rules = {
        files.url: {"signing": signing},
        f"{files.url}/open": {"signing": signing, "load_stac": True},
    }
    np.testing.assert_array_equal(load_href(f"{files.url}/open/a.tif", rules), PIXELS)
    requests = len(tokens.requests)
    for path in ("opened/a.tif", "open/../opened/a.tif", "open/%2e%2e/opened/a.tif"):
        with pytest.raises(OpenEOError) as caught:
            load_href(f"{files.url}/{path}", rules)
        assert "geheim" not in caught.value.message
    with pytest.raises(OpenEOError):
        load_href(f"{files.url.replace('://', '://x@')}/open/a.tif", rules)
    assert len(tokens.requests) == requests
    unsigned = [r.path for r in files.requests if "geheim" not in r.path]
    assert unsigned
    assert all(r.path.startswith("/open/a.tif?") for r in files.requests if "geheim" in r.path)


@pytest.mark.parametrize(
    ("location", "access", "url"),
    [
        (Location("s3", "cogs", "a b/c.tif"), {}, "https://cogs.s3.amazonaws.com/a%20b/c.tif"),
        (
            Location("s3", "cogs", "c#.tif"),
            {"region": "us-west-2"},
            "https://cogs.s3.us-west-2.amazonaws.com/c%23.tif",
        ),
        (Location("s3", "a.b", "c"), {"region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/a.b/c"),
        (Location("s3", "x", "c"), {"endpoint": "https://minio:9000/s"}, "https://minio:9000/s/x/c"),
        (Location("gs", "x", "c"), {}, "https://storage.googleapis.com/x/c"),
        (Location("az", "x", "c"), {"account": "acc"}, "https://acc.blob.core.windows.net/x/c"),
        (Location("az", "x", "c"), {}, None),
    ],
)
def test_public_urls(location: Location, access: dict[str, Any], url: str | None) -> None:
    assert make_public_url(location, BucketAccess(**access)) == url


def test_alternates_are_replaced_too() -> None:
    access = BucketAccess(unsigned=True, load_stac=True)
    asset = {"href": "ftp://x/a.tif", "alternate": {"s3": {"href": "s3://cogs/a.tif"}}}
    (item,) = replace_bucket_urls([{"assets": {"a": asset}}], BucketRules(prefixes={"s3://cogs": access}))
    assert item["assets"]["a"]["alternate"]["s3"]["href"] == "https://cogs.s3.amazonaws.com/a.tif"
    assert urlsplit(item["assets"]["a"]["href"]).scheme == "ftp"


@pytest.mark.parametrize("assets", [None, [], {"a": None}, {"a": {"href": 5}}, {"a": {"href": "s3://"}}])
def test_items_that_are_not_valid_stay_as_they_are(assets: Any) -> None:
    rules = BucketRules(prefixes={"s3://cogs": BucketAccess(unsigned=True, load_stac=True)})
    assert replace_bucket_urls([{"assets": assets}], rules) == [{"assets": assets}]
