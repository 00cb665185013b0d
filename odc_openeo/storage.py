"""Where results and user files live: a folder, or an object store that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from uuid import uuid4

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from odc_openeo.config import Config
from odc_openeo.errors import StorageFailure


@dataclass(frozen=True)
class Storage:
    """A tree of files; keys are relative paths with slashes, without ``..``.

    Raises StorageFailure when the store is unreachable or full, FileNotFoundError for missing files.
    """

    files: Any
    root: str

    def path(self, key: str) -> str:
        """The path of a key in the file system; ValueError if it leaves the tree (path traversal)."""
        parts = PurePosixPath(key).parts
        if not parts or ".." in parts or key.startswith("/") or "\\" in key or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        return "/".join([self.root, *parts])

    def find_local_path(self, key: str) -> Path | None:
        """Find the local path of a key, None in an object store."""
        return Path(self.path(key)) if isinstance(self.files, LocalFileSystem) else None

    def put(self, path: Path, key: str) -> None:
        """Copy a file, or a folder with all its contents, to a key."""
        files = [path] if path.is_file() else [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        with _translate_failures():
            for file in files:
                below = file.relative_to(path).as_posix()
                self.files.put_file(str(file), self.path(key if below == "." else f"{key}/{below}"))

    def write(self, key: str, source: IO[bytes]) -> None:
        """Write a stream to a file atomically: readers see either the old file or the new one."""
        path, local = self.path(key), self.find_local_path(key)
        target = f"{path}.{uuid4().hex}.part" if local is not None else path
        with _translate_failures():
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self.files.open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
            if local is not None:
                os.replace(target, path)

    def open(self, key: str) -> IO[bytes]:
        """Open a file for reading; it is seekable."""
        with _translate_failures():
            return cast(IO[bytes], self.files.open(self.path(key), "rb"))

    def size(self, key: str) -> int | None:
        """The size of a file in bytes; None if it is a folder."""
        with _translate_failures():
            info = self.files.info(self.path(key))
        return int(info["size"]) if info["type"] == "file" else None

    def walk(self, key: str) -> list[str]:
        """The keys of all files below a key; the key itself if it is one."""
        return list(self.sizes(key))

    def sizes(self, key: str) -> dict[str, int]:
        """The sizes in bytes of the files that `walk` lists, by key; empty if there are none."""
        top = self.path(key)
        with _translate_failures():
            files = self.files.find(top, detail=True)
        return {f"{key}{path[len(top) :]}": int(files[path]["size"]) for path in sorted(files)}

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
            shutil.rmtree(local, ignore_errors=True)
            return
        with _translate_failures(), contextlib.suppress(FileNotFoundError):
            self.files.rm(self.path(key), recursive=True)


@contextlib.contextmanager
def _translate_failures() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error


@cache
def _open_storage(url: str, options: tuple[tuple[str, Any], ...] = ()) -> Storage:
    files, root = url_to_fs(url, **dict(options))
    return Storage(files, root.rstrip("/"))


def storage_at(url: str, options: Mapping[str, Any]) -> Storage:
    """The storage at a folder or fsspec URL, with options for fsspec."""
    return _open_storage(url, tuple(sorted(options.items())))


def get_storage(config: Config) -> Storage:
    """The storage of a configuration."""
    return _open_storage(config.storage)
