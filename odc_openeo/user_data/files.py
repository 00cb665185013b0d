"""Files of users: one folder per user in the storage; the file system is the only record.

A file is received into a separate folder and renamed when it is complete, so an interrupted upload leaves
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

from odc_openeo import safe_http
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
from odc_openeo.storage import get_storage

FILES: Final = "files"
INCOMING: Final = "incoming"
FETCHED: Final = "fetched"
LOCK: Final = ".lock"
BLOCK: Final = 2**20
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
FORBIDDEN: Final = frozenset("\\:'\"\ufffd")
"""Characters forbidden by the schema of `load_uploaded_files`, and the replacement of invalid UTF-8."""
ABANDONED_S: Final = 24 * 3600
SHA2_256: Final = "1220"
"""The prefix of a multihash of SHA-256."""


@dataclass(frozen=True)
class UserFile:
    """A file: ``path`` relative to the user's folder, size in bytes, time in UTC, an ETag.

    ``checksum`` is a multihash, known only right after the file has been received.
    """

    path: str
    size: int
    modified: datetime
    etag: str
    checksum: str | None = None


def clean_path(path: str) -> str:
    """Normalize a path; a leading ``/`` or ``./`` means the user's own folder.

    Raises:
        FilePathInvalid: it leads elsewhere, is too long, or has names that are not allowed.
    """
    parts = path.removeprefix("./").removeprefix("/").split("/")
    if len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise FilePathInvalid(reason=f"it is longer than {MAX_PATH_BYTES} bytes.")
    for part in parts:
        _check_name(part)
    return "/".join(parts)


def _check_name(name: str) -> None:
    if not name:
        raise FilePathInvalid(reason="a name in it is empty. Give the path of a file.")
    if name.startswith("."):
        raise FilePathInvalid(reason="names must not begin with a dot, and '.' and '..' are not allowed.")
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise FilePathInvalid(reason=f"a name in it is longer than {MAX_NAME_BYTES} bytes.")
    if any(c in FORBIDDEN or unicodedata.category(c).startswith("C") for c in name):
        raise FilePathInvalid(reason="control characters, backslash, colon and quotes are not allowed.")


# --- Reading -------------------------------------------------------------------------------------


def list_files(config: Config, user: str) -> list[UserFile]:
    """List all files of a user, by path."""
    top = _get_folder(config, FILES, user)
    return sorted(_walk_files(top), key=lambda file: file.path)


def count_used_bytes(config: Config, user: str) -> int:
    """Count the bytes of a user's files."""
    return sum(file.size for file in list_files(config, user))


def get_file(config: Config, user: str, path: str) -> UserFile:
    """Get a file of a user; FileNotFound, FileOperationUnsupported for a folder, FilePathInvalid."""
    name = clean_path(path)
    local_path = _resolve_path(config, user, name)
    if local_path.is_dir():
        raise FileOperationUnsupported
    return _stat_file(local_path, name)


def get_local_path(config: Config, user: str, path: str) -> Path:
    """Get the local path of a file of a user, to read it; raises the errors of `get_file`."""
    return _resolve_path(config, user, get_file(config, user, path).path)


