"""Failures of writing files, kept apart from failures of reading data: both may be errors of GDAL."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rasterio.errors import RasterioError

from odc_openeo.errors import NO_ROOM, OpenEOError, StorageFailure, walk_causes

LEAST_ROOM: Final = 2**20
"""Bytes: with less, a failure to write means that the disk is full."""


@contextmanager
def as_storage_failure(*also: type[Exception]) -> Iterator[None]:
    """Turn errors of writing a file, and the exceptions in ``also``, into `StorageFailure`."""
    try:
        yield
    except (OSError, RasterioError, *also) as error:
        raise make_storage_failure(error) from error


def make_storage_failure(error: BaseException) -> StorageFailure:
    """Make the error for a file that could not be written."""
    if is_disk_full(error):
        return StorageFailure(
            "There is no space left to store the results. Make them smaller, or try again later."
        )
    return StorageFailure()


def find_full_disk(error: Exception, folder: Path) -> Exception | None:
    """Find the error that says that files found no room in a folder; None if they failed for another reason.

    Libraries such as HDF5 do not say that the disk is full. The files that did not fit must still be there.
    """
    if isinstance(error, OpenEOError) and not isinstance(error, StorageFailure):
        return None
    if is_disk_full(error):
        return error
    if not isinstance(error, StorageFailure | OSError | RuntimeError) or has_room(folder):
        return None
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    full.__cause__ = error
    return full


def has_room(folder: Path) -> bool:
    """Whether the file system of a folder has room for more."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize >= LEAST_ROOM and (state.f_favail > 0 or state.f_files == 0)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the system has reported a full disk."""
    return any(isinstance(cause, OSError) and cause.errno in NO_ROOM for cause in walk_causes(error))
