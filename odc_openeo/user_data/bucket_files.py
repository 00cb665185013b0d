"""Files of users in a bucket: an object per file, below one prefix per user.

An upload goes to the store while it is received, and counts once all of it is there: an interrupted one
leaves nothing, and readers see the old file or the new one. The store has no locks: what must exclude each
other, the ends of the uploads of one user, waits for a lock of the database.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import IO

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db.locks import lock_for_transaction
from odc_openeo.errors import FileNotFound, FileOperationUnsupported, FilePathInvalid
from odc_openeo.storage import FileStatus
from odc_openeo.storage.bucket_storage import BucketStorage
from odc_openeo.user_data.file_rules import (
    FILES,
    IS_BELOW_FILE,
    IS_FOLDER,
    SHA2_256,
    UserFile,
    check_size,
    read_block,
)
from odc_openeo.user_data.storage_quotas import count_results, get_storage_quota


def make_key(user: str, name: str) -> str:
    """Make the key of a file; ``name`` is a clean path."""
    return f"{FILES}/{user}/{name}"


def list_files(bucket: BucketStorage, user: str) -> list[UserFile]:
    """List all files of a user, by path."""
    top = f"{FILES}/{user}"
    files = bucket.list_files(top)
    return [_make_user_file(key.removeprefix(f"{top}/"), status) for key, status in files.items()]


def get_file(bucket: BucketStorage, user: str, name: str) -> UserFile:
    """Get a file of a user; FileNotFound, FileOperationUnsupported for a folder, FilePathInvalid."""
    _check_length(bucket, user, name)
    try:
        return _make_user_file(name, bucket.get_status(make_key(user, name)))
    except FileNotFoundError as error:
        try:
            bucket.size(make_key(user, name))
        except FileNotFoundError:
            raise FileNotFound(file=name) from error
        raise FileOperationUnsupported from error


def open_file(bucket: BucketStorage, user: str, name: str) -> tuple[UserFile, IO[bytes]]:
    """Open a file of a user; reading fails if it is replaced meanwhile."""
    return get_file(bucket, user, name), bucket.open(make_key(user, name))


def receive_file(
    config: Config, bucket: BucketStorage, user: str, name: str, stream: IO[bytes], length: int | None
) -> UserFile:
    """Upload the content of a stream; raises the errors of `files.receive_file`."""
    _check_length(bucket, user, name)
    free_bytes = _check_place(config, bucket, user, name)
    if length is not None:
        check_size(config, length, free_bytes)
    digest, size = hashlib.sha256(), 0

    with contextlib.ExitStack() as until_stored:

        def read_all() -> Iterator[bytes]:
            nonlocal size
            while block := read_block(stream):
                size += len(block)
                check_size(config, size, free_bytes)
                digest.update(block)
                yield block
            until_stored.enter_context(_lock(config, user))
            check_size(config, size, _check_place(config, bucket, user, name))

        bucket.write(make_key(user, name), read_all())
        status = bucket.get_status(make_key(user, name))
    file = _make_user_file(name, status)
    return UserFile(file.path, file.size, file.modified, file.etag, SHA2_256 + digest.hexdigest())


def delete_file(bucket: BucketStorage, user: str, name: str) -> None:
    """Delete a file; raises the errors of `get_file`."""
    get_file(bucket, user, name)
    bucket.delete(make_key(user, name))


def _check_length(bucket: BucketStorage, user: str, name: str) -> None:
    longest = bucket.count_free_bytes_of_key(f"{FILES}/{user}")
    if len(name.encode("utf-8", "replace")) > longest:
        raise FilePathInvalid(reason=f"it is longer than {longest} bytes.")


def _check_place(config: Config, bucket: BucketStorage, user: str, name: str) -> int | None:
    """Check that a file may be at a path, and count the bytes that the quota leaves; None without a quota.

    A bucket would take both a file and a folder of the same name, but no one could copy these to a disk.
    """
    sizes = {file.path: file.size for file in list_files(bucket, user)}
    if any(path.startswith(f"{name}/") for path in sizes):
        raise FilePathInvalid(reason=IS_FOLDER)
    parts = name.split("/")
    if any("/".join(parts[:depth]) in sizes for depth in range(1, len(parts))):
        raise FilePathInvalid(reason=IS_BELOW_FILE)
    quota = get_storage_quota(config, user)
    if quota is None:
        return None
    return quota - count_results(config, user) - sum(sizes.values()) + sizes.get(name, 0)


@contextlib.contextmanager
def _lock(config: Config, user: str) -> Iterator[None]:
    """Exclude other uploads of a user from the check of the quota until a file is stored."""
    with db.session(config) as session:
        lock_for_transaction(session, f"files of {user}")
        yield


def _make_user_file(name: str, status: FileStatus) -> UserFile:
    return UserFile(name, status.size, status.modified, status.etag)