def open_file(config: Config, user: str, path: str) -> tuple[UserFile, IO[bytes]]:
    """Open a file of a user, and describe exactly the content that was opened."""
    name = get_file(config, user, path).path
    local_path = _resolve_path(config, user, name)
    try:
        opened = os.fdopen(os.open(local_path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise FileNotFound(file=name) from error
    return _make_user_file(os.fstat(opened.fileno()), name), opened


# --- Changing ------------------------------------------------------------------------------------


def receive_file(config: Config, user: str, path: str, stream: IO[bytes], length: int | None) -> UserFile:
    """Store the content of a stream as a file, which replaces any file at this path.

    ``length`` is the size that the sender announces, None if it is unknown.

    Raises:
        FilePathInvalid: the path is not allowed, is a folder, or has a file where a folder must be.
        FileSizeExceeded, StorageQuotaExceeded: it is too large; nothing was stored.
        RequestInvalid: the stream ended early; nothing was stored.
    """
    name = clean_path(path)
    local_path = _resolve_path(config, user, name)
    _check_free(local_path)
    free_bytes = _count_free_bytes(config, user, local_path)
    if length is not None:
        _check_size(config, length, free_bytes)
    incoming = _get_folder(config, INCOMING, user)
    with _translate_os_errors():
        incoming.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(incoming)
    part = incoming / uuid4().hex
    try:
        checksum = _write_part(config, stream, part, free_bytes)
        return _publish_file(config, user, name, part, checksum)
    finally:
        part.unlink(missing_ok=True)


def fetch_file(config: Config, user: str, url: str) -> Path:
    """Download a foreign URL to a copy that is kept for at least a day and does not count for the quota.

    Raises:
        UrlForbidden, UrlUnreachable, UrlTooLarge: it can't be downloaded.
    """
    fetched = _get_folder(config, FETCHED, user)
    with _translate_os_errors():
        fetched.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(fetched)
    name = posixpath.basename(urlsplit(url).path) or "file"
    local_path = fetched / f"{uuid4().hex}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60]}"
    with _translate_os_errors():
        safe_http.download_file(safe_http.Policy.from_config(config), url, local_path)
    return local_path


def _write_part(config: Config, stream: IO[bytes], part: Path, free_bytes: int | None) -> str:
    digest, size = hashlib.sha256(), 0
    with _translate_os_errors(), part.open("xb") as sink:
        while block := _read_block(stream):
            size += len(block)
            _check_size(config, size, free_bytes)
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    return SHA2_256 + digest.hexdigest()


def _read_block(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(BLOCK)
    except OSError as error:
        raise RequestInvalid(
            reason="the connection ended before the file was complete. Send it again."
        ) from error


def _publish_file(config: Config, user: str, name: str, part: Path, checksum: str) -> UserFile:
    local_path = _resolve_path(config, user, name)
    with _lock_folder(config, user), _translate_os_errors():
        _check_free(local_path)
        _check_size(config, part.stat().st_size, _count_free_bytes(config, user, local_path))
        local_path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(local_path)
        file = _make_user_file(local_path.stat(), name)
    return UserFile(file.path, file.size, file.modified, file.etag, checksum)


def delete_file(config: Config, user: str, path: str) -> None:
    """Delete a file, and the folders that it leaves empty; raises the errors of `get_file`."""
    name = clean_path(path)
    top, local_path = _get_folder(config, FILES, user), _resolve_path(config, user, name)
    with _lock_folder(config, user), _translate_os_errors():
        get_file(config, user, name)
        local_path.unlink()
        for folder in local_path.parents:
            if folder == top or any(folder.iterdir()):
                break
            folder.rmdir()


# --- Rules ---------------------------------------------------------------------------------------


def _check_free(local_path: Path) -> None:
    if local_path.is_dir():
        raise FilePathInvalid(reason="it is a folder. Give the path of a file.")


def _count_free_bytes(config: Config, user: str, local_path: Path) -> int | None:
    """Count the bytes that the quota leaves for the file at a place; None without a quota."""
    if config.user_storage_bytes is None:
        return None
    replaced = local_path.stat().st_size if local_path.is_file() else 0
    return config.user_storage_bytes - count_used_bytes(config, user) + replaced


def _check_size(config: Config, size: int, free_bytes: int | None) -> None:
    if size > config.max_file_bytes:
        raise FileSizeExceeded(size=f"{config.max_file_bytes} bytes")
    if free_bytes is not None and size > free_bytes:
        raise StorageQuotaExceeded(free=max(free_bytes, 0))


def _remove_abandoned(incoming: Path) -> None:
    """Remove files left by uploads whose server was killed."""
    with contextlib.suppress(OSError):
        for part in incoming.iterdir():
            if part.name != LOCK and part.stat().st_mtime < time.time() - ABANDONED_S:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock_folder(config: Config, user: str) -> Iterator[None]:
    folder = _get_folder(config, INCOMING, user)
    with _translate_os_errors():
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Places --------------------------------------------------------------------------------------


def _get_folder(config: Config, kind: str, user: str) -> Path:
    folder = get_storage(config).find_local_path(f"{kind}/{user}")
    if folder is None:
        raise FeatureUnsupported(feature="files of users, as its storage is not a local folder")
    return folder


def _resolve_path(config: Config, user: str, name: str) -> Path:
    """Resolve a clean path against path traversal: symbolic links are refused."""
    local_path = _get_folder(config, FILES, user)
    for part in name.split("/"):
        if local_path.is_file():
            raise FilePathInvalid(reason="it has a file where a folder is needed. Choose another path.")
        local_path = local_path / part
        if local_path.is_symlink():
            raise FilePathInvalid(reason="it leads out of your files.")
    return local_path


def _walk_files(top: Path) -> Iterator[UserFile]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFound):
                if not path.is_symlink():
                    yield _stat_file(path, path.relative_to(top).as_posix())


def _stat_file(local_path: Path, name: str) -> UserFile:
    try:
        return _make_user_file(local_path.stat(follow_symlinks=False), name)
    except FileNotFoundError as error:
        raise FileNotFound(file=name) from error


def _make_user_file(status: os.stat_result, name: str) -> UserFile:
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return UserFile(name, status.st_size, datetime.fromtimestamp(int(status.st_mtime), UTC), etag)


@contextlib.contextmanager
def _translate_os_errors() -> Iterator[None]:
    try:
        yield
    except OpenEOError:
        raise
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
