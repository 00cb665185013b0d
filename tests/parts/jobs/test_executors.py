"""One suite for all executors: a job in parts, and one that is whole, by each of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from sqlalchemy import select

from odc_openeo import db
from odc_openeo.config import Config, child_environment
from odc_openeo.stack.embedded import free_port
from odc_openeo.worker.executors import EXECUTORS, ExecutorUnavailable, make_executor
from tests.parts.jobs.prefect_server import open_prefect
from tests.parts.jobs.site import PartsSite, Worker, compute_expected, node, reduce_graph

NO_PAGE = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@pytest.fixture(scope="module")
def cluster(parts_site: PartsSite) -> Iterator[Config]:
    """A dask cluster with one worker; the settings that name it, by which everything is computed there."""
    address = f"tcp://127.0.0.1:{free_port()}"
    config = parts_site.config.model_copy(update={"dask_scheduler": address, "local_max_bytes": 0})
    port = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], *NO_PAGE]
    commands = (
        [sys.executable, "-m", "dask", "scheduler", *port],
        [sys.executable, "-m", "odc_openeo.cli", "dask-worker", address, "--nthreads", "2", *NO_PAGE],
    )
    environment = child_environment(config, **parts_site.environment)
    log = (parts_site.folder / "dask.log").open("wb")
    processes = [
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        for command in commands
    ]
    yield config
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    log.close()


@pytest.fixture(scope="module", params=[*sorted(EXECUTORS), "prefect"])
def executor(
    request: pytest.FixtureRequest, parts_site: PartsSite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker with each of the executors."""
    with ExitStack() as stack:
        if request.param == "prefect":
            pytest.importorskip("prefect", reason="Prefect, of the extra `prefect`, is not installed")
            server = stack.enter_context(open_prefect(parts_site, tmp_path_factory.mktemp("prefect")))
            stack.callback(server.start_pool_worker().kill)
            worker = server.site.start_worker("--parts")
        elif request.param == "threads":
            worker = parts_site.start_worker("--parts")
        else:
            config = request.getfixturevalue("cluster").model_copy(update={"worker_wait_s": 120})
            worker = parts_site.start_worker(config=config)
        stack.callback(worker.kill)
        yield worker


def test_prefect_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    missing = "PREFECT_API_URL" if find_spec("prefect") else r"odc-openeo\[prefect\]"
    with pytest.raises(ExecutorUnavailable, match=missing):
        make_executor(Config(jobs="prefect"), parts=True)


def test_a_job_in_parts_and_a_whole_one_are_run(
    parts_site: PartsSite, executor: Worker, tmp_path: Path
) -> None:
    whole = parts_site.submit({"sum": node("add", x=1, y=2, result=True)})
    id_ = parts_site.submit(reduce_graph("GTiff"))
    job = parts_site.wait(id_, "finished", "error")
    assert job.status == "finished", (parts_site.list_messages(id_), executor.output.read_text()[-3000:])
    with rasterio.open(parts_site.fetch_files(id_, tmp_path / "parts")["result.vrt"]) as file:
        np.testing.assert_array_equal(file.read(), compute_expected())
    assert parts_site.wait(whole, "finished", "error").status == "finished"
    (path,) = parts_site.fetch_files(whole, tmp_path / "whole").values()
    assert path.read_text() == "3"
    assert job.usage is not None
    assert job.usage["cpu"]["value"] > 0
    with db.session(parts_site.config) as session:
        rows = session.scalars(select(db.JobPartRow).where(db.JobPartRow.job_id == job.id)).all()
    assert [row.status for row in rows] == ["done"] * 7
