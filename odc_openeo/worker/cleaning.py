"""Remove files that no job needs any more: expired results and leftovers of killed workers."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.jobs import queue
from odc_openeo.storage import get_storage

log = logging.getLogger(__name__)


def get_scratch_folder(config: Config) -> Path:
    """Return where runs write their files first if the storage is not a folder of this machine."""
    return config.data_dir / "scratch"


def remove_attempt(config: Config, job: UUID, attempt: UUID) -> None:
    """Remove the files of an attempt, unless it is running or has results."""
    if attempt not in queue.find_live_attempts(config, [attempt]):
        get_storage(config).delete(queue.get_result_folder(job, attempt))
    shutil.rmtree(get_scratch_folder(config) / str(attempt), ignore_errors=True)


def remove_old_files(config: Config) -> int:
    """Remove expired results and the folders of attempts that are not running and have no results.

    Returns the number of folders. They are listed before the database is queried: by then, each attempt has
    been recorded.
    """
    queue.delete_expired_results(config)
    store = get_storage(config)
    folders = {
        UUID(attempt): f"results/{job}/{attempt}"
        for job in store.list_folders("results")
        for attempt in store.list_folders(f"results/{job}")
        if _is_uuid(attempt)
    }
    unknown = folders.keys() - queue.find_live_attempts(config, folders)
    for attempt in unknown:
        store.delete(folders[attempt])
    store.remove_abandoned()
    if unknown:
        log.info("removed the files of %d attempts", len(unknown))
    return len(unknown)


def _is_uuid(name: str) -> bool:
    try:
        return bool(UUID(name))
    except ValueError:
        return False
