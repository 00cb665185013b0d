"""Remove files that no job needs any more: expired results and leftovers of killed workers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.jobs import parts, queue
from odc_openeo.jobs.claims import PartClaim
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


def remove_part_attempt(config: Config, claim: PartClaim) -> None:
    """Remove the files of an attempt at a part, unless it is running or done."""
    if not parts.is_part_attempt_kept(config, claim):
        get_storage(config).delete(claim.folder)
    shutil.rmtree(get_scratch_folder(config) / str(claim.attempt), ignore_errors=True)


def remove_unused_parts(config: Config, claim: PartClaim, assets: Sequence[Mapping[str, Any]]) -> None:
    """Remove the folders of attempts at parts of a finished job that have none of its files."""
    store, folder = get_storage(config), f"{queue.get_result_folder(claim.job.id, claim.run)}/.parts"
    used = {PurePosixPath(str(asset.get("path", ""))).parent.name for asset in assets}
    for name in store.list_folders(folder):
        if name not in used:
            store.delete(f"{folder}/{name}")


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
