"""Private working folders of the processes of user code."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from odc_openeo.scratch_folders import describe_process, is_abandoned

MOST_ENTRIES: Final = 20_000
"""Files and folders that user code may make: more would take all of a disk's inodes, and long to count."""


def make_work_folder(user: int | None, links: Mapping[str, str]) -> Path:
    """Make a folder that only ``user`` (None: this one) may enter, with links to what it works with.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{describe_process()}-", dir=open_own_folder(_find_top_folder())))
    try:
        for name, target in links.items():
            (folder / name).symlink_to(target)
        if user is not None:
            os.chown(folder, user, user)
    except OSError:
        remove_folder(folder)
        raise
    return folder


def _find_top_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"odc-openeo-udf-{os.geteuid()}"


def open_own_folder(folder: Path) -> Path:
    """Make a folder in a place where everybody may make some, unless it exists, and return it.

    Others may enter it, as user code may run as another user, but not list it.

    Raises:
        PermissionError: somebody else has made it, or others may write to it.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to somebody else, or others may write to it: remove it")
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a working folder, whatever user code left in it."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders() -> None:
    """Remove the folders of processes of this host that were killed."""
    with contextlib.suppress(OSError):
        for folder in _find_top_folder().iterdir():
            if is_abandoned(folder):
                remove_folder(folder)


def measure_files(folder: Path, pid: int, arena: int) -> int | None:
    """Return the bytes of the files in a folder and of deleted files that a process has open.

    ``arena`` is the inode of its shared memory, which does not count. None: there are too many files.
    """
    size, count = 0, 0
    waiting: list[str | Path] = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > MOST_ENTRIES:
                    return None
                status = entry.stat(follow_symlinks=False)
                size += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
    return size + _measure_deleted_files(pid, arena)


def _measure_deleted_files(pid: int, arena: int) -> int:
    size = 0
    # Not readable if this process may not look into the other one.
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_ino != arena:
                    size += status.st_blocks * 512
    return size
