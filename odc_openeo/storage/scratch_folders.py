"""Temporary folders of requests, all in one place; those of killed processes are removed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure

log = logging.getLogger(__name__)

FOLDER: Final = "scratch/requests"
ABANDONED_S: Final = 24 * 3600
"""Age beyond which folders of other hosts are removed too: no request takes that long."""


@contextmanager
def make_scratch_folder(config: Config) -> Iterator[Path]:
    """Make a folder that is removed at the end; its name identifies the process that owns it.

    Raises:
        StorageFailure: it cannot be made, for example because the disk is full.
    """
    top = config.data_dir / FOLDER
    try:
        top.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=f"{describe_process()}-", dir=top))
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_scratch(config: Config) -> int:
    """Remove the folders of processes of this host that have ended; return their number."""
    count = 0
    with contextlib.suppress(OSError):
        for folder in (config.data_dir / FOLDER).iterdir():
            if is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
    if count:
        log.info("removed %d folders of requests whose processes were killed", count)
    return count


def describe_process() -> str:
    """Return the start of the names of this process's folders, by which `is_abandoned` knows it."""
    return f"{_host_name()}-{os.getpid()}-{_find_start(os.getpid())}"


def _host_name() -> str:
    # Also distinguishes containers: each has its own host name and its own process ids.
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def _find_start(pid: int) -> str | None:
    """Find when a process started, in ticks since boot, as ids are reused; None if it does not exist."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The program name, in parentheses, may contain spaces.
    return status.rpartition(")")[2].split()[19]


def is_abandoned(folder: Path) -> bool:
    """Whether the process that a folder is named after has ended; on other hosts, whether it is old."""
    parts = folder.name.split("-")
    if len(parts) >= 3 and parts[0] == _host_name() and parts[1].isdecimal():
        return _find_start(int(parts[1])) != parts[2]
    try:
        return folder.stat().st_mtime < time.time() - ABANDONED_S
    except OSError:
        return False
