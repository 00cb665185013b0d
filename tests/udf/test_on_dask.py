"""Functions run in dask workers; what they log and their errors reach the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import distributed
import numpy as np
import pytest

from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import UdfFailed
from tests.processes.rasters import grid, raster
from tests.support.graphs import value
from tests.udf.conftest import Run, udf

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
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as local:
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
