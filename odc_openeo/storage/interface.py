"""The interface of storages: a tree of files, in a folder or in a bucket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

COPY_BYTES = 2**20


@dataclass(frozen=True)
class FileStatus:
    """A file of a storage: size in bytes, time in UTC, an ETag without quotes."""

    size: int
    modified: datetime
    etag: str


class Storage(ABC):
    """A tree of files; keys are relative paths with slashes, without ``..``.

    Methods raise StorageFailure when the store is unreachable, full or refuses access, FileNotFoundError for
    missing files, and ValueError for what is not a key.
    """

    sweep_seconds: float = 600.0
    """How often to look for files that nothing needs any more: in a bucket, each look costs money."""

    @abstractmethod
    def find_local_path(self, key: str) -> Path | None:
        """Find the local path of a key, None in an object store."""

    @abstractmethod
    def put(self, path: Path, key: str, media_type: str | None = None) -> None:
        """Copy a file, or a folder with all its contents, to a key."""

    @abstractmethod
    def write(self, key: str, source: IO[bytes] | Iterator[bytes]) -> None:
        """Write a stream to a file atomically: readers see either the old file or the new one.

        If the source fails, its error is raised, and nothing is stored.
        """

    @abstractmethod
    def copy(self, source: Storage, source_key: str, key: str) -> None:
        """Copy a file of a storage, perhaps another one, to a key."""

    @abstractmethod
    def open(self, key: str) -> IO[bytes]:
        """Open a file for reading; it is seekable."""

    @abstractmethod
    def get_status(self, key: str) -> FileStatus:
        """Get size, time and ETag of a file; FileNotFoundError for a folder."""

    @abstractmethod
    def list_files(self, key: str) -> dict[str, FileStatus]:
        """The files below a key, by key, ordered; the key itself if it is a file; empty if there are none."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The size of a file in bytes; None if it is a folder."""

    @abstractmethod
    def list_folders(self, key: str) -> list[str]:
        """The names of the folders below a key."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file, or a folder with its contents and unfinished uploads; missing ones are ignored."""

    def remove_abandoned(self) -> None:
        """Remove what uploads of killed processes have left; nothing in a folder."""
        return

    def sign_url(self, key: str, seconds: int) -> str | None:
        """Sign a URL by which anyone can read a file for some time; None if the store has no such URLs."""
        return None

    @abstractmethod
    def check(self, *, writes: bool = True) -> str:
        """Check that files can be stored, and describe the place; the quick look writes nothing.

        Raises:
            ValueError: they cannot; the message says why and what to do.
        """

    def walk(self, key: str) -> list[str]:
        """The keys of all files below a key; the key itself if it is one."""
        return list(self.sizes(key))

    def sizes(self, key: str) -> dict[str, int]:
        """The sizes in bytes of the files that `walk` lists, by key; empty if there are none."""
        return {name: status.size for name, status in self.list_files(key).items()}


def split_key(key: str) -> tuple[str, ...]:
    """Split a key into its parts; ValueError if it leaves the tree (path traversal)."""
    parts = PurePosixPath(key).parts
    if not parts or ".." in parts or key.startswith("/") or "\\" in key or "\0" in key:
        raise ValueError(f"not a key: {key!r}")
    return parts


def read_blocks(source: IO[bytes] | Iterator[bytes]) -> Iterator[bytes]:
    """Iterate over the content of a stream, or of an iterator over blocks."""
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while block := read(COPY_BYTES):
        yield block
