"""Folders of what user code works with, by content: made once, read by many, removed when there are too many.

An entry is a folder that appears by a rename, so that it is complete or does not exist. Its lock is held
exclusively while it is made or removed, and shared by a `Lease` as long as somebody uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure, UdfUnavailable
from odc_openeo.udf.folders import open_own_folder

CACHE_PREFIX: Final = "odc-openeo-udf-cache-"
"""How the folder of all caches begins where the settings name none; then comes the user's number."""
INCOMING: Final = "incoming-"
LOCK: Final = ".lock"
ABANDONED_S: Final = 24 * 3600
"""Seconds after which folders are removed whose makers were killed: making one never takes that long."""
POLL_S: Final = 0.05


class Lease:
    """The right to use a folder of a cache: it is not removed before the last reference to this object is.

    Pickled it becomes None: the process that evaluates a graph holds the lease for those that compute it.
    """

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        weakref.finalize(self, os.close, descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


_leases: Final[weakref.WeakValueDictionary[Path, Lease]] = weakref.WeakValueDictionary()
"""The leases of this process: a graph may ask for the same folder thousands of times."""


@dataclass(frozen=True)
class UserShare:
    """The share of one user in a cache: entries, and bytes of them together."""

    owner: str
    most_entries: int
    most_bytes: int

    @property
    def mark(self) -> str:
        """How the locks of the user's entries name them."""
        return hashlib.sha256(self.owner.encode()).hexdigest()


def find_share(config: Config, owner: str) -> UserShare:
    """Return the share of a user in each cache."""
    return UserShare(owner, config.udf_cache_user_entries, int(config.udf_cache_user_bytes))


@dataclass(frozen=True)
class FolderCache:
    """The entries in a folder that only this user of the machine may write to.

    ``top``: the folder; ``most_bytes``: of all entries together, beyond which the least recently used ones
    are removed; ``kept_s``: seconds that an entry is kept without use; ``wait_s``: seconds to wait while
    another process makes the same entry; ``share``: that of the user for whom entries are made, of which the
    least recently used ones are removed beyond it.
    """

    top: Path
    most_bytes: int
    kept_s: float
    wait_s: float = 600.0
    share: UserShare | None = None

    def open(self, key: str, make: Callable[[Path], None]) -> Lease:
        """Return a lease of the entry of a key; ``make`` fills its folder if it does not exist yet.

        Raises:
            UdfUnavailable: another process took too long to make it.
            FileNotFoundError: ``make`` has raised it.
            StorageFailure: the disk is full, or the cache cannot be written to.
        """
        lease = _leases.get(self.top / key)
        try:
            while lease is None or not lease.folder.is_dir():
                lease = self._try_to_open(key, make)
            os.utime(self.top / f"{key}{LOCK}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageFailure.from_os_error(error) from error
        return _leases.setdefault(lease.folder, lease)

    def _try_to_open(self, key: str, make: Callable[[Path], None]) -> Lease | None:
        """Return a lease of an entry that exists; else make it, unless another process does so meanwhile."""
        path, target = self.top / f"{key}{LOCK}", self.top / key
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._wait_for_lock(descriptor, fcntl.LOCK_SH)
            # The lock is another file if it was removed together with its entry.
            if _is_same_file(descriptor, path) and target.is_dir():
                descriptor, kept = -1, descriptor
                return Lease(target, kept)
            self._wait_for_lock(descriptor, fcntl.LOCK_EX)
            if _is_same_file(descriptor, path) and not target.is_dir():
                self.remove_surplus()
                self._make(target, make)
                mark = "" if self.share is None else self.share.mark
                os.pwrite(descriptor, f"{measure_tree(target)} {mark}".encode(), 0)
                self._limit_share(key)
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _make(self, target: Path, make: Callable[[Path], None]) -> None:
        work = Path(tempfile.mkdtemp(prefix=INCOMING, dir=self.top))
        try:
            work.chmod(0o711)
            content = work / "content"
            content.mkdir(mode=0o755)
            content.chmod(0o755)
            make(content)
            content.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _wait_for_lock(self, descriptor: int, kind: int) -> None:
        deadline = time.monotonic() + self.wait_s
        while not _try_lock(descriptor, kind):
            if time.monotonic() > deadline:
                reason = "somebody else is fetching the same libraries or archives. Try again later."
                raise UdfUnavailable(reason=reason)
            time.sleep(POLL_S)

    # --- Removal ---

    def remove_surplus(self) -> None:
        """Remove entries that nobody uses: those that are old, and the oldest while there are too many."""
        self._remove_abandoned()
        entries = sorted(self._list_entries())
        total = sum(entry.size for entry in entries)
        for entry in entries:
            is_old = entry.used < time.time() - self.kept_s
            if (is_old or total > self.most_bytes) and self._remove(entry.key):
                total -= entry.size

    def _limit_share(self, newest: str) -> None:
        """Remove entries of the user beyond the share, the least recently used first, but not the newest."""
        if self.share is None:
            return
        entries = sorted(entry for entry in self._list_entries() if entry.mark == self.share.mark)
        count, total = len(entries), sum(entry.size for entry in entries)
        for entry in entries:
            is_over = count > self.share.most_entries or total > self.share.most_bytes
            if is_over and entry.key != newest and self._remove(entry.key):
                count, total = count - 1, total - entry.size

    def _list_entries(self) -> Iterator[_Entry]:
        for lock in self.top.glob(f"*{LOCK}"):
            with contextlib.suppress(OSError):
                key = lock.name.removesuffix(LOCK)
                size, _, mark = lock.read_text().partition(" ")
                bytes_ = int(size) if size else measure_tree(self.top / key)
                yield _Entry(lock.stat().st_mtime, bytes_, key, mark)

    def _remove(self, key: str) -> bool:
        path = self.top / f"{key}{LOCK}"
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if not _try_lock(descriptor, fcntl.LOCK_EX) or not _is_same_file(descriptor, path):
                    return False
                shutil.rmtree(self.top / key, ignore_errors=True)
                path.unlink()
                return True
            finally:
                os.close(descriptor)
        return False

    def _remove_abandoned(self) -> None:
        for folder in self.top.glob(f"{INCOMING}*"):
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < time.time() - ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)


class _Entry(NamedTuple):
    """An entry: when it was last used, its bytes, its key, and whom it was made for."""

    used: float
    size: int
    key: str
    mark: str


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def find_cache_folder(config: Config) -> Path:
    """Find the folder of all caches of user code, and make it unless it exists."""
    if config.udf_cache_dir is not None:
        config.udf_cache_dir.parent.mkdir(parents=True, exist_ok=True)
        return open_own_folder(config.udf_cache_dir)
    return open_own_folder(Path(tempfile.gettempdir()) / f"{CACHE_PREFIX}{os.geteuid()}")


# --- Trees -----------------------------------------------------------------------------------------


def measure_tree(folder: Path) -> int:
    """Return the bytes of the files in a folder; 0 if it does not exist."""
    size, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                size += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
    return size


def copy_foreign_tree(source: Path, target: Path, most_bytes: int, most_entries: int) -> None:
    """Copy what a sandboxed process has written: ordinary files and folders, that everybody may read.

    Raises:
        ValueError: there is something else, or too much; the process may be under the control of an attacker.
    """
    left, entries = most_bytes, most_entries
    waiting = [(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), target)]
    try:
        while waiting:
            folder, place = waiting.pop()
            with _closing(folder):
                for name in os.listdir(folder):
                    entries -= 1
                    if entries < 0:
                        raise ValueError(f"it has more than {most_entries:,} files and folders")
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    descriptor = os.open(name, flags, dir_fd=folder)
                    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                        (place / name).mkdir(mode=0o755)
                        (place / name).chmod(0o755)
                        waiting.append((descriptor, place / name))
                    else:
                        left -= _copy_file(descriptor, place / name, left)
    finally:
        for folder, _ in waiting:
            os.close(folder)


def _copy_file(descriptor: int, target: Path, most: int) -> int:
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it contains a link or a special file")
        if status.st_size > most:
            raise ValueError("it is too large")
        with target.open("xb") as sink:
            size = 0
            while block := source.read(2**20):
                size += len(block)
                if size > most:
                    raise ValueError("it is too large")
                sink.write(block)
        target.chmod(0o644)
        return size


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
