"""Storage in a folder; and, for workspaces of the operator's, in any other file system that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from uuid import uuid4

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from odc_openeo.errors import StorageFailure
from odc_openeo.storage.interface import FileStatus, Storage, read_blocks, split_key


@dataclass(frozen=True)
class FolderStorage(Storage):
    """A folder, or a tree of another file system of fsspec."""

    files: Any
    root: str

    def path(self, key: str) -> str:
        """The path of a key in the file system; ValueError if it leaves the tree (path traversal)."""
        return "/".join([self.root, *split_key(key)])

    def find_local_path(self, key: str) -> Path | None:
        """Find the local path of a key, None in other file systems."""
        return Path(self.path(key)) if isinstance(self.files, LocalFileSystem) else None

    def put(self, path: Path, key: str, media_type: str | None = None) -> None:
        """Copy a file, or a folder with all its contents, to a key."""
        files = [path] if path.is_file() else [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        with _translate_failures():
            for file in files:
                below = file.relative_to(path).as_posix()
                target = self.path(key if below == "." else f"{key}/{below}")
                self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(file), target)

    def write(self, key: str, source: IO[bytes] | Iterator[bytes]) -> None:
        """Write a stream to a file atomically: readers see either the old file or the new one."""
        path, local = self.path(key), self.find_local_path(key)
        target = f"{path}.{uuid4().hex}.part" if local is not None else path
        with _translate_failures():
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                with self.files.open(target, "wb") as sink:
                    sink.writelines(read_blocks(source))
            except BaseException:
                if local is not None:
                    Path(target).unlink(missing_ok=True)
                raise
            if local is not None:
                os.replace(target, path)

    def copy(self, source: Storage, source_key: str, key: str) -> None:
        """Copy a file of a storage, perhaps another one, to a key."""
        with source.open(source_key) as stream:
            self.write(key, stream)

    def open(self, key: str) -> IO[bytes]:
        """Open a file for reading; it is seekable."""
        with _translate_failures():
            return cast(IO[bytes], self.files.open(self.path(key), "rb"))

    def get_status(self, key: str) -> FileStatus:
        """Get size, time and ETag of a file; FileNotFoundError for a folder."""
        with _translate_failures():
            info = self.files.info(self.path(key))
        if info["type"] != "file":
            raise FileNotFoundError(key)
        return _make_status(info)

    def list_files(self, key: str) -> dict[str, FileStatus]:
        """The files below a key, by key, ordered; the key itself if it is a file; empty if there are none."""
        top = self.path(key)
        with _translate_failures():
            files = self.files.find(top, detail=True)
        return {f"{key}{path[len(top) :]}": _make_status(files[path]) for path in sorted(files)}

    def size(self, key: str) -> int | None:
        """The size of a file in bytes; None if it is a folder."""
        with _translate_failures():
            info = self.files.info(self.path(key))
        return int(info["size"]) if info["type"] == "file" else None

    def list_folders(self, key: str) -> list[str]:
        """The names of the folders below a key."""
        with _translate_failures():
            try:
                entries = self.files.ls(self.path(key), detail=True)
            except FileNotFoundError:
                return []
        return [PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "directory"]

    def delete(self, key: str) -> None:
        """Remove a file, or a folder with all its contents; missing ones are ignored."""
        local = self.find_local_path(key)
        if local is not None:
            if local.is_file():
                local.unlink(missing_ok=True)
            shutil.rmtree(local, ignore_errors=True)
            return
        with _translate_failures(), contextlib.suppress(FileNotFoundError):
            self.files.rm(self.path(key), recursive=True)

    def check(self, *, writes: bool = True) -> str:
        """Check that files can be stored, and describe the place."""
        if not isinstance(self.files, LocalFileSystem):
            self.files.exists(self.root)
            return f"can reach {self.root}; whether it can be written to is seen with the first result"
        place = Path(self.root)
        existing = next(path for path in (place, *place.parents) if path.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise ValueError(f"cannot write to {self.root}")
        return f"can write to {self.root}"


def open_folder(url: str, options: Mapping[str, Any]) -> FolderStorage:
    """Open the storage at a folder or a URL of fsspec."""
    files, root = url_to_fs(url, **options)
    return FolderStorage(files, root.rstrip("/"))


def _make_status(info: Mapping[str, Any]) -> FileStatus:
    seconds, size = float(info.get("mtime") or 0), int(info["size"])
    etag = f"{info.get('ino', 0):x}-{int(seconds * 1e9):x}-{size:x}"
    return FileStatus(size, datetime.fromtimestamp(int(seconds), UTC), etag)


@contextlib.contextmanager
def _translate_failures() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
