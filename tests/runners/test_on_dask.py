"""Runs whose client has left end on the dask cluster, too."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import pytest

from odc_openeo.config import Config
from odc_openeo.errors import RequestTimeout
from odc_openeo.runners import Lane, RunAbandoned, RunnerPool
from tests.runners import tasks
from tests.support.waiting import wait_for

CHUNKS = 400
CHUNK_S = 0.2


@pytest.mark.parametrize("reason", ["client left", "deadline"])
def test_tasks_of_a_run_that_has_ended_are_forgotten(tmp_path: Path, reason: str) -> None:
    def count_tasks(dask_scheduler: Any) -> int:
        return len(dask_scheduler.tasks)

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as local,
        distributed.Client(local) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        config = Config(data_dir=tmp_path, dask_scheduler=local.scheduler_address)
        pool, is_there, mark = RunnerPool(config, Lane("test", 1, 1, 1, 1)), threading.Event(), tmp_path / "m"
        is_there.set()
        limit = 600.0 if reason == "client left" else 8.0
        future = threads.submit(
            pool.run,
            *(tasks.compute_on_dask, mark, CHUNKS, CHUNK_S),
            user="ada",
            seconds=limit,
            is_wanted=is_there.is_set,
        )
        wait_for(lambda: client.run_on_scheduler(count_tasks) > CHUNKS / 2)
        if reason == "client left":
            is_there.clear()
        with pytest.raises((RunAbandoned, RequestTimeout)):
            future.result(timeout=120)
        ended = time.monotonic()
        wait_for(lambda: client.run_on_scheduler(count_tasks) == 0)
        # Done by hand they would have taken longer than this.
        assert time.monotonic() - ended < CHUNKS * CHUNK_S / 4
        pool.stop()
