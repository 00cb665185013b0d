"""Removes files that no job needs any more: expired results, and what killed workers have left behind."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.jobs import queue
from odc_openeo.storage import storage

log = logging.getLogger(__name__)


def scratch(config: Config) -> Path:
    """Where runs write their files first when the storage is not a folder of this machine."""
    return config.data_dir / "scratch"


def remove_attempt(config: Config, job: UUID, attempt: UUID) -> None:
    """Remove the files of an attempt, unless it runs or its results are there."""
    if attempt not in queue.known_attempts(config, [attempt]):
        storage(config).delete(queue.folder(job, attempt))
    shutil.rmtree(scratch(config) / str(attempt), ignore_errors=True)


def clean(config: Config) -> int:
    """Remove expired results and all folders of attempts that neither run nor have results; their number.

    Folders are listed before the database is asked: each belongs to an attempt that was recorded by then.
    """
    queue.expired(config)
    store = storage(config)
    found = {
        UUID(attempt): f"results/{job}/{attempt}"
        for job in store.folders("results")
        for attempt in store.folders(f"results/{job}")
        if _is_uuid(attempt)
    }
    unknown = found.keys() - queue.known_attempts(config, found)
    for attempt in unknown:
        store.delete(found[attempt])
    if unknown:
        log.info("removed the files of %d attempts", len(unknown))
    return len(unknown)


def _is_uuid(name: str) -> bool:
    try:
        return bool(UUID(name))
    except ValueError:
        return False
