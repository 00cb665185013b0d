"""Batch jobs on scenes in a bucket whose server is cut off in the middle.

By default for two seconds; for twenty with ``BUCKET_CUT_SECONDS=20 pytest -s -n 0 FILE``.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import distributed
import numpy as np
import pytest
import rasterio
import yaml

from odc_openeo import jobs
from odc_openeo.compute import cluster
from odc_openeo.config import Config, child_environment
from odc_openeo.jobs import JobDraft
from odc_openeo.jobs.results import find_results
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from tests.catalog.scenes import Index, bands_of, scene
from tests.conftest import COMMAND
from tests.load.test_buckets import credentials, keys, store
from tests.support import bucket_server
from tests.support.bucket_server import Gate, Store

__all__ = ["credentials", "keys", "store"]

pytest.importorskip("boto3", reason="needs the extra s3")
pytest.importorskip("moto.server", reason="needs moto[server], an S3 server for tests")

CUT_SECONDS = float(os.environ.get("BUCKET_CUT_SECONDS", "2"))
SCENES = 8


class Cut:
    """Cuts a gate off at its tenth request, for some seconds."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.lock = threading.Lock()
        self.seconds = 0.0
        gate.rules.append(self._count)

    def _count(self, request: bucket_server.Request) -> None:
        with self.lock:
            if len(self.gate.requests) == 10:
                threading.Thread(target=self._cut).start()
        time.sleep(0.02)

    def _cut(self) -> None:
        start = time.monotonic()
        self.gate.cut()
        time.sleep(CUT_SECONDS)
        self.seconds = time.monotonic() - start
        self.before = len(self.gate.requests)
        self.gate.restore()


@pytest.fixture
def gate(store: Store) -> Iterator[Gate]:
    with bucket_server.open_gate(store.port) as server:
        yield server


@pytest.fixture
def bucket_config(odc_config: Config, index: Index, store: Store, gate: Gate, tmp_path: Path) -> Config:
    """The configuration of a service whose scenes are all in a bucket, each with its own values."""
    for day in range(1, SCENES + 1):
        folder = tmp_path / f"{tmp_path.name}-{day}"
        index.add(store.put_scene(scene(folder, day, f"2022-06-{day:02}T10:00:00Z")))
        for file in folder.glob("*.tif"):
            file.unlink()
    store.publish()
    rules = {"prefixes": {"s3://data": {"endpoint": gate.url, "unsigned": True}}}
    (tmp_path / "buckets.yaml").write_text(yaml.safe_dump(rules))
    return odc_config.model_copy(update={"buckets": tmp_path / "buckets.yaml"})


GRAPH: dict[str, Any] = {
    "load": {
        "process_id": "load_collection",
        "arguments": {
            "id": "tiny_s2",
            "spatial_extent": None,
            "temporal_extent": None,
            "bands": ["B04", "B08"],
        },
    },
    "save": {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": "load"}, "format": "GTiff"},
        "result": True,
    },
}


def run_job(config: Config) -> tuple[jobs.Job, list[np.ndarray], float]:
    """Run a job with a real worker; the job, the pixels of its files by time, and its seconds."""
    user = accounts.create_user(config, "ada", "correct horse").id
    id_ = str(jobs.create_job(config, user, JobDraft({"process_graph": GRAPH})))
    jobs.start_job(config, user, id_)
    with subprocess.Popen([*COMMAND, "worker"], env=child_environment(config)) as worker:
        try:
            job = _wait_for_end(config, user, id_)
        finally:
            worker.terminate()
    assert job.started is not None
    seconds = (job.updated - job.started).total_seconds()
    assert job.status == "finished", [entry.message for entry in jobs.list_logs(config, job).items]
    results = find_results(config, job)
    assert results is not None
    names = sorted(asset["name"] for asset in results.assets if asset["name"].endswith(".tif"))
    return job, [_read(config, f"results/{job.id}/{results.attempt}/{name}") for name in names], seconds


def _wait_for_end(config: Config, user: UUID, id_: str) -> jobs.Job:
    deadline = time.monotonic() + 120 + CUT_SECONDS
    while (job := jobs.get_job(config, user, id_)).status not in ("error", "finished"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


def _read(config: Config, key: str) -> np.ndarray:
    with rasterio.open(str(get_storage(config).find_local_path(key))) as file:
        return file.read()


def check_values(images: list[np.ndarray]) -> None:
    assert len(images) == SCENES
    for day, image in enumerate(images, start=1):
        bands = bands_of(day)
        np.testing.assert_array_equal(image, [bands["B04"][1], bands["B08"][1]])


def test_a_job_survives_a_cut_off_server(bucket_config: Config, gate: Gate) -> None:
    cut = Cut(gate)
    job, images, seconds = run_job(bucket_config)
    check_values(images)
    assert job.tries == 1
    assert cut.seconds >= CUT_SECONDS
    assert len(gate.requests) > cut.before + 3
    print(f"\nserver cut off for {cut.seconds:.1f} s; the job took {seconds:.1f} s in one try")


def test_a_job_on_dask_workers_survives_a_cut_off_server(
    bucket_config: Config, gate: Gate, keys: None
) -> None:
    """Signed, with the credentials of the workers: those of the job are not in the graph."""
    rules = {"prefixes": {"s3://data": {"endpoint": gate.url}}}
    assert bucket_config.buckets is not None
    bucket_config.buckets.write_text(yaml.safe_dump(rules))
    gate.rules.append(bucket_server.demand_signature)
    cut = Cut(gate)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as workers:
        changes = {"dask_scheduler": workers.scheduler_address, "local_max_bytes": 0}
        config = bucket_config.model_copy(update=changes)
        job, images, seconds = run_job(config)
        cluster.close(config)
    check_values(images)
    assert job.tries == 1
    assert cut.seconds >= CUT_SECONDS
    print(
        f"\nserver cut off for {cut.seconds:.1f} s; the job on dask workers took {seconds:.1f} s in one try"
    )
