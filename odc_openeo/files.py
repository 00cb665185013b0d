"""Files that users keep here: one folder a user in the storage, without a table beside it.

A file is received into a folder beside and renamed when it is whole, so an upload that ends early leaves
nothing and readers see the old file or the new one. Changes of one user's folder exclude each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import posixpath
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit
from uuid import uuid4

from odc_openeo import outgoing
from odc_openeo.config import Config
from odc_openeo.errors import (
    FeatureUnsupported,
    FileNotFound,
    FileOperationUnsupported,
    FilePathInvalid,
    FileSizeExceeded,
    OpenEOError,
    RequestInvalid,
    StorageFailure,
    StorageQuotaExceeded,
)
from odc_openeo.storage import storage

FILES: Final = "files"
INCOMING: Final = "incoming"
FETCHED: Final = "fetched"
LOCK: Final = ".lock"
BLOCK: Final = 2**20
MOST_PATH_BYTES: Final = 1024
MOST_NAME_BYTES: Final = 255
FORBIDDEN: Final = frozenset("\\:'\"\ufffd")
"""What the schema of `load_uploaded_files` forbids, and what stands for text that is no UTF-8."""
ABANDONED_S: Final = 24 * 3600
SHA2_256: Final = "1220"
"""How a multihash of SHA-256 begins."""


@dataclass(frozen=True)
class UserFile:
    """A file: ``path`` relative to the user's folder, size in bytes, time in UTC, an ETag.

    ``checksum`` is a multihash, known only where the content has just been received.
    """

    path: str
    size: int
    modified: datetime
    etag: str
    checksum: str | None = None


def clean(path: str) -> str:
    """The path as it is kept; a leading ``/`` or ``./`` means the user's own folder.

    Raises:
        FilePathInvalid: it leads elsewhere, is too long, or has names that are not allowed.
    """
    parts = path.removeprefix("./").removeprefix("/").split("/")
    if len(path.encode("utf-8", "replace")) > MOST_PATH_BYTES:
        raise FilePathInvalid(reason=f"it is longer than {MOST_PATH_BYTES} bytes.")
    for part in parts:
        _check_name(part)
    return "/".join(parts)


def _check_name(name: str) -> None:
    if not name:
        raise FilePathInvalid(reason="a name in it is empty. Give the path of a file.")
    if name.startswith("."):
        raise FilePathInvalid(reason="names must not begin with a dot, and '.' and '..' are not allowed.")
    if len(name.encode("utf-8", "replace")) > MOST_NAME_BYTES:
        raise FilePathInvalid(reason=f"a name in it is longer than {MOST_NAME_BYTES} bytes.")
    if any(c in FORBIDDEN or unicodedata.category(c).startswith("C") for c in name):
        raise FilePathInvalid(reason="control characters, backslash, colon and quotes are not allowed.")


# --- Reading -------------------------------------------------------------------------------------


def listing(config: Config, user: str) -> list[UserFile]:
    """All files of a user, by path."""
    top = _folder(config, FILES, user)
    return sorted(_walk(top), key=lambda file: file.path)


def used(config: Config, user: str) -> int:
    """Bytes that a user's files take."""
    return sum(file.size for file in listing(config, user))


def find(config: Config, user: str, path: str) -> UserFile:
    """A file of a user; FileNotFound, FileOperationUnsupported for a folder, FilePathInvalid."""
    name = clean(path)
    place = _place(config, user, name)
    if place.is_dir():
        raise FileOperationUnsupported
    return _described(place, name)


def local_path(config: Config, user: str, path: str) -> Path:
    """Where a file of a user is, for readers; the errors of `find`."""
    return _place(config, user, find(config, user, path).path)


def open_file(config: Config, user: str, path: str) -> tuple[UserFile, IO[bytes]]:
    """A file of a user to read, and what is known of just that content."""
    name = find(config, user, path).path
    place = _place(config, user, name)
    try:
        opened = os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise FileNotFound(file=name) from error
    return _of(os.fstat(opened.fileno()), name), opened


# --- Changing ------------------------------------------------------------------------------------


def receive(config: Config, user: str, path: str, stream: IO[bytes], length: int | None) -> UserFile:
    """Keep what a stream holds as a file, which replaces one of that path.

    ``length`` is what the sender announces, None if nothing.

    Raises:
        FilePathInvalid: the path is not allowed, is a folder, or has a file where a folder must be.
        FileSizeExceeded, StorageQuotaExceeded: it is too large; nothing was kept.
        RequestInvalid: the stream ended early; nothing was kept.
    """
    name = clean(path)
    place = _place(config, user, name)
    _check_free(place)
    room = _room(config, user, place)
    if length is not None:
        _check_size(config, length, room)
    incoming = _folder(config, INCOMING, user)
    with _failures():
        incoming.mkdir(parents=True, exist_ok=True)
    _sweep(incoming)
    part = incoming / uuid4().hex
    try:
        checksum = _write(config, stream, part, room)
        return _publish(config, user, name, part, checksum)
    finally:
        part.unlink(missing_ok=True)


