"""Dask workers set up for this service: environment, GDAL drivers, and a metric that identifies them.

The module provides the command behind ``odc-openeo dask-worker`` and is the preload module of that command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from odc_openeo import __version__
from odc_openeo.compute.cluster import UDF_METRIC, WORKER_MARK
from odc_openeo.config import allowed_gdal_drivers
from odc_openeo.runners.hidden_memory import hide_memory
from odc_openeo.telemetry.counts import list_counts
from odc_openeo.untrusted.gdal_drivers import secure_gdal

PRELOAD: Final = ["--preload", "odc_openeo.stack.dask_worker"]


def dask_worker_command(options: Sequence[str]) -> list[str]:
    """Build the command of a dask worker with this preload; ``options`` are those of ``dask worker``."""
    return [sys.executable, "-m", "dask", "worker", *options, *PRELOAD]


def dask_setup(worker: Any) -> None:
    """Set up a worker; called by dask before the worker registers with the scheduler.

    Raises:
        GdalIsOpenError: GDAL could open forbidden formats; the worker does not start.
    """
    # Import it now, so that the first task does not have to wait for it.
    from odc_openeo import load  # noqa: F401

    hide_memory()
    secure_gdal(allowed_gdal_drivers())
    worker.metrics[WORKER_MARK] = _describe_version
    worker.metrics[UDF_METRIC] = _count_udf_calls


def _describe_version(_: Any) -> str:
    return __version__


def _count_udf_calls(_: Any) -> dict[str, float]:
    return {dict(c.labels)["outcome"]: c.value for c in list_counts() if c.name == "udf_calls"}
