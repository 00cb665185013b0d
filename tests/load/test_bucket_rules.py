"""The operator's rules for buckets: which rule holds for an object, and what is said of wrong ones."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest

from odc_openeo.api.stac.assets import find_bucket_place
from odc_openeo.config import Config, child_environment, describe_settings
from odc_openeo.storage.buckets import (
    AddressRefusedError,
    BucketAccess,
    BucketRules,
    BucketRulesError,
    Location,
    find_location,
    hide_queries,
    hide_query,
    read_bucket_rules,
)
from tests.conftest import COMMAND

RULES = BucketRules(
    products={"s2": BucketAccess(region="eu-west-1")},
    prefixes={
        "s3://a": BucketAccess(region="us-east-1"),
        "s3://a/deep/": BucketAccess(region="us-east-2"),
        "s3://a/deep/er": BucketAccess(region="us-west-1"),
        "gs://a": BucketAccess(unsigned=True),
        "https://host": BucketAccess(retry_seconds=1),
        "https://host:8443/x": BucketAccess(retry_seconds=2),
    },
)


@pytest.mark.parametrize(
    ("uri", "region"),
    [
        ("s3://a/x.tif", "us-east-1"),
        ("S3://a/x.tif", "us-east-1"),
        ("s3a://a/x.tif", "us-east-1"),
        ("/vsis3/a/x.tif", "us-east-1"),
        ("s3://a/deep/x.tif", "us-east-2"),
        ("s3://a/deeper/x.tif", "us-east-1"),
        ("s3://a/deep/er/x.tif", "us-west-1"),
        ("s3://a/deep/errand/x.tif", "us-east-2"),
        ("s3://a/Deep/x.tif", "us-east-1"),
        ("s3://a/with blank/x.tif", "us-east-1"),
    ],
)
def test_the_longest_prefix_counts(uri: str, region: str) -> None:
    access = RULES.find_access(uri)
    assert access is not None
    assert access.region == region


@pytest.mark.parametrize(
    "uri",
    [
        "s3://ab/x.tif",
        "s3://a.b/x.tif",
        "s3://A/x.tif",
        "az://a/x.tif",
        "http://host/x.tif",
        "https://host.example/x.tif",
        "https://host:8443/xy.tif",
        "/data/s3://a/x.tif",
        "file:///a/x.tif",
        "/vsizip/s3://a/x.zip",
    ],
)
def test_objects_without_a_rule(uri: str) -> None:
    assert RULES.find_access(uri) is None


def test_products_go_before_prefixes() -> None:
    access = RULES.find_access("s3://a/deep/x.tif", "s2")
    assert access is not None
    assert access.region == "eu-west-1"
    assert RULES.find_access("/data/x.tif", "s2") is None


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("https://HOST:443/a/b", Location("https", "host", "a/b")),
        ("https://host:8443/a?sig=x#y", Location("https", "host:8443", "a")),
        ("http://[::1]:80/a", Location("http", "[::1]", "a")),
        ("abfs://c/k", Location("az", "c", "k")),
        ("gcs://c/k", Location("gs", "c", "k")),
        ("s3://bucket", Location("s3", "bucket", "")),
    ],
)
def test_locations(uri: str, location: Location) -> None:
    assert find_location(uri) == location


@pytest.mark.parametrize(
    "uri",
    [
        "s3:///key",
        "s3://user@a/key",
        "s3://user:password@a/key",
        "s3://a@b/key",
        "s3://a/x/../y",
        "s3://a/x/%2E%2e/y",
        "s3://a/x%2f..%2fy",
        "s3://a/./y",
        "s3://a/y?versionId=1",
        "s3://a\n/y",
        "s3://a/\x00",
        "s3://a:9000/y",
        "s3://..a/y",
        "https://user:password@host/x",
        "https://host/a/../b",
        "https://host\\@other/x",
        "https:///x",
        "https://host:port/x",
        "https://host/a b",
    ],
)
def test_addresses_that_may_mislead(uri: str) -> None:
    with pytest.raises(AddressRefusedError) as caught:
        RULES.find_access(uri)
    assert "password" not in str(caught.value)


def test_rules_travel_to_workers_without_secrets() -> None:
    assert pickle.loads(pickle.dumps(RULES)) == RULES
    assert len({BucketAccess(), BucketAccess(), BucketAccess(unsigned=True)}) == 2


@pytest.mark.parametrize(
    ("uri", "access", "place"),
    [
        ("s3://a/x.tif", {}, ("s3://a/x.tif", {}, "credentials of your own")),
        ("s3://a/x.tif", None, ("s3://a/x.tif", {}, "credentials of your own")),
        ("s3://a/x.tif", {"requester_pays": True}, ("s3://a/x.tif", {}, "requesters pay")),
        (
            "s3://a/x.tif",
            {"unsigned": True},
            ("https://a.s3.amazonaws.com/x.tif", {"s3": "s3://a/x.tif"}, ""),
        ),
        # An address in the operator's network is not shown.
        (
            "s3://a/x.tif",
            {"unsigned": True, "endpoint": "http://minio:9000"},
            ("s3://a/x.tif", {}, "credentials of your own"),
        ),
        ("https://a/x.tif", None, ("https://a/x.tif", {}, "")),
        (
            "https://a/x.tif",
            {"signing": {"token_url": "https://t/"}},
            ("https://a/x.tif", {}, "must be signed"),
        ),
    ],
)
def test_what_stac_clients_are_given(
    uri: str, access: dict[str, Any] | None, place: tuple[str, dict[str, str], str]
) -> None:
    prefix = uri.removesuffix("/x.tif")
    rules = BucketRules(prefixes={} if access is None else {prefix: BucketAccess.model_validate(access)})
    result = find_bucket_place(uri, rules, "s2")
    assert (result.href, result.alternate) == place[:2]
    assert place[2] in (result.note or "")
    assert bool(place[2]) is bool(result.note)


def test_texts_without_signatures() -> None:
    assert hide_query("https://user:pw@host/a?sig=x#y") == "https://host/a"
    text = "HTTP 403 on 'https://u:pw@host/a.tif?se=1&sig=ab%2Fc' and https://b/c.tif?sig=d&e=f: 403"
    assert hide_queries(text) == "HTTP 403 on 'https://host/a.tif?…' and https://b/c.tif?… 403"


# --- Files ---------------------------------------------------------------------------------------


def read(folder: Path, text: str) -> BucketRules:
    (folder / "buckets.yaml").write_text(text)
    return read_bucket_rules(folder / "buckets.yaml")


def test_a_file(tmp_path: Path) -> None:
    text = "prefixes: {s3://a: {unsigned: true, region: us-west-2}}\nproducts: {s2: {requester_pays: true}}"
    rules = read(tmp_path, text)
    assert rules.prefixes["s3://a"] == BucketAccess(unsigned=True, region="us-west-2")
    assert rules.products["s2"].requester_pays
    assert read(tmp_path, "") == read_bucket_rules(None) == BucketRules()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "prefixes: {s3://a: {unsigned: maybe}}",
            "prefixes.s3://a.unsigned: Input should be a valid boolean",
        ),
        ("prefixes: {s3://a: {unsined: true}}", "prefixes.s3://a.unsined is not a known key"),
        ("buckets: {}", "buckets is not a known key"),
        (
            "prefixes: {s3://a: {aws_secret_access_key: geheim}}",
            "aws_secret_access_key is not a known key; credentials belong into the environment or a profile",
        ),
        (
            "prefixes: {s3://a: {endpoint: 'https://u:geheim@x'}}",
            "s3://a.endpoint: not an http(s) URL without",
        ),
        ("prefixes: {s3://a: {endpoint: 'minio:9000'}}", "s3://a.endpoint: not an http(s) URL"),
        ("prefixes: {s3://a: {region: 'a b'}}", "s3://a.region: String should match pattern"),
        ("prefixes: {s3://a: {unsigned: true, profile: x}}", "s3://a: unsigned requests have no profile"),
        ("prefixes: {s3://a: {load_stac: true}}", "s3://a: load_stac needs unsigned or signing"),
        (
            "prefixes: {s3://a: {signing: {token_url: 'https://t'}}}",
            "s3://a.signing has no meaning for s3://",
        ),
        ("prefixes: {gs://a: {region: x}}", "gs://a.region has no meaning for gs://"),
        ("prefixes: {gs://a: {requester_pays: true}}", "requester_pays needs billing_project"),
        ("prefixes: {https://a: {}}", "https://a has no effect without signing"),
        (
            "prefixes: {https://a: {signing: {token_url: 'https://{account}.x/'}}}",
            "token_url: the host must not have placeholders",
        ),
        (
            "prefixes: {https://a: {signing: {token_url: 'https://x/{key}'}}}",
            "token_url: placeholders may be {account} and {container}",
        ),
        ("prefixes: {/data: {unsigned: true}}", "prefixes./data: not a prefix such as s3://bucket"),
        ("prefixes: {s3://a/../b: {}}", "not a prefix: it has a path segment"),
        (
            "prefixes: {'https://u:geheim@x/': {retry_seconds: 1}}",
            "prefixes.https://x/: not a prefix: it has a user",
        ),
        ("prefixes: {s3://a: {}, s3://a/: {}}", "s3://a/ and s3://a are the same"),
        ("prefixes: {s3://a: {retry_seconds: .inf}}", "retry_seconds"),
        ("prefixes: [geheim\n: {", "are not valid YAML (line"),
        ("prefixes: !!python/object:os.system {}", "are not valid YAML"),
        ("a", "the file: "),
    ],
)
def test_problems_are_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(BucketRulesError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"the bucket rules {tmp_path}/buckets.yaml ")
    assert problem in message
    assert "geheim" not in message
    assert "\n" not in message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BucketRulesError, match=r"cannot be read: No such file"):
        read_bucket_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_the_service_does_not_start_with_wrong_rules(tmp_path: Path, config: Config, command: str) -> None:
    (tmp_path / "buckets.yaml").write_text("prefixes: {s3://a: {unsined: true}}")
    environment = child_environment(config.model_copy(), ODC_OPENEO_BUCKETS=str(tmp_path / "buckets.yaml"))
    done = subprocess.run(
        [*COMMAND, command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert "prefixes.s3://a.unsined is not a known key" in "".join(lines)
    assert not any("Traceback" in line for line in lines)


def test_settings_have_the_path_only(tmp_path: Path) -> None:
    rows: dict[str, Any] = {row[0]: row[1] for row in describe_settings(Config(buckets=tmp_path / "b.yaml"))}
    assert rows["ODC_OPENEO_BUCKETS"] == str(tmp_path / "b.yaml")
    assert os.environ.get("ODC_OPENEO_BUCKETS") is None
