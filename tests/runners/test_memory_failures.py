"""Failed allocations are recognised in whatever words a library reports them."""

from __future__ import annotations

import errno

import pytest
from rasterio.errors import RasterioIOError

from odc_openeo.errors import FileContentInvalid
from odc_openeo.runners.memory_failures import is_memory_failure


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RasterioIOError("/io/gtiff.cpp, 120: cannot allocate 8388608 bytes"),
        RuntimeError("NetCDF: Memory allocation (malloc) failure"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Unable to synchronously read data (can't allocate raw data chunk)"),
        ValueError("Out of memory in GDALRasterBlock"),
    ],
)
def test_failed_allocations_are_memory_failures(error: Exception) -> None:
    assert is_memory_failure(error)
    with pytest.raises(FileContentInvalid) as raised:
        raise FileContentInvalid(file="a.tif", reason="it is damaged.") from error
    assert is_memory_failure(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        RasterioIOError("Read failed. See previous exception for details."),
        OSError(errno.ENOSPC, "No space left on device"),
        FileContentInvalid(file="allocate memory.tif", reason="it is damaged."),
    ],
)
def test_other_failures_are_not_memory_failures(error: Exception) -> None:
    assert not is_memory_failure(error)
