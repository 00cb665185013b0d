"""Batch jobs whose results are in a bucket; API and worker share only the bucket and the database.

The store is cut off for two seconds; for twenty with ``BUCKET_CUT_SECONDS=20 pytest -s -n 0 FILE``.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import openeo
import pytest
import rasterio
import requests
import yaml
from openeo.rest.job import BatchJob

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.config import Config, child_environment
from odc_openeo.errors import StorageFailure
from odc_openeo.jobs import JobDraft, queue
from odc_openeo.jobs.results import find_results
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from odc_openeo.worker.cleaning import remove_old_files
from odc_openeo.worker.run import Channel, Run, explain_failure
from tests.api.conftest import PASSWORD
from tests.catalog.conftest import index
from tests.catalog.scenes import Index, bands_of, scene
from tests.conftest import COMMAND
from tests.storage.conftest import CUT_SECONDS, Cut, InBucket
from tests.support import bucket_server
from tests.support.bucket_server import Gate, Store
from tests.support.http_service import serve_application

__all__ = ["index"]


@pytest.fixture
def config(odc_config: Config, index: Index, in_bucket: InBucket, tmp_path: Path) -> Config:
    for day in (1, 2):
        index.add(scene(tmp_path / f"scene-{day}", day, f"2022-06-{day:02}T10:00:00Z"))
    return in_bucket(odc_config)


@contextmanager
def run_worker(config: Config, folder: Path) -> Iterator[Any]:
    """A worker with a folder of its own."""
    other = config.model_copy(update={"data_dir": folder})
    with subprocess.Popen([*COMMAND, "worker"], env=child_environment(other)) as worker:
        try:
            yield worker
        finally:
            worker.terminate()


def make_graph(format: str = "GTiff") -> dict[str, Any]:
    extents = {"spatial_extent": None, "temporal_extent": None}
    return {
        "load": {
            "process_id": "load_collection",
            "arguments": {"id": "tiny_s2", **extents, "bands": ["B04", "B08"]},
        },
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "load"}, "format": format},
            "result": True,
        },
    }


def wait_for_end(config: Config, user: UUID, id_: str) -> jobs.Job:
    deadline = time.monotonic() + 100 + CUT_SECONDS
    while (job := jobs.get_job(config, user, id_)).status not in ("error", "finished"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


def start(config: Config, format: str = "GTiff", name: str = "ada") -> tuple[UUID, str]:
    user = accounts.create_user(config, name, PASSWORD).id
    id_ = str(jobs.create_job(config, user, JobDraft({"process_graph": make_graph(format)})))
    jobs.start_job(config, user, id_)
    return user, id_


def run_here(config: Config, id_: str, folder: Path) -> jobs.Job:
    """Run a queued job in this process, as a worker would, and record its results."""
    claim = queue.claim_job(config, "here")
    assert claim is not None
    assert str(claim.job.id) == id_
    _, pipe = multiprocessing.Pipe(duplex=False)
    log = logging.getLogger("odc_openeo.run.test")
    done = Run(config, claim.job, claim.folder, folder, Channel(pipe), log).produce_results()
    assert queue.finish_run(config, claim, done.assets, done.details, {}, [])
    return jobs.get_job(config, claim.job.user, id_)


def messages(config: Config, job: jobs.Job) -> list[str]:
    return [entry.message for entry in jobs.list_logs(config, job).items]


def check_values(content: bytes, day: int) -> None:
    with rasterio.MemoryFile(content) as memory, memory.open() as file:
        bands = bands_of(day)
        np.testing.assert_array_equal(file.read(), [bands["B04"][1], bands["B08"][1]])


def test_the_client_from_upload_to_deletion(
    config: Config, store: Store, gate: Gate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real client: a job, its files, ranges, another run, and what is left at the end."""
    accounts.create_user(config, "ada", PASSWORD)
    with serve_application(create_app(config)) as address, run_worker(config, tmp_path / "other"):
        config = config.model_copy(update={"public_url": address})
        connection = openeo.connect(f"{address}/openeo/1.3").authenticate_basic("ada", PASSWORD)
        job: BatchJob = connection.create_job(make_graph(), title="both")
        job.start_and_wait(max_poll_interval=0.3, connection_retry_interval=1)
        results = job.get_results()
        folder = tmp_path / "downloads"
        results.download_files(folder)
        names = sorted(path.name for path in folder.glob("*.tif"))
        for day, name in enumerate(names, start=1):
            check_values((folder / name).read_bytes(), day)
        assert len(names) == 2
        asset = next(asset for asset in results.get_assets() if asset.key == names[0])
        metadata = asset.metadata
        content = (folder / names[0]).read_bytes()
        assert metadata["file:size"] == len(content)
        # Through this service to the store, and not further than to the file.
        answer = requests.get(asset.href, allow_redirects=False, timeout=30)
        assert answer.status_code == 307
        assert answer.headers["Location"].startswith(f"{gate.url}/data/")
        assert "no-store" in answer.headers["Cache-Control"]
        part = requests.get(asset.href, headers={"Range": "bytes=10-19"}, timeout=30)
        assert (part.status_code, part.content) == (206, content[10:20])
        assert part.headers["Content-Type"] == metadata["type"]
        head = requests.head(asset.href, timeout=30)
        assert (head.status_code, int(head.headers["Content-Length"])) == (200, len(content))
        job.start()
        deadline = time.monotonic() + 60
        while job.status() != "finished":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert requests.get(asset.href, timeout=30).status_code == 410
        top = config.storage.removeprefix("s3://data/")
        keys = list_keys(store, f"{top}/results")
        assert len({key.removeprefix(top).split("/")[3] for key in keys}) == 1
        job.delete()
        assert list_keys(store, top) == []
        spoken = capfd.readouterr()
        assert bucket_server.SECRET not in spoken.out + spoken.err


