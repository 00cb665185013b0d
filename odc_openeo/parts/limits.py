"""The limits of parts that the settings give, and the memory of those who compute them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

from dask.system import CPU_COUNT

from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.parts.model import PartLimits

PROCESS_BYTES: Final = 200 * 10**6
"""Memory of a worker process that has computed nothing yet."""

SHARE: Final = 0.6
"""The share of the other memory of a worker that chunks may fill: dask writes more than that to disk."""

LEAST_BYTES: Final = 64 * 2**20
"""Chunks of this size fit any worker."""


def read_part_limits(config: Config) -> PartLimits:
    """Return the limits of the settings, with the memory of the smallest dask worker that runs now.

    Without a cluster, parts are computed within the memory of jobs. Where it is unknown, memory is no limit.
    """
    limits, worker = PartLimits.from_config(config), _find_memory(config)
    if worker is None:
        return limits
    memory, threads = worker
    worker_bytes = max(LEAST_BYTES, int(SHARE * (memory - PROCESS_BYTES)))
    return replace(limits, worker_bytes=worker_bytes, worker_threads=threads)


def _find_memory(config: Config) -> tuple[int, int] | None:
    """Memory and threads of the process with the least memory."""
    if config.dask_scheduler is None:
        return config.job_memory, CPU_COUNT
    with contextlib.suppress(InfrastructureBusy):
        return cluster.find_smallest_worker(config)
    return None
