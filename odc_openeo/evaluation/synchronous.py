"""Run a process at once and write its result into a folder, within limits of size and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from odc_openeo.compute import cluster
from odc_openeo.compute.result_cache import ResultCache, make_key
from odc_openeo.config import Config
from odc_openeo.errors import RequestTimeout
from odc_openeo.formats import (
    ARCHIVE_TYPE,
    Output,
    choose_format,
    explain_archive,
    name_archive,
    pack_files,
    write_outputs,
)
from odc_openeo.graph import GraphLimits, PreparedProcess, prepare
from odc_openeo.graph.estimate import Bounds, estimate_computation
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.run_environment import make_environment

MOST_CHUNKS: Final = 20_000
"""Chunks that a load may have here: building and sending larger graphs takes tens of seconds."""


class ComputedFile(NamedTuple):
    """The file of a result, its media type, and what the user should know about it."""

    path: Path
    media_type: str
    warnings: list[str]


def compute_result(config: Config, process: Mapping[str, Any], user: str, folder: Path) -> ComputedFile:
    """Evaluate a process and write what it saves into ``folder`` as one file.

    Raises:
        ProcessGraphComplexity: it reads more than a synchronous request may; nothing was computed.
        RequestTimeout: it took longer than a synchronous request may.
    """
    deadline = time.monotonic() + config.sync_timeout_s
    limits = RunLimits(load_bytes=config.sync_max_bytes, load_chunks=MOST_CHUNKS)
    env = make_environment(config, user, limits)
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
        return ComputedFile(*cached, _list_warnings(outputs, cached[1]))
    compute = partial(_compute_in_time, config, needed.input_bytes, deadline)
    assets = write_outputs(value, outputs, folder, compute)
    path, media_type = pack_files(assets, folder, name_archive(outputs))
    if key is not None:
        cache.put(key, path, media_type)
    return ComputedFile(path, media_type, _list_warnings(outputs, media_type))


def _list_warnings(outputs: Sequence[Output], media_type: str) -> list[str]:
    archive = [explain_archive(outputs)] if media_type == ARCHIVE_TYPE else []
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
