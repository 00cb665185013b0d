"""Computing on a real scheduler and real workers in processes of their own."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask
import dask.array
import distributed
import numpy as np
import pytest
import xarray as xr

from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy, RequestTimeout, WorkerTooSmall
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.parts import read_part_limits


@pytest.fixture(scope="module")
def local():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def config(local):
    config_of_cluster = Config(dask_scheduler=local.scheduler_address, worker_wait_s=1)
    yield config_of_cluster
    cluster.close(config_of_cluster)


@dask.delayed
def slow(seconds):
    time.sleep(seconds)
    return seconds


@dask.delayed
def broken():
    raise FileNotFoundError("scene.tif")


def cube():
    values = np.arange(4 * 6 * 8, dtype="int16").reshape(4, 6, 8)
    array = xr.DataArray(
        values, dims=("t", "y", "x"), coords={"x": np.arange(8)}, attrs={"nodata": -1}, name="v"
    )
    return array, array.chunk({"t": 1, "y": 3, "x": 4})


def test_cluster_results_equal_numpy(config):
    eager, lazy = cube()
    calls = []
    array, mean, number = cluster.compute(
        config, lazy, lazy.mean("t"), slow(0), progress=lambda done, all_: calls.append((done, all_))
    )
    xr.testing.assert_identical(array, eager)
    assert not dask.is_dask_collection(array)
    xr.testing.assert_identical(mean, eager.mean("t"))
    assert number == 0
    assert calls[-1][0] == calls[-1][1] > 0


def test_datasets_and_plain_values(config):
    eager, lazy = cube()
    dataset, plain = cluster.compute(config, lazy.to_dataset(), 5)
    xr.testing.assert_identical(dataset, eager.to_dataset())
    assert plain == 5


def test_tiny_ones_run_here(config):
    assert cluster.runs_here(config, 1000)
    assert not cluster.runs_here(config, None)
    assert not cluster.runs_here(config, 10**12)
    ran_in = dask.delayed(lambda: threading.get_ident())()
    assert cluster.compute(config, ran_in, nbytes=10)
    assert cluster.runs_here(Config(), 10**12)
    assert cluster.connect(Config()) is None


def test_one_client_per_process(config):
    assert cluster.connect(config) is cluster.connect(config)
    assert "1 workers, 2 threads" in cluster.check_cluster(config)


def test_errors_of_tasks_come_as_they_are_and_early(config):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"scene\.tif"):
        cluster.compute(config, broken(), slow(20))
    assert time.monotonic() - start < 10


def test_computation_ends_at_timeout(config):
    with pytest.raises(RequestTimeout):
        cluster.compute(config, slow(5), timeout=0.5)


def test_cancelled_computation_stops(config):
    event = threading.Event()
    threading.Timer(0.3, event.set).start()
    with pytest.raises(cluster.Cancelled):
        cluster.compute(config, slow(6), cancelled=event)


@pytest.mark.parametrize("delay", [0.2, 0.35, 0.5, 0.65])
def test_client_that_another_thread_closes(config, delay):
    """The computation ends with an error at once, wherever it is: it does not wait forever."""
    with ThreadPoolExecutor(1) as executor:
        computation = executor.submit(cluster.compute, config, slow(0.8))
        time.sleep(delay)
        cluster.close(config)
        with pytest.raises(InfrastructureBusy):
            computation.result(120)


def test_missing_scheduler_is_reported():
    config = Config(dask_scheduler="tcp://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(InfrastructureBusy, match="scheduler"):
        cluster.compute(config, slow(0))
    assert time.monotonic() - start < cluster.CONNECT_SECONDS + 5


def test_missing_worker_is_reported():
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty:
        config = Config(dask_scheduler=empty.scheduler_address, worker_wait_s=0.5)
        with pytest.raises(InfrastructureBusy, match="No dask worker is running"):
            cluster.compute(config, slow(0))
        with pytest.raises(InfrastructureBusy, match="No dask worker is running"):
            cluster.check_cluster(config)
        cluster.close(config)


def test_lost_scheduler_is_reported_and_a_new_one_used():
    port = None
    with distributed.LocalCluster(
        n_workers=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", protocol="tcp://", processes=False
    ) as first:
        config = Config(dask_scheduler=first.scheduler_address, worker_wait_s=2)
        port = int(first.scheduler_address.rsplit(":", 1)[1])
        assert cluster.compute(config, slow(0)) == (0,)
    with pytest.raises(InfrastructureBusy):
        cluster.compute(config, slow(0))
    with distributed.LocalCluster(
        n_workers=1,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        protocol="tcp://",
        scheduler_port=port,
        processes=False,
    ):
        assert cluster.compute(config, slow(0)) == (0,)
        cluster.close(config)


@pytest.fixture(scope="module")
def offering():
    """A worker of four threads that offers 1 slot and 1000 bytes."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=4,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        resources={"slots": 1, "memory": 1000},
    ) as cluster:
        yield cluster


def test_the_worker_with_the_least_memory_is_found():
    with distributed.LocalCluster(
        n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1", processes=False, protocol="tcp://"
    ) as mixed:
        config = Config(dask_scheduler=mixed.scheduler_address)
        try:
            assert cluster.find_smallest_worker(config) is None
            assert read_part_limits(config).worker_bytes is None
            for limit, threads in (("3 GB", 4), ("1200 MB", 3), (0, 1)):
                mixed.new_spec["options"] |= {"memory_limit": limit, "nthreads": threads}
                mixed.scale(len(mixed.workers) + 1)
                mixed.sync(mixed._correct_state)
            cluster.connect(config).wait_for_workers(3)
            assert cluster.find_smallest_worker(config) == (1_200_000_000, 3)
            limits = read_part_limits(config)
            assert limits.worker_threads == 3
            assert 300_000_000 < limits.worker_bytes < 900_000_000
        finally:
            cluster.close(config)


def test_without_a_cluster_parts_fit_the_memory_of_jobs():
    limits = read_part_limits(Config(job_memory=2**30))
    assert 2**28 < limits.worker_bytes < 2**30


@dask.delayed
def together(number):
    """How many of these run at the same time."""
    worker = distributed.get_worker()
    worker.running = getattr(worker, "running", 0) + 1
    time.sleep(0.3)
    seen = worker.running
    worker.running -= 1
    return seen


def test_tasks_take_resources_of_workers(offering):
    config = Config(dask_scheduler=offering.scheduler_address, worker_wait_s=1)
    try:
        for resources, most in (({"slots": 0.999 / 2}, 2), ({"memory": 1000}, 1), ({"memory": 400}, 2)):
            tasks = [together(i) for i in range(6)]
            assert max(cluster.compute(config, *tasks, resources=resources)) <= most
        with pytest.raises(WorkerTooSmall, match="1001 of 'memory'.*1000"):
            cluster.compute(config, together(1), resources={"memory": 1001})
    finally:
        cluster.close(config)


def test_stream_releases_written_chunks(config):
    """However large the cube: only a few batches are held here at a time."""
    data = xr.DataArray(dask.array.random.random((12, 64, 64), chunks=(1, 64, 64)), dims=("t", "y", "x"))
    seen, most = [], 0

    def consume(region, values):
        nonlocal most
        seen.append(weakref.ref(values))
        most = max(most, sum(item() is not None for item in seen))

    gc.disable()
    try:
        stream_batches(data, partial(cluster.compute, config), consume, limit=64 * 64 * 8)
    finally:
        gc.enable()
    assert len(seen) == 12
    assert most <= 4
