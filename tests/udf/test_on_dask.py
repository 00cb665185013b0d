"""Functions run in dask workers; what they log and their errors reach the run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import dask
import distributed
import numpy as np
import pytest

from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy, UdfFailed, UdfLimitExceeded, UdfUnavailable
from odc_openeo.evaluation.user_functions import describe_user_functions
from odc_openeo.registry.environment import Environment
from odc_openeo.udf import folders
from odc_openeo.udf.calls import UdfCode, UdfLimits, UdfSettings, call_udf, read_udf_settings
from odc_openeo.udf.layers import check_udf, find_udf_warning
from odc_openeo.udf.placement import run_in_place
from tests.processes.rasters import grid, raster
from tests.support.graphs import value
from tests.support.waiting import wait_for
from tests.udf.conftest import Run, make_run, udf

VALUES = np.random.default_rng(0).random((3, 2, 40, 40)).astype("float32")
CODE = """
import xarray
from openeo.udf import inspect

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    inspect(data={"x": float(cube.x[0])}, message="chunk", code="C7", level="error")
    return cube * 2 if context["works"] else cube.nothing
"""


@pytest.fixture(scope="module")
def on_cluster() -> Iterator[Config]:
    """A configuration with a cluster of its own."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as local,
    ):
        config = Config(dask_scheduler=local.scheduler_address, worker_wait_s=5)
        yield config
        cluster.close(config)


def test_results_and_logs_of_workers(run: Run, on_cluster: Config, records: list[logging.LogRecord]) -> None:
    data = raster(VALUES, grid(40, 40), {"t": 3, "y": 20, "x": 20})
    process = udf(CODE, context={"works": True})
    result = run(data, "apply_dimension", data=value("cube"), process=process, dimension="t")
    assert records == []
    (computed,) = cluster.compute(on_cluster, result, nbytes=2**40)
    np.testing.assert_array_equal(computed.values, VALUES * 2)
    entries = [record for record in records if getattr(record, "code", None) == "C7"]
    assert len(entries) == 4
    assert {entry.levelno for entry in entries} == {logging.ERROR}
    assert len({entry.data["x"] for entry in entries}) == 2
    assert entries[0].path == (("udf", "run_udf"), ("it", "apply_dimension"))


def test_errors_of_workers(run: Run, on_cluster: Config, records: list[logging.LogRecord]) -> None:
    data = raster(VALUES, grid(40, 40), {"t": 3, "y": 20, "x": 20})
    process = udf(CODE, "x", context={"works": False})
    result = run(data, "apply", data=value("cube"), process=process)
    with pytest.raises(UdfFailed, match="nothing") as caught:
        cluster.compute(on_cluster, result, nbytes=2**40)
    assert caught.value.node == "it.udf"
    assert any("cube.nothing" in record.getMessage() for record in records)


# --- Workers for user code only ------------------------------------------------------------------

PLACE = """
import os
import xarray
from openeo.udf import inspect

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    inspect(data={"parent": os.getppid()}, message="here", code="PLACE")
    return cube * 2 if context["works"] else cube.nothing
"""


def make_cluster_of_threads(workers: int) -> distributed.LocalCluster:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    )


@pytest.fixture(scope="module")
def of_user_code() -> Iterator[str]:
    """The address of a scheduler with a worker, in this process, for user code only."""
    with make_cluster_of_threads(1) as local:
        yield local.scheduler_address
        cluster.close(Config(dask_scheduler=local.scheduler_address))


@pytest.fixture
def run_there(config: Config, environment: Environment, of_user_code: str) -> Run:
    """Evaluate a process of a service that has workers for user code."""
    there = config.model_copy(update={"udf_scheduler": of_user_code})
    return make_run(replace(environment, catalog=SimpleNamespace(config=there)))


def test_tasks_leave_user_code_to_its_workers(
    run_there: Run, on_cluster: Config, records: list[logging.LogRecord]
) -> None:
    data = raster(VALUES, grid(40, 40), {"t": 3, "y": 20, "x": 20})
    process = udf(PLACE, context={"works": True})
    result = run_there(data, "apply_dimension", data=value("cube"), process=process, dimension="t")
    (computed,) = cluster.compute(on_cluster, result, nbytes=2**40)
    np.testing.assert_array_equal(computed.values, VALUES * 2)
    entries = [record for record in records if getattr(record, "code", None) == "PLACE"]
    # Those workers are in this process; the tasks are in another one.
    assert [entry.data["parent"] for entry in entries] == [os.getpid()] * 4


def test_errors_of_workers_for_user_code(run_there: Run, records: list[logging.LogRecord]) -> None:
    data = raster(VALUES, grid(40, 40))
    process = udf(PLACE, "x", context={"works": False})
    with pytest.raises(UdfFailed, match="nothing") as caught:
        run_there(data, "apply", data=value("cube"), process=process)
    assert caught.value.node == "it.udf"
    assert any("cube.nothing" in record.getMessage() for record in records)


def test_runtimes_and_level_of_workers_for_user_code(config: Config, of_user_code: str) -> None:
    there = config.model_copy(update={"udf_scheduler": of_user_code})
    here = describe_user_functions(config)
    assert describe_user_functions(there) == here != {}
    assert check_udf(there) == f"on the workers of {of_user_code}: {check_udf(config)}"
    assert find_udf_warning(there) is None


