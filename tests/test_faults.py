"""Jobs when something breaks while they run: each ends in a defined state, none is lost, nothing is left.

Workers run here as threads, each job in a process of its own as always. A job waits at a gate (a web page
that it loads) until the test has done the damage.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import pytest
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from odc_openeo import db, jobs
from odc_openeo.config import Config, child_environment
from odc_openeo.jobs import Job, JobDraft, results
from odc_openeo.stack.embedded import free_port
from odc_openeo.user_data import files
from odc_openeo.users import accounts
from odc_openeo.worker import run_worker
from tests.conftest import COMMAND
from tests.support.processes import have_ended
from tests.support.waiting import wait_for

POINT = {"type": "Point", "coordinates": [11.0, 46.0]}
PIXELS = np.random.default_rng(1).normal(size=(2, 600, 600))


class Gate:
    """A web page that answers once it is open; counts who came."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self.count = 0
        self.open = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.count += 1
                gate.came.release()
                gate.open.wait(25)
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(json.dumps(POINT).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/point.geojson"

    def wait(self) -> None:
        """Until somebody stands there."""
        assert self.came.acquire(timeout=150)


@pytest.fixture
def gate() -> Iterator[Gate]:
    new_gate = Gate()
    yield new_gate
    new_gate.open.set()
    new_gate.server.shutdown()
    new_gate.server.server_close()


@pytest.fixture
def config(odc_config: Config) -> Config:
    return odc_config.model_copy(update={"outgoing_allow": "127.0.0.1", "job_lost_after_s": 12.0})


@pytest.fixture
def ada(config: Config) -> UUID:
    user = accounts.create_user(config, "ada", "correct horse").id
    profile = {"driver": "GTiff", "dtype": "float64", "count": 2, "height": 600, "width": 600}
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    with MemoryFile() as memory:
        with memory.open(**profile, **grid) as file:
            file.write(PIXELS)
        files.receive_file(config, str(user), "pixels.tif", io.BytesIO(memory.read()), None)
    return user


@pytest.fixture
def worker(config: Config) -> Iterator[Callable[..., threading.Event]]:
    """Starts workers; the event ends one as SIGTERM does."""
    started: list[tuple[threading.Event, threading.Thread]] = []

    def start(other: Config = config) -> threading.Event:
        stop = threading.Event()
        thread = threading.Thread(target=run_worker, args=(other, stop))
        thread.start()
        started.append((stop, thread))
        return stop

    yield start
    for stop, thread in started:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def make(config: Config, user: UUID, gate: Gate | None = None, format_: str = "GTiff") -> str:
    """A job that saves the pixels, and has passed the gate before it writes."""
    raster = {"paths": ["pixels.tif"], "format": "GTiff"}
    nodes: dict[str, Any] = {
        "pixels": {"process_id": "load_uploaded_files", "arguments": raster},
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "pixels"}, "format": format_},
            "result": True,
        },
    }
    if gate is not None:
        nodes["gate"] = {"process_id": "load_url", "arguments": {"url": gate.url, "format": "GeoJSON"}}
    id_ = str(jobs.create_job(config, user, JobDraft({"process_graph": nodes})))
    jobs.start_job(config, user, id_)
    return id_


def until(config: Config, user: UUID, id_: str, *states: str, seconds: float = 240) -> Job:
    deadline = time.monotonic() + seconds
    while (job := jobs.get_job(config, user, id_)).status not in states:
        assert time.monotonic() < deadline, (job.status, messages(config, job))
        time.sleep(0.05)
    return job


def messages(config: Config, job: Job) -> list[str]:
    return [f"{e.level}: {e.message}" for e in jobs.list_logs(config, job).items]


def said(config: Config, user: UUID, id_: str, text: str) -> None:
    """Wait until the log of the job has a text."""
    wait_for(
        lambda: any(text in entry for entry in messages(config, jobs.get_job(config, user, id_))), seconds=240
    )


def list_stored_files(config: Config) -> list[str]:
    """Return the names of all files in the storage of results, also while a worker removes some."""
    return sorted(name for _, _, names in os.walk(config.data_dir / "storage" / "results") for name in names)


def wait_until_nothing_is_stored(config: Config) -> None:
    """A worker removes the files of a failed run just after it has recorded the failure."""
    wait_for(lambda: not list_stored_files(config))


