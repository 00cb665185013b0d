"""Parts as tasks of Prefect: workers that are killed, cancels from both sides, parameters of others."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import psutil
import pytest
import rasterio
from sqlalchemy import select

from odc_openeo import db, jobs
from tests.parts.jobs.prefect_server import PrefectSite, open_prefect
from tests.parts.jobs.site import PartsSite, Worker, compute_expected, reduce_graph

pytest.importorskip("prefect", reason="Prefect, of the extra `prefect`, is not installed")


@pytest.fixture(scope="module")
def prefect(parts_site: PartsSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectSite]:
    with open_prefect(parts_site, tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def job_worker(prefect: PrefectSite) -> Iterator[Worker]:
    worker = prefect.site.start_worker("--parts")
    yield worker
    worker.kill()


@pytest.fixture
def pool_worker(prefect: PrefectSite, job_worker: Worker) -> Iterator[Worker]:
    worker = prefect.start_pool_worker()
    yield worker
    kill_tree(worker)


def list_rows(site: PartsSite, id_: str) -> list[db.JobPartRow]:
    query = select(db.JobPartRow).where(db.JobPartRow.job_id == UUID(id_)).order_by(db.JobPartRow.number)
    with db.session(site.config) as session:
        return list(session.scalars(query))


def kill_tree(worker: Worker) -> None:
    """Kill a worker and its flow runs, whose processes are groups of their own."""
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = psutil.Process(worker.process.pid).children(recursive=True)
    worker.kill()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def test_the_job_goes_on_after_all_workers_were_killed(prefect: PrefectSite, tmp_path: Path) -> None:
    site = prefect.site
    first = [site.start_worker("--parts"), prefect.start_pool_worker()]
    try:
        id_ = site.submit(reduce_graph("GTiff"))
        site.wait_for_parts(id_, 1)
    finally:
        for worker in first:
            kill_tree(worker)
    before = {row.number: row.attempt for row in list_rows(site, id_) if row.status == "done"}
    assert 1 <= len(before) < 7
    second = [site.start_worker("--parts"), prefect.start_pool_worker()]
    try:
        job = site.wait(id_, "finished", "error")
        assert job.status == "finished", [worker.output.read_text()[-3000:] for worker in second]
        runs = prefect.wait_for_states(id_, "CRASHED", "COMPLETED")
        with prefect.open_client() as client:
            tasks = client.read_task_runs()
    finally:
        for worker in second:
            kill_tree(worker)
    rows = {row.number: row for row in list_rows(site, id_)}
    assert all(rows[number].attempt == attempt for number, attempt in before.items())
    assert all(rows[number].tries == 1 for number in before)
    names = {task.name for task in tasks if task.flow_run_id == runs[1].id}
    expected = {f"part {number + 1} of 6" for number in range(6) if number not in before}
    assert names == expected | {"complete the results"}
    assert [run.parameters for run in runs] == [{"job_id": id_, "run_id": runs[0].parameters["run_id"]}] * 2
    with rasterio.open(site.fetch_files(id_, tmp_path)["result.vrt"]) as file:
        np.testing.assert_array_equal(file.read(), compute_expected())


def test_a_cancel_here_ends_the_flow_run(prefect: PrefectSite, pool_worker: Worker) -> None:
    site = prefect.site
    id_ = site.submit(reduce_graph("GTiff"))
    site.wait_for_parts(id_, 1)
    jobs.cancel_job(site.config, site.user, id_)
    prefect.wait_for_states(id_, "CANCELLED")
    assert site.get_job(id_).status == "canceled"
    assert sum(row.status == "done" for row in list_rows(site, id_)) < 7


def test_a_cancel_in_prefect_cancels_the_job(prefect: PrefectSite, pool_worker: Worker) -> None:
    from prefect.states import Cancelling

    site = prefect.site
    id_ = site.submit(reduce_graph("GTiff"))
    site.wait_for_parts(id_, 1)
    (run,) = prefect.wait_for_states(id_, "RUNNING")
    with prefect.open_client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    assert site.wait(id_, "canceled", "finished").status == "canceled"
    messages = site.list_messages(id_)
    assert "warning: The flow run of the job was canceled in Prefect: the job is canceled" in messages
    prefect.wait_for_states(id_, "CANCELLED")


def test_a_run_that_nobody_knows_ends_at_once(prefect: PrefectSite, pool_worker: Worker) -> None:
    from prefect.exceptions import ParameterTypeError

    from odc_openeo.worker.prefect_flow import run_job_parts

    job, run = str(uuid4()), str(uuid4())
    with pytest.raises(ParameterTypeError):
        run_job_parts.validate_parameters({"job_id": "../../etc", "run_id": run})
    with prefect.open_client() as client:
        deployment = prefect.wait_for_deployment()
        assert deployment.entrypoint == "odc_openeo.worker.prefect_flow.run_job_parts"
        client.create_flow_run_from_deployment(deployment.id, parameters={"job_id": job, "run_id": run})
    prefect.wait_for_states(job, "CANCELLED")


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGKILL]],
    ids=["asked", "urged", "killed"],
)
def test_nothing_outlives_a_worker_of_the_pool(
    prefect: PrefectSite, job_worker: Worker, signals: list[signal.Signals], tmp_path: Path
) -> None:
    site = prefect.site
    first = prefect.start_pool_worker()
    try:
        id_ = site.submit(reduce_graph("GTiff"))
        site.wait_for_parts(id_, 1)
        started = psutil.Process(first.process.pid).children(recursive=True)
        assert started
        for number in signals:
            first.process.send_signal(number)
            time.sleep(0.5)
        first.process.wait(60)
        _, alive = psutil.wait_procs(started, 60)
        assert alive == [], [process.cmdline() for process in alive]
    finally:
        kill_tree(first)
    second = prefect.start_pool_worker()
    try:
        job = site.wait(id_, "finished", "error")
        assert job.status == "finished", site.list_messages(id_)
    finally:
        kill_tree(second)
    with rasterio.open(site.fetch_files(id_, tmp_path)["result.vrt"]) as file:
        np.testing.assert_array_equal(file.read(), compute_expected())