def list_keys(store: Store, prefix: str) -> list[str]:
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket="data", Prefix=f"{prefix}/")
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_zarr_is_a_folder_of_objects(config: Config, tmp_path: Path) -> None:
    _, id_ = start(config, "Zarr")
    job = run_here(config, id_, tmp_path / "run")
    results = find_results(config, job)
    assert results is not None
    (asset,) = [asset for asset in results.assets if "zarr" in asset["name"]]
    keys = get_storage(config).walk(f"{results.folder}/{asset['name']}")
    assert len(keys) > 3
    client = create_app(config).test_client()
    token = accounts.issue_token(config, accounts.get_user(config, job.user))
    bearer = {"Authorization": f"Bearer basic//{token}"}
    document = client.get(f"/openeo/1.3/jobs/{id_}/results", headers=bearer).get_json()
    href = document["assets"][asset["name"]]["href"]
    packed = client.get(href)
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        assert len(archive.namelist()) == len(keys)
        name = next(name for name in archive.namelist() if name.endswith("zarr.json"))
        content = archive.read(name)
    one = client.get(f"{href}/{name}")
    assert one.status_code == 307
    assert requests.get(one.headers["Location"], timeout=30).content == content
    served = create_app(config.model_copy(update={"storage_links": "service"})).test_client()
    assert served.get(f"{href}/{name}").data == content
    part = served.get(f"{href}/{name}", headers={"Range": "bytes=1-4"})
    assert (part.status_code, part.data) == (206, content[1:5])
    for path in ("../x", "%2e%2e/%2e%2e/x", "..%2f..%2fx", "nothing", "/etc/passwd"):
        assert served.get(f"{href}/{path}").status_code == 404


