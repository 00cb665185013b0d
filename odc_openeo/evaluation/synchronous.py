"""Run a process at once and write its result into a folder, within limits of size and time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from odc_openeo import cluster, load
from odc_openeo.cache import Cache, digest
from odc_openeo.config import Config
from odc_openeo.errors import RequestTimeout
from odc_openeo.evaluation.catalogs import shared_catalog
from odc_openeo.formats import single_file, write_outputs
from odc_openeo.graph import Limits, evaluate, identity
from odc_openeo.graph.estimate import Bounds, estimate
from odc_openeo.process import Environment
from odc_openeo.stored import Library

MOST_CHUNKS: Final = 20_000
"""Chunks that a load may have here: building and sending larger graphs takes tens of seconds."""


def compute_result(config: Config, process: Mapping[str, Any], user: str, folder: Path) -> tuple[Path, str]:
    """Evaluate a process, write what it saves into ``folder``: one file, and its media type.

    Raises:
        ProcessGraphComplexity: it reads more than a synchronous request may; nothing was computed.
        RequestTimeout: it took longer than a synchronous request may.
    """
    deadline = time.monotonic() + config.sync_timeout_s
    settings = {"load_max_bytes": config.sync_max_bytes, "load_max_chunks": MOST_CHUNKS}
    env = Environment(
        catalog=shared_catalog(config), user=user, settings=settings, lookup=Library(config, UUID(user))
    )
    limits = Limits.from_config(config)
    value = evaluate(process, env, limits=limits)
    made = [output.data for output in env.outputs] or [value]
    found = estimate([value, *made], made, env.loads)
    Bounds(config.sync_max_bytes, config.sync_max_tasks).check(found, "a synchronous request")
    cache = Cache.of(config)
    key = _key(process, env, limits) if cache.limit else None
    kept = None if key is None else cache.get(key, folder)
    if kept is not None:
        return kept
    compute = partial(_compute, config, found.input_bytes, deadline)
    path, media_type = single_file(write_outputs(value, env.outputs, folder, compute), folder)
    if key is not None:
        cache.put(key, path, media_type)
    return path, media_type


def _key(process: Mapping[str, Any], env: Environment, limits: Limits) -> str | None:
    """What a result is kept by: all that it depends on; None if that is not certain or nothing was loaded."""
    same = identity(process, env, limits) if env.loads else None
    return None if same is None else digest(same, [repr(load) for load in env.loads], env.user)


def _compute(config: Config, nbytes: int, deadline: float, *collections: Any) -> tuple[Any, ...]:
    seconds = config.sync_timeout_s
    left = deadline - time.monotonic()
    if left <= 0:
        raise RequestTimeout(seconds=seconds)
    try:
        return cluster.compute(config, *collections, nbytes=nbytes, timeout=left)
    except RequestTimeout as error:
        raise RequestTimeout(seconds=seconds) from error
    except Exception as error:
        explained = load.explain(error)
        if explained is None:
            raise
        raise explained from error
