"""Run a process at once and write its result into a folder, within limits of size and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from odc_openeo.compute import cluster
from odc_openeo.compute.result_cache import ResultCache, make_key
from odc_openeo.config import Config
from odc_openeo.errors import RequestTimeout
from odc_openeo.formats import (
    Download,
    Output,
    choose_format,
    explain_archive,
    make_download,
    write_outputs,
)
from odc_openeo.graph import GraphLimits, PreparedProcess, prepare
from odc_openeo.graph.estimate import Bounds, estimate_computation
from odc_openeo.jobs.quotas import check_cpu_budget
from odc_openeo.jobs.usage import measure_result
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.user_data.run_environment import make_environment

MOST_CHUNKS: Final = 20_000
"""Chunks that a load may have here: building and sending larger graphs takes tens of seconds."""


class ComputedResult(NamedTuple):
    """The files of a result as one download, and what the user should know about it."""

    download: Download
    warnings: list[str]


def compute_result(
    config: Config, process: Mapping[str, Any], user: str, folder: Path, archives: tuple[str, ...] = ()
) -> ComputedResult:
    """Evaluate a process and write what it saves into ``folder``.

    ``archives`` are those of dependencies of user code.

    Raises:
        ProcessGraphComplexity: it reads more than a synchronous request may; nothing was computed.
        RequestTimeout: it took longer than a synchronous request may.
        PaymentRequired: the user has no CPU hours left.
    """
    check_cpu_budget(config, UUID(user))
    with measure_result(config, user, process):
        return _compute_files(config, process, user, folder, archives)


def _compute_files(
    config: Config, process: Mapping[str, Any], user: str, folder: Path, archives: tuple[str, ...]
) -> ComputedResult:
    deadline = time.monotonic() + config.sync_timeout_s
    limits = RunLimits(load_bytes=config.sync_max_bytes, load_chunks=MOST_CHUNKS)
    env = make_environment(config, user, limits, archives=archives)
    prepared = prepare(process, env.lookup, GraphLimits.from_config(config))
    value = prepared.evaluate(env)
    outputs = env.outputs or [Output.from_data(value, choose_format(value))]
    saved = [output.data for output in outputs]
    needed = estimate_computation([value, *saved], saved, env.loads)
    Bounds(config.sync_max_bytes, config.sync_max_tasks).check_estimate(needed, "a synchronous request")
    cache = ResultCache.from_config(config)
    key = _make_cache_key(prepared, env) if cache.limit else None
    cached = None if key is None else cache.get(key, folder)
    if cached is not None:
        files, about = cached
        download = Download(about["name"], about["media_type"], files)
        return ComputedResult(download, _list_warnings(outputs, download))
    compute = partial(_compute_in_time, config, needed.input_bytes, deadline)
    download = make_download(write_outputs(value, outputs, folder, compute), outputs)
    if key is not None:
        about = {"name": download.name, "media_type": download.media_type}
        cache.put(key, download.files, about)
    return ComputedResult(download, _list_warnings(outputs, download))


def _list_warnings(outputs: Sequence[Output], download: Download) -> list[str]:
    archive = [explain_archive(outputs)] if download.is_archive else []
    return [*archive, *(warning for output in outputs for warning in output.warnings)]


def _make_cache_key(prepared: PreparedProcess, env: Environment) -> str | None:
    """A digest of all that a result depends on; None if that is not certain or nothing was loaded."""
    fingerprint = prepared.compute_fingerprint() if env.loads else None
    return (
        None if fingerprint is None else make_key(fingerprint, [repr(load) for load in env.loads], env.user)
    )


def _compute_in_time(config: Config, nbytes: int, deadline: float, *collections: Any) -> tuple[Any, ...]:
    seconds = config.sync_timeout_s
    left = deadline - time.monotonic()
    if left <= 0:
        raise RequestTimeout(seconds=seconds)
    try:
        return cluster.compute(config, *collections, nbytes=nbytes, timeout=left)
    except RequestTimeout as error:
        raise RequestTimeout(seconds=seconds) from error
    except Exception as error:
        explained = explain_read_failure(error)
        if explained is None:
            raise
        raise explained from error