def process_of_job(pid: int | None = None) -> psutil.Process:
    """The process that runs a job for the worker ``pid``, which is this process by default."""
    result = [
        grandchild
        for child in psutil.Process(pid).children()
        if any("forkserver" in word for word in child.cmdline())
        for grandchild in child.children()
        # Runners of other tests lead sessions of their own.
        if grandchild.status() != psutil.STATUS_ZOMBIE and os.getsid(grandchild.pid) != grandchild.pid
    ]
    assert len(result) == 1
    return result[0]


def gone(process: psutil.Process) -> None:
    assert have_ended([process])


def assert_right(config: Config, job: Job) -> None:
    """The files are there, once, and hold the pixels."""
    results_found = results.find_results(config, job)
    assert results_found is not None
    assert results_found.complete
    (asset,) = [a for a in results_found.assets if "data" in a["roles"]]
    (path,) = (config.data_dir / "storage" / "results").rglob(asset["name"])
    with MemoryFile(path.read_bytes()) as memory, memory.open() as file:
        np.testing.assert_array_equal(file.read(), PIXELS)


def test_shut_down_in_good_order(config: Config, ada: UUID, gate: Gate, worker) -> None:
    """A worker that is told to end gives its job back, which is not counted as a try."""
    stop = worker()
    id_ = make(config, ada, gate)
    gate.wait()
    stop.set()
    job = until(config, ada, id_, "queued")
    assert job.tries == 0
    wait_until_nothing_is_stored(config)
    gate.open.set()
    worker()
    job = until(config, ada, id_, "finished", "error")
    assert job.status == "finished", messages(config, job)
    assert job.tries == 1
    assert any("shutting down" in entry for entry in messages(config, job))
    assert_right(config, job)


def test_the_process_of_a_job_is_killed(config: Config, ada: UUID, gate: Gate, worker) -> None:
    worker()
    id_ = make(config, ada, gate)
    gate.wait()
    process_of_job().kill()
    said(config, ada, id_, "ended unexpectedly (signal 9)")
    gate.open.set()
    job = until(config, ada, id_, "finished", "error")
    assert (job.status, job.tries) == ("finished", 2)
    assert_right(config, job)


@pytest.mark.parametrize("how", ["worker", "all"])
def test_the_worker_is_killed(config: Config, ada: UUID, gate: Gate, worker, how: str) -> None:
    """What it has started ends by itself; another worker takes the job after the silence."""
    killed = subprocess.Popen([*COMMAND, "worker"], env=child_environment(config))
    try:
        id_ = make(config, ada, gate)
        gate.wait()
        run = process_of_job(killed.pid)
    finally:
        killed.kill()
    if how == "all":
        # After the worker, which would tell what happened to it.
        run.kill()
    killed.wait()
    gone(run)
    assert jobs.get_job(config, ada, id_).status == "running"
    gate.open.set()
    worker()
    job = until(config, ada, id_, "finished", "error")
    assert (job.status, job.tries, gate.count) == ("finished", 2, 2)
    assert any("was lost" in entry for entry in messages(config, job))
    assert_right(config, job)


def test_deleted_while_it_runs(config: Config, ada: UUID, gate: Gate, worker) -> None:
    worker()
    id_ = make(config, ada, gate)
    gate.wait()
    run = process_of_job()
    jobs.delete_job(config, ada, id_)
    gone(run)
    gate.open.set()
    following = until(config, ada, make(config, ada), "finished", "error")
    assert_right(config, following)


def test_cancelled_while_it_runs_and_started_again(config: Config, ada: UUID, gate: Gate, worker) -> None:
    worker()
    id_ = make(config, ada, gate)
    gate.wait()
    run = process_of_job()
    jobs.cancel_job(config, ada, id_)
    assert jobs.get_job(config, ada, id_).status == "created"
    jobs.start_job(config, ada, id_)
    gone(run)
    gate.open.set()
    job = until(config, ada, id_, "finished", "error")
    assert (job.status, job.tries) == ("finished", 1)
    assert_right(config, job)


def test_started_and_cancelled_again_and_again(config: Config, ada: UUID, worker) -> None:
    """Cancelling while a worker is about to start leaves nothing behind, nor do many starts at once."""
    for _ in range(2):
        worker()
    id_ = make(config, ada)
    for _ in range(15):
        jobs.cancel_job(config, ada, id_)
        for _ in range(3):
            jobs.start_job(config, ada, id_)
        time.sleep(0.1)
    job = until(config, ada, id_, "finished", "error")
    assert job.status == "finished", messages(config, job)
    assert_right(config, job)


