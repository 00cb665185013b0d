"""Explain why a load failed."""

from __future__ import annotations

from rasterio.errors import RasterioError

from odc_openeo.errors import OpenEOError, StorageFailure, walk_causes


def explain_read_failure(error: BaseException) -> OpenEOError | None:
    """Translate an error of computing a loaded cube for the client; None if it is not about reading."""
    for cause in walk_causes(error):
        if isinstance(cause, OpenEOError):
            return cause
        if isinstance(cause, RasterioError):
            return StorageFailure("A file of the data cannot be read. Please report the id of this error.")
    return None
