"""What is said at the start when files cannot be stored in the bucket: one line, with the cure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from odc_openeo.config import Config, child_environment
from odc_openeo.stack.doctor import _check_storage
from odc_openeo.storage import check_storage
from tests.conftest import COMMAND
from tests.storage.conftest import InBucket, forget
from tests.support import bucket_server
from tests.support.bucket_server import Gate, Store


@pytest.fixture
def config(in_bucket: InBucket, tmp_path: Path) -> Config:
    return in_bucket(Config(data_dir=tmp_path / "data"))


def test_a_bucket_that_can_be_written_to(config: Config, store: Store) -> None:
    assert check_storage(config) == f"can write to {config.storage}"
    assert check_storage(config, writes=False) == f"can write to {config.storage}"
    top = config.storage.removeprefix("s3://data/")
    assert store.client.list_objects_v2(Bucket="data", Prefix=top)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("AccessDenied", 403, r"access is denied .*; give the credentials the rights to list .*"),
        ("InvalidAccessKeyId", 403, r"are not accepted .*; replace them.*"),
        ("SignatureDoesNotMatch", 403, r"are not accepted .*; replace them.*"),
        ("AuthorizationHeaderMalformed", 400, r"in another region .*; set AWS_REGION.*"),
        ("PermanentRedirect", 301, r"in another region .*; set AWS_REGION.*"),
        ("NoSuchBucket", 404, r"does not exist .*; create it.*"),
        ("SlowDown", 503, r"is throttling requests .*"),
        ("InternalError", 500, r"responds with errors .*"),
    ],
)
def test_a_bucket_that_refuses(config: Config, gate: Gate, code: str, status: int, text: str) -> None:
    gate.rules.append(lambda _: bucket_server.make_error(status, code, "No."))
    with pytest.raises(ValueError, match=rf"^cannot store files in s3://data/\S+ all: .*{text}$") as failure:
        check_storage(config)
    message = str(failure.value)
    assert "\n" not in message
    for secret in (bucket_server.KEY, bucket_server.SECRET, "Debug"):
        assert secret not in message


def test_reading_only(config: Config, gate: Gate) -> None:
    denied = bucket_server.make_error(403, "AccessDenied", "Access Denied")
    gate.rules.append(lambda request: denied if request.method == "PUT" else None)
    with pytest.raises(ValueError, match="ODC_OPENEO_STORAGE_URL"):
        _check_storage(config)
    assert check_storage(config, writes=False)


def test_a_bucket_that_does_not_exist(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"s3://nowhere/x: the bucket does not exist \(NoSuchBucket .*create it"
    ):
        check_storage(Config(storage_url="s3://nowhere/x"))


def test_no_credentials(config: Config, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    forget()
    with pytest.raises(ValueError, match=r"no credentials for it; set AWS_ACCESS_KEY_ID"):
        check_storage(config)
    (tmp_path / "buckets.yaml").write_text("prefixes: {s3://data: {profile: archive}}")
    with pytest.raises(
        ValueError, match=r"no credentials for it; give the service the AWS profile 'archive'"
    ):
        check_storage(config.model_copy(update={"buckets": tmp_path / "buckets.yaml"}))


def test_a_store_that_is_not_there(config: Config, gate: Gate) -> None:
    gate.cut()
    with pytest.raises(ValueError, match="cannot be reached"):
        check_storage(config)
    gate.restore()


def test_a_worker_does_not_start(odc_config: Config, config: Config, gate: Gate) -> None:
    changed = odc_config.model_copy(update={"storage_url": "s3://nowhere/results"})
    done = subprocess.run(
        [*COMMAND, "worker"],
        env=child_environment(changed),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "s3://nowhere/results: the bucket does not exist" in line
    assert "ODC_OPENEO_STORAGE_URL" in line
