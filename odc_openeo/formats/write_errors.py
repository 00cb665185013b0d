"""Failures of writing files, kept apart from failures of reading data: both may be errors of GDAL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import RasterioError

from odc_openeo.errors import NO_ROOM, StorageFailure


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


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the system has reported a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False
