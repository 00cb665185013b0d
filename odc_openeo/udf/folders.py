"""Private working folders of the processes of user code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from odc_openeo.storage.scratch_folders import describe_process, is_abandoned

MOST_ENTRIES: Final = 20_000
"""Files and folders that user code may make: more would take all of a disk's inodes, and long to count."""
REMOVAL_S: Final = 60


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
    """Remove a working folder, whatever user code left in it.

    Folders that cannot be listed, or are in each other a thousand times, are left to the commands for that.
    """
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run([*command, "--", folder], capture_output=True, timeout=REMOVAL_S, check=False)


def remove_abandoned_folders() -> None:
    """Remove the folders of processes of this host that were killed."""
    with contextlib.suppress(OSError):
        for folder in _find_top_folder().iterdir():
            if is_abandoned(folder):
                remove_folder(folder)


def count_work_folders() -> int:
    """Count the processes of user code on this machine, by their folders."""
    with contextlib.suppress(OSError):
        return sum(not is_abandoned(folder) for folder in _find_top_folder().iterdir())
    return 0


def measure_files(folder: Path, pid: int, arena: int, user: int | None = None) -> int | None:
    """Return the bytes of the files in a folder and of deleted files that a process has open.

    ``arena`` is the inode of its shared memory, which does not count; ``user`` the id of the user that it
    runs as, None for this one. None: there are too many files, or some that cannot be measured.
    """
    try:
        with _acting_as(user):
            size = _measure_folder(folder)
            return None if size is None else size + _measure_deleted_files(pid, arena)
    except OSError:
        # A folder that cannot be listed, or is too deep for a path, could hold any number of files.
        return None


def _measure_folder(folder: Path) -> int | None:
    size, count = 0, 0
    waiting: list[str | Path] = [folder]
    while waiting:
        # Files come and go meanwhile.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > MOST_ENTRIES:
                    return None
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * 512
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
    return size


def _measure_deleted_files(pid: int, arena: int) -> int:
    size = 0
    # Not readable if the process has ended.
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_ino != arena:
                    size += status.st_blocks * 512
    return size


@contextlib.contextmanager
def _acting_as(user: int | None) -> Iterator[None]:
    """Let this thread use files as another user.

    Root in a container may not look into the descriptors of other users' processes.
    """
    if user is None:
        yield
        return
    libc = ctypes.CDLL(None)
    group = os.getegid()
    libc.setfsgid(user)
    libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(group)