def test_started_twice_runs_once(config: Config, ada: UUID, gate: Gate, worker) -> None:
    for _ in range(3):
        worker()
    id_ = make(config, ada, gate)
    gate.wait()
    for _ in range(20):
        jobs.start_job(config, ada, id_)
    time.sleep(1)
    gate.open.set()
    job = until(config, ada, id_, "finished", "error")
    assert (job.status, job.tries, gate.count) == ("finished", 1, 1)
    assert_right(config, job)


@pytest.mark.parametrize("format_", ["GTiff", "netCDF", "Zarr", "Parquet"])
def test_no_room_for_results(config: Config, ada: UUID, gate: Gate, worker, format_: str) -> None:
    """Files may have 100 kB: the job ends with an error that says so, and leaves no file."""
    worker(config.model_copy(update={"job_tries": 1}))
    id_ = make(config, ada, gate, format_)
    gate.wait()
    process_of_job().rlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    gate.open.set()
    job = until(config, ada, id_, "error", "finished")
    (error,) = jobs.list_logs(config, job, "error").items
    assert job.status == "error"
    assert error.more["code"] == "StorageFailure"
    assert "Traceback" not in error.message
    assert str(config.data_dir) not in error.message
    assert results.find_results(config, job) is None
    wait_until_nothing_is_stored(config)


def test_unavailable_storage_is_reported(config: Config, ada: UUID, worker) -> None:
    """The job waits, without losing a try, and runs when the storage is back."""
    place = config.data_dir / "storage" / "results"
    place.write_text("not mounted")
    worker()
    id_ = make(config, ada)
    said(config, ada, id_, "The job is queued again")
    assert jobs.get_job(config, ada, id_).tries <= 1
    place.unlink()
    job = until(config, ada, id_, "finished", "error")
    assert (job.status, job.tries) == ("finished", 1)
    assert_right(config, job)


def test_an_input_that_cannot_be_read(config: Config, ada: UUID, gate: Gate, worker) -> None:
    worker()
    id_ = make(config, ada, gate)
    gate.wait()
    os.truncate(files.get_local_path(config, str(ada), "pixels.tif"), 50_000)
    gate.open.set()
    job = until(config, ada, id_, "error", "finished")
    assert job.status == "error"
    assert "cannot be read" in messages(config, job)[-1]
    wait_until_nothing_is_stored(config)


def test_the_scheduler_comes_late(config: Config, ada: UUID, worker, tmp_path: Path) -> None:
    """Nothing listens where the dask scheduler should: the job waits, and no try is lost."""
    port = free_port()
    absent = config.model_copy(
        update={"dask_scheduler": f"tcp://127.0.0.1:{port}", "local_max_bytes": 0, "worker_wait_s": 60.0}
    )
    worker(absent)
    id_ = make(absent, ada)
    said(config, ada, id_, "scheduler of the service does not answer")
    assert jobs.get_job(config, ada, id_).tries <= 1
    dask = [sys.executable, "-m", "dask"]
    near = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    scheduler = [*dask, "scheduler", "--port", str(port), *near]
    address = ["--local-directory", str(tmp_path), "--nthreads", "1", f"tcp://127.0.0.1:{port}"]
    parts = [subprocess.Popen(scheduler), subprocess.Popen([*dask, "worker", *near, *address])]
    try:
        job = until(config, ada, id_, "finished", "error")
    finally:
        for part in reversed(parts):
            part.send_signal(signal.SIGTERM)
            part.wait(60)
    assert (job.status, job.tries) == ("finished", 1), messages(config, job)[-3:]
    assert_right(config, job)
    assert job.usage is not None
    db.dispose_engine(absent)


def test_a_job_that_needs_more_memory_than_it_may_have(config: Config, worker) -> None:
    """It fails at once and says what to change; trying again would not help."""
    limited = config.model_copy(update={"job_memory": 160 * 2**20})
    user = accounts.create_user(config, "eve", "correct horse").id
    profile = {"driver": "GTiff", "dtype": "float64", "count": 1, "height": 6000, "width": 6000}
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    with MemoryFile() as memory:
        with memory.open(**profile, **grid, SPARSE_OK=True, tiled=True):
            pass
        files.receive_file(config, str(user), "pixels.tif", io.BytesIO(memory.read()), None)
    worker(limited)
    id_ = make(limited, user, format_="netCDF")
    job = until(limited, user, id_, "error", "finished")
    (error,) = jobs.list_logs(config, job, "error").items
    assert (job.status, job.tries) == ("error", 1)
    assert error.more["code"] == "ProcessGraphComplexity"
    assert "160 MiB of memory" in error.message
    wait_until_nothing_is_stored(config)