SLEEP = """
import time
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    if cube.sizes["x"] == 40:
        open(context["mark"], "w").close()
        time.sleep(200)
    return cube
"""


@pytest.mark.parametrize("place", ["in-tasks", "on-workers-of-its-own"])
@pytest.mark.parametrize("end", ["cancelled", "client-lost"])
def test_calls_end_with_their_job(
    place: str, end: str, run: Run, run_there: Run, on_cluster: Config, of_user_code: str
) -> None:
    """The process of user code ends, long before its own limit, and its folder is removed."""
    mark = uuid4().hex
    data = raster(VALUES, grid(40, 40), {"t": 3, "y": 40, "x": 40})
    process = udf(SLEEP, context={"mark": mark})
    evaluate = run if place == "in-tasks" else run_there
    result = evaluate(data, "apply_dimension", data=value("cube"), process=process, dimension="t")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        job = executor.submit(cluster.compute, on_cluster, result, nbytes=2**40, cancelled=stop)
        wait_for(lambda: list_marks(mark))
        if end == "cancelled":
            stop.set()
            with pytest.raises(cluster.Cancelled):
                job.result(180)
        else:
            cluster.close(on_cluster)
            assert job.exception(60) is not None
    wait_for(lambda: not list_marks(mark))


def list_marks(name: str) -> list[Path]:
    """List the files of a name in the working folders of user code."""
    return list(folders._find_top_folder().glob(f"*/{name}"))


@pytest.mark.parametrize("place", ["in-tasks", "on-workers-of-its-own"])
def test_a_call_that_is_needed_again_is_made_again(
    place: str, run: Run, run_there: Run, on_cluster: Config, of_user_code: str
) -> None:
    """Equal tasks of another job, which come while the call of a cancelled one is ended."""
    code = SLEEP.replace("time.sleep(200)", "time.sleep(0.6)")
    data = raster(VALUES, grid(40, 40), {"t": 3, "y": 40, "x": 40})
    process = udf(code, context={"mark": uuid4().hex})
    evaluate = run if place == "in-tasks" else run_there
    result = evaluate(data, "apply_dimension", data=value("cube"), process=process, dimension="t")
    for delay in (0.0, 0.1, 0.2, 0.3):
        stop = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            job = executor.submit(cluster.compute, on_cluster, result, nbytes=2**40, cancelled=stop)
            time.sleep(delay)
            stop.set()
            with pytest.raises(cluster.Cancelled):
                job.result(180)
        (computed,) = cluster.compute(on_cluster, result, nbytes=2**40)
        np.testing.assert_array_equal(computed.values, VALUES)


def test_lost_workers_of_user_code(on_cluster: Config) -> None:
    settings = UdfSettings(scheduler=on_cluster.dask_scheduler)
    with pytest.raises(UdfLimitExceeded, match="workers that ran it were killed"):
        run_in_place(settings, end_worker)


def end_worker(_: UdfSettings) -> None:
    os._exit(1)


def test_no_worker_for_user_code(config: Config) -> None:
    with make_cluster_of_threads(0) as empty:
        there = config.model_copy(update={"udf_scheduler": empty.scheduler_address, "worker_wait_s": 0.1})
        with pytest.raises(InfrastructureBusy, match="No dask worker"):
            call_udf(read_udf_settings(there), "alice", UdfCode(""), {}, [])
        cluster.close(Config(dask_scheduler=empty.scheduler_address))


def test_workers_for_user_code_that_do_not_come_back() -> None:
    with make_cluster_of_threads(1) as local, ThreadPoolExecutor(1) as executor:
        settings = UdfSettings(scheduler=local.scheduler_address, wait_s=0.5)
        future = executor.submit(run_in_place, settings, wait_until_released)
        wait_for(lambda: any(task.state == "processing" for task in local.scheduler.tasks.values()))
        (worker,) = local.scheduler.workers
        local.sync(local.scheduler.remove_worker, worker, stimulus_id="test", expected=True)
        try:
            with pytest.raises(InfrastructureBusy, match="No dask worker"):
                future.result(180)
        finally:
            released.set()
            cluster.close(Config(dask_scheduler=local.scheduler_address))


released = threading.Event()


def wait_until_released(_: UdfSettings) -> None:
    released.wait(180)


@pytest.mark.parametrize(
    ("variable", "setting", "seconds", "reason"),
    [
        ("ODC_OPENEO_UDF_SCHEDULER", "tcp://udf-scheduler:8786", 298, "leaves them to workers of their own"),
        ("ODC_OPENEO_UDF", "off", 299, "turned them off"),
    ],
)
def test_workers_refuse_user_code(
    monkeypatch: pytest.MonkeyPatch, variable: str, setting: str, seconds: float, reason: str
) -> None:
    # Settings that no other test has: answers are kept.
    settings = UdfSettings(limits=UdfLimits(seconds=seconds))
    monkeypatch.setenv(variable, setting)
    with pytest.raises(UdfUnavailable, match=reason) as caught:
        call_udf(settings, "alice", UdfCode(""), {}, [])
    assert "tcp:" not in caught.value.message
