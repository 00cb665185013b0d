"""A run of a job, in the process of the test instead of its own: what it writes, sends and explains."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import rasterio

from odc_openeo import jobs
from odc_openeo.config import Config
from odc_openeo.errors import FileNotFound, InfrastructureBusy, OpenEOError, StorageFailure
from odc_openeo.jobs import Job, JobDraft, queue
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from odc_openeo.worker.messages import RunDone, RunUpdate
from odc_openeo.worker.run import Channel, OwnerLogHandler, Run, explain_failure
from tests.catalog.conftest import index
from tests.catalog.scenes import Index, bands_of, scene
from tests.support.graphs import child

__all__ = ["index"]

MIB = 2**20


@pytest.fixture
def ada(odc_config: Config) -> UUID:
    return accounts.create_user(odc_config, "ada", "correct horse").id


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("odc_openeo.run.test")
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers.clear()


def load(**arguments: Any) -> dict[str, Any]:
    extents = {"spatial_extent": None, "temporal_extent": None}
    return {"process_id": "load_collection", "arguments": {"id": "tiny_s2", **extents, **arguments}}


def claim_job(config: Config, user: UUID, graph: dict[str, Any]) -> Job:
    """A job that a worker has claimed."""
    id_ = jobs.create_job(config, user, JobDraft({"process_graph": graph}))
    jobs.start_job(config, user, str(id_))
    claim = queue.claim_job(config, "here")
    assert claim is not None
    return claim.job


def run(config: Config, job: Job, log: logging.Logger) -> tuple[RunDone, list[RunUpdate]]:
    """Run a job; its outcome and what it sent meanwhile."""
    key = f"results/{job.id}/x"
    folder = get_storage(config).find_local_path(key)
    assert folder is not None
    ours, theirs = multiprocessing.Pipe(duplex=False)
    channel = Channel(theirs)
    log.addHandler(OwnerLogHandler(channel, "info"))
    done = Run(config, job, key, folder, channel, log).produce_results()
    theirs.close()
    return done, list(receive_all(ours))


def receive_all(pipe: Connection) -> Iterator[RunUpdate]:
    """What was sent until the other end was closed."""
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def test_results_are_written_stored_and_described(
    odc_config: Config, index: Index, ada: UUID, tmp_path: Path, log: logging.Logger
) -> None:
    index.add(scene(tmp_path / "s1", 1, "2022-06-01T10:00:00Z"))
    reducer = child("max", data={"from_parameter": "data"})
    arguments = {"data": {"from_node": "load"}, "dimension": "t", "reducer": reducer}
    job = claim_job(
        odc_config,
        ada,
        {
            "load": load(bands=["B04"]),
            "max": {"process_id": "reduce_dimension", "arguments": arguments},
            "save": {
                "process_id": "save_result",
                "arguments": {"data": {"from_node": "max"}, "format": "GTiff"},
                "result": True,
            },
        },
    )
    done, updates = run(odc_config, job, log)
    result, thumbnail = done.assets
    path = get_storage(odc_config).find_local_path(f"results/{job.id}/x/{result['name']}")
    assert path is not None
    assert path.stat().st_size == result["file:size"]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), bands_of(1)["B04"][1])
    assert thumbnail["roles"] == ["thumbnail"]
    assert any(update.progress for update in updates)
    messages = [update.entry.message for update in updates if update.entry is not None]
    assert any(message.startswith("The process graph is evaluated; about ") for message in messages)
    assert "tiny_s2" in str(done.details)


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (FileNotFound(file="a.tif"), "FileNotFound", False),
        (InfrastructureBusy(), "InfrastructureBusy", True),
        (StorageFailure(), "StorageFailure", True),
        (MemoryError(), "ProcessGraphComplexity", False),
        (KeyError("secret"), "Internal", False),
    ],
)
def test_failures_are_explained_to_the_owner(error: Exception, code: str, transient: bool) -> None:
    if isinstance(error, OpenEOError):
        error.node = "load"
    failed = explain_failure(error, counts=True, memory_bytes=512 * MIB)
    assert (failed.entry.level, failed.entry.more["code"]) == ("error", code)
    assert failed.transient is transient
    assert "secret" not in failed.entry.message
    assert ("path" in failed.entry.more) is isinstance(error, OpenEOError)


def test_messages_of_libraries_are_sent_once_and_those_of_the_run_each_time() -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    handler = OwnerLogHandler(Channel(theirs), "warning")
    for name in ("rasterio", "rasterio", "odc_openeo.run.x", "odc_openeo.run.x"):
        handler.handle(logging.LogRecord(name, logging.WARNING, "", 0, "a tile is missing", (), None))
    theirs.close()
    sent = [update.entry.message for update in receive_all(ours) if update.entry is not None]
    assert sent == ["a tile is missing"] * 3
