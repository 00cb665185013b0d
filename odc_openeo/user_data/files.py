"""Files of users: a folder per user in the storage, which is the only record. In a bucket: `bucket_files`.

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
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit
from uuid import uuid4

from odc_openeo.config import Config
from odc_openeo.errors import (
    FeatureUnsupported,
    FileNotFound,
    FileOperationUnsupported,
    FilePathInvalid,
)
from odc_openeo.storage import find_bucket, get_storage
from odc_openeo.untrusted import safe_http
from odc_openeo.user_data import bucket_files
from odc_openeo.user_data.file_rules import (
    ABANDONED_S,
    FILES,
    IS_BELOW_FILE,
    IS_FOLDER,
    SHA2_256,
    UserFile,
    check_size,
    clean_path,
    read_block,
    translate_os_errors,
)
from odc_openeo.user_data.object_copies import fetch_copy, get_copies_folder
from odc_openeo.user_data.storage_quotas import count_results, get_storage_quota

INCOMING: Final = "incoming"
FETCHED: Final = "fetched"
LOCK: Final = ".lock"


# --- Reading -------------------------------------------------------------------------------------


def list_files(config: Config, user: str) -> list[UserFile]:
    """List all files of a user, by path."""
    bucket = find_bucket(config)
    if bucket is not None:
        return bucket_files.list_files(bucket, user)
    top = _get_folder(config, FILES, user)
    return sorted(_walk_files(top), key=lambda file: file.path)


def count_used_bytes(config: Config, user: str) -> int:
    """Count the bytes of a user's files."""
    return sum(file.size for file in list_files(config, user))


def count_stored_bytes(config: Config, user: str) -> int:
    """Count the bytes that count for the quota: of files, and of results of jobs if there are quotas by role.

    FeatureUnsupported if files of users are not stored on this machine.
    """
    return count_used_bytes(config, user) + count_results(config, user)


def count_free_storage(config: Config, user: str) -> int | None:
    """Count the bytes that a user may still store; None without a limit, or where it is not known."""
    quota = get_storage_quota(config, user)
    if quota is None:
        return None
    try:
        return max(quota - count_stored_bytes(config, user), 0)
    except FeatureUnsupported:
        return None


def get_file(config: Config, user: str, path: str) -> UserFile:
    """Get a file of a user; FileNotFound, FileOperationUnsupported for a folder, FilePathInvalid."""
    name, bucket = clean_path(path), find_bucket(config)
    if bucket is not None:
        return bucket_files.get_file(bucket, user, name)
    local_path = _resolve_path(config, user, name)
    if local_path.is_dir():
        raise FileOperationUnsupported
    return _stat_file(local_path, name)


def get_local_path(config: Config, user: str, path: str) -> Path:
    """Get the local path of a user's file, or of its copy, to read it; raises the errors of `get_file`."""
    bucket = find_bucket(config)
    if bucket is not None:
        key = bucket_files.make_key(user, get_file(config, user, path).path)
        return fetch_copy(bucket, key, get_copies_folder(config), config.max_file_bytes)
    return _resolve_path(config, user, get_file(config, user, path).path)


def open_file(config: Config, user: str, path: str) -> tuple[UserFile, IO[bytes]]:
    """Open a file of a user, and describe exactly the content that was opened."""
    name, bucket = get_file(config, user, path).path, find_bucket(config)
    if bucket is not None:
        return bucket_files.open_file(bucket, user, name)
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
    name, bucket = clean_path(path), find_bucket(config)
    if bucket is not None:
        return bucket_files.receive_file(config, bucket, user, name, stream, length)
    local_path = _resolve_path(config, user, name)
    _check_free(local_path)
    free_bytes = _count_free_bytes(config, user, local_path)
    if length is not None:
        check_size(config, length, free_bytes)
    incoming = _get_folder(config, INCOMING, user)
    with translate_os_errors():
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
    fetched = get_storage(config).find_local_path(f"{FETCHED}/{user}")
    fetched = fetched or config.data_dir / "scratch" / FETCHED / user
    with translate_os_errors():
        fetched.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(fetched)
    name = posixpath.basename(urlsplit(url).path) or "file"
    local_path = fetched / f"{uuid4().hex}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:60]}"
    with translate_os_errors():
        safe_http.download_file(safe_http.Policy.from_config(config), url, local_path)
    return local_path


def _write_part(config: Config, stream: IO[bytes], part: Path, free_bytes: int | None) -> str:
    digest, size = hashlib.sha256(), 0
    with translate_os_errors(), part.open("xb") as sink:
        while block := read_block(stream):
            size += len(block)
            check_size(config, size, free_bytes)
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    return SHA2_256 + digest.hexdigest()


def _publish_file(config: Config, user: str, name: str, part: Path, checksum: str) -> UserFile:
    local_path = _resolve_path(config, user, name)
    with _lock_folder(config, user), translate_os_errors():
        _check_free(local_path)
        check_size(config, part.stat().st_size, _count_free_bytes(config, user, local_path))
        local_path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(local_path)
        file = _make_user_file(local_path.stat(), name)
    return UserFile(file.path, file.size, file.modified, file.etag, checksum)


def delete_file(config: Config, user: str, path: str) -> None:
    """Delete a file, and the folders that it leaves empty; raises the errors of `get_file`."""
    name, bucket = clean_path(path), find_bucket(config)
    if bucket is not None:
        bucket_files.delete_file(bucket, user, name)
        return
    top, local_path = _get_folder(config, FILES, user), _resolve_path(config, user, name)
    with _lock_folder(config, user), translate_os_errors():
        get_file(config, user, name)
        local_path.unlink()
        for folder in local_path.parents:
            if folder == top or any(folder.iterdir()):
                break
            folder.rmdir()


# --- Rules ---------------------------------------------------------------------------------------


def _check_free(local_path: Path) -> None:
    if local_path.is_dir():
        raise FilePathInvalid(reason=IS_FOLDER)


def _count_free_bytes(config: Config, user: str, local_path: Path) -> int | None:
    """Count the bytes that the quota leaves for the file at a place; None without a quota."""
    quota = get_storage_quota(config, user)
    if quota is None:
        return None
    replaced = local_path.stat().st_size if local_path.is_file() else 0
    return quota - count_stored_bytes(config, user) + replaced


def _remove_abandoned(incoming: Path) -> None:
    """Remove files left by uploads whose server was killed."""
    with contextlib.suppress(OSError):
        for part in incoming.iterdir():
            if part.name != LOCK and part.stat().st_mtime < time.time() - ABANDONED_S:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock_folder(config: Config, user: str) -> Iterator[None]:
    folder = _get_folder(config, INCOMING, user)
    with translate_os_errors():
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
            raise FilePathInvalid(reason=IS_BELOW_FILE)
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
