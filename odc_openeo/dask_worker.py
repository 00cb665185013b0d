"""Dask workers as this service needs them: the environment, GDAL's drivers, a mark by which they are known.

The module is the command behind ``odc-openeo dask-worker`` and the preload module that this command names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from odc_openeo import __version__
from odc_openeo.cluster import WORKER_MARK
from odc_openeo.config import allowed_gdal_drivers
from odc_openeo.gdal_drivers import secure_gdal

PRELOAD: Final = ["--preload", "odc_openeo.dask_worker"]


def dask_worker_command(options: Sequence[str]) -> list[str]:
    """The command of a plain dask worker with our preload; ``options`` are those of ``dask worker``."""
    return [sys.executable, "-m", "dask", "worker", *options, *PRELOAD]


def dask_setup(worker: Any) -> None:
    """Called by dask before a worker registers with the scheduler.

    Raises:
        GdalIsOpenError: GDAL could open what it must not; the worker does not start.
    """
    # Imported now, so that the first task need not wait for it.
    from odc_openeo import load  # noqa: F401

    secure_gdal(allowed_gdal_drivers())
    worker.metrics[WORKER_MARK] = _describe_version


def _describe_version(_: Any) -> str:
    return __version__
