"""Rules for files of users, wherever they are stored: paths, sizes, and what is known of a file."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final

from odc_openeo.config import Config
from odc_openeo.errors import (
    FilePathInvalid,
    FileSizeExceeded,
    OpenEOError,
    RequestInvalid,
    StorageFailure,
    StorageQuotaExceeded,
)

FILES: Final = "files"
BLOCK: Final = 2**20
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
FORBIDDEN: Final = frozenset("\\:'\"\ufffd")
"""Characters forbidden by the schema of `load_uploaded_files`, and the replacement of invalid UTF-8."""
ABANDONED_S: Final = 24 * 3600
SHA2_256: Final = "1220"
"""The prefix of a multihash of SHA-256."""
IS_FOLDER: Final = "it is a folder. Give the path of a file."
IS_BELOW_FILE: Final = "it has a file where a folder is needed. Choose another path."


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


def check_size(config: Config, size: int, free_bytes: int | None) -> None:
    if size > config.max_file_bytes:
        raise FileSizeExceeded(size=f"{config.max_file_bytes} bytes")
    if free_bytes is not None and size > free_bytes:
        raise StorageQuotaExceeded(free=max(free_bytes, 0))


def read_block(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(BLOCK)
    except OSError as error:
        raise RequestInvalid(
            reason="the connection ended before the file was complete. Send it again."
        ) from error


@contextlib.contextmanager
def translate_os_errors() -> Iterator[None]:
    """Turn errors of the operating system into `StorageFailure`."""
    try:
        yield
    except OpenEOError:
        raise
    except OSError as error:
        raise StorageFailure.from_os_error(error) from error