def test_a_job_survives_a_cut_while_its_results_are_uploaded(
    config: Config, gate: Gate, tmp_path: Path
) -> None:
    cut = Cut(gate, "/results/")
    user, id_ = start(config)
    with run_worker(config, tmp_path / "other"):
        job = wait_for_end(config, user, id_)
    assert job.status == "finished", messages(config, job)
    assert (job.tries, cut.began) == (1, True)
    assert cut.seconds >= CUT_SECONDS
    results = find_results(config, job)
    assert results is not None
    for day, asset in enumerate(sorted(a["name"] for a in results.assets if a["name"].endswith(".tif")), 1):
        with get_storage(config).open(f"{results.folder}/{asset}") as stream:
            check_values(stream.read(), day)
    assert job.started is not None
    print(
        f"\ncut off for {cut.seconds:.1f} s; {(job.updated - job.started).total_seconds():.1f} s in one try"
    )


def refuse(code: str, status: int) -> bucket_server.Rule:
    answer = bucket_server.make_error(status, code, "No.")
    return lambda request: answer if request.method in ("PUT", "POST") else None


@pytest.mark.parametrize(
    ("code", "status", "reason", "is_transient"),
    [
        ("AccessDenied", 403, "access is denied", False),
        ("InvalidAccessKeyId", 403, "the credentials of the service are not accepted", False),
        ("NoSuchBucket", 404, "the bucket does not exist", False),
        ("QuotaExceeded", 403, "there is no space left", False),
        ("PermanentRedirect", 301, "the bucket is in another region", False),
        ("SlowDown", 503, "the store is throttling requests", True),
    ],
)
def test_what_cannot_be_stored_is_said(
    config: Config, gate: Gate, tmp_path: Path, code: str, status: int, reason: str, is_transient: bool
) -> None:
    """The user learns the file and the reason; the operator the object, the code and the cure."""
    rules = {"prefixes": {"s3://data": {"endpoint": gate.url, "retry_seconds": 1}}}
    (tmp_path / "buckets.yaml").write_text(yaml.safe_dump(rules))
    config = config.model_copy(update={"buckets": tmp_path / "buckets.yaml"})
    _, id_ = start(config)
    gate.rules.append(refuse(code, status))
    with pytest.raises(StorageFailure) as failure:
        run_here(config, id_, tmp_path / "run")
    assert re.search(rf"'.+\.tif' could not be stored or read: {reason}\.", failure.value.message)
    outcome = explain_failure(failure.value, counts=True, memory_bytes=2**30)
    assert outcome.transient == is_transient
    assert outcome.entry.more["code"] == "StorageFailure"
    assert "s3://data/" in outcome.cause
    assert code in outcome.cause or status == 301
    for secret in (bucket_server.KEY, bucket_server.SECRET, "s3://", "127.0.0.1", str(tmp_path)):
        assert secret not in outcome.entry.message
    assert bucket_server.SECRET not in outcome.cause


def test_leftovers_of_killed_workers_are_swept(config: Config, store: Store, tmp_path: Path) -> None:
    """Objects and unfinished uploads of attempts that do not run; results are kept."""
    _, id_ = start(config)
    job = run_here(config, id_, tmp_path / "run")
    results = find_results(config, job)
    assert results is not None
    storage, orphan = get_storage(config), f"results/{id_}/{uuid4()}"
    storage.write(f"{orphan}/openEO.tif", io.BytesIO(b"x"))
    top = config.storage.removeprefix("s3://data/")
    store.client.create_multipart_upload(Bucket="data", Key=f"{top}/{orphan}/other.tif")
    kept = storage.walk(results.folder)
    assert remove_old_files(config) == 1
    assert storage.walk("results") == kept
    assert store.client.list_multipart_uploads(Bucket="data", Prefix=top).get("Uploads", []) == []
    with db.session(config) as session:
        row = session.get(db.JobResult, UUID(id_))
        assert row is not None
        row.expires = row.created
    assert remove_old_files(config) == 1
    assert storage.walk("results") == []
    assert queue.find_live_attempts(config, [results.attempt]) == set()