def fetch(config: Config, user: str, url: str) -> Path:
    """A copy of what is at a foreign address, kept for a day at least; it does not count for the quota.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it can't be had.
    """
    fetched = _folder(config, FETCHED, user)
    with _failures():
        fetched.mkdir(parents=True, exist_ok=True)
    _sweep(fetched)
    name = posixpath.basename(urlsplit(url).path) or "file"
    place = fetched / f"{uuid4().hex}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60]}"
    with _failures():
        outgoing.download(outgoing.Policy.of(config), url, place)
    return place


def _write(config: Config, stream: IO[bytes], part: Path, room: int | None) -> str:
    digest, size = hashlib.sha256(), 0
    with _failures(), part.open("xb") as sink:
        while block := _block(stream):
            size += len(block)
            _check_size(config, size, room)
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    return SHA2_256 + digest.hexdigest()


def _block(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(BLOCK)
    except OSError as error:
        raise RequestInvalid(
            reason="the connection ended before the file was whole. Send it again."
        ) from error


def _publish(config: Config, user: str, name: str, part: Path, checksum: str) -> UserFile:
    place = _place(config, user, name)
    with _locked(config, user), _failures():
        _check_free(place)
        _check_size(config, part.stat().st_size, _room(config, user, place))
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        found = _of(place.stat(), name)
    return UserFile(found.path, found.size, found.modified, found.etag, checksum)


def delete(config: Config, user: str, path: str) -> None:
    """Remove a file, and the folders that are empty then; the errors of `find`."""
    name = clean(path)
    top, place = _folder(config, FILES, user), _place(config, user, name)
    with _locked(config, user), _failures():
        find(config, user, name)
        place.unlink()
        for folder in place.parents:
            if folder == top or any(folder.iterdir()):
                break
            folder.rmdir()


# --- Rules ---------------------------------------------------------------------------------------


def _check_free(place: Path) -> None:
    if place.is_dir():
        raise FilePathInvalid(reason="it is a folder. Give the path of a file.")


def _room(config: Config, user: str, place: Path) -> int | None:
    """Bytes that the file at a place may have by the quota; None without one."""
    if config.user_storage_bytes is None:
        return None
    replaced = place.stat().st_size if place.is_file() else 0
    return config.user_storage_bytes - used(config, user) + replaced


def _check_size(config: Config, size: int, room: int | None) -> None:
    if size > config.max_file_bytes:
        raise FileSizeExceeded(size=f"{config.max_file_bytes} bytes")
    if room is not None and size > room:
        raise StorageQuotaExceeded(free=max(room, 0))


def _sweep(incoming: Path) -> None:
    """Remove what uploads have left whose server was killed."""
    with contextlib.suppress(OSError):
        for part in incoming.iterdir():
            if part.name != LOCK and part.stat().st_mtime < time.time() - ABANDONED_S:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(config: Config, user: str) -> Iterator[None]:
    folder = _folder(config, INCOMING, user)
    with _failures():
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Places --------------------------------------------------------------------------------------


def _folder(config: Config, kind: str, user: str) -> Path:
    folder = storage(config).local(f"{kind}/{user}")
    if folder is None:
        raise FeatureUnsupported(feature="files of users, as its storage is no folder")
    return folder


def _place(config: Config, user: str, name: str) -> Path:
    """Where the file of a clean path is; links are not followed."""
    place = _folder(config, FILES, user)
    for part in name.split("/"):
        if place.is_file():
            raise FilePathInvalid(reason="a file is where the path has a folder. Choose another path.")
        place = place / part
        if place.is_symlink():
            raise FilePathInvalid(reason="it leads out of your files.")
    return place


def _walk(top: Path) -> Iterator[UserFile]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFound):
                if not path.is_symlink():
                    yield _described(path, path.relative_to(top).as_posix())


def _described(place: Path, name: str) -> UserFile:
    try:
        return _of(place.stat(follow_symlinks=False), name)
    except FileNotFoundError as error:
        raise FileNotFound(file=name) from error


def _of(status: os.stat_result, name: str) -> UserFile:
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return UserFile(name, status.st_size, datetime.fromtimestamp(int(status.st_mtime), UTC), etag)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except OpenEOError:
        raise
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
