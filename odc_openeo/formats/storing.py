"""Failures of writing files, told apart from failures of reading data: both may be errors of GDAL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import RasterioError

from odc_openeo.errors import NO_ROOM, StorageFailure


@contextmanager
def storing(*also: type[Exception]) -> Iterator[None]:
    """Turn errors of writing a file, and the exceptions in ``also``, into `StorageFailure`."""
    try:
        yield
    except (OSError, RasterioError, *also) as error:
        raise failure(error) from error


def failure(error: BaseException) -> StorageFailure:
    """What to tell of a file that could not be written."""
    if is_full(error):
        return StorageFailure(
            "There is no room left to store the results. Make them smaller, or try again later."
        )
    return StorageFailure()


def is_full(error: BaseException | None) -> bool:
    """Whether room for a file was missing, as far as the system has said so."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False
