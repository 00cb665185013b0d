"""Recognize failed memory allocations among the errors of libraries that read files."""

from __future__ import annotations

import errno
import re
from typing import Final

from odc_openeo.errors import OpenEOError, walk_causes

_MEMORY_MESSAGES: Final = re.compile(
    r"bad_alloc|(can ?not|can't|unable to|could not|failed to) (re)?allocate|allocate memory|out of memory"
    r"|memory allocation|malloc",
    re.IGNORECASE,
)
"""How C and C++ libraries report that an allocation failed, in errors of their own."""


def is_memory_failure(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that an allocation failed."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or (not isinstance(cause, OpenEOError) and bool(_MEMORY_MESSAGES.search(str(cause))))
        for cause in walk_causes(error)
    )
