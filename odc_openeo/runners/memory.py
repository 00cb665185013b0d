"""Memory limits for processes that handle data and process graphs of users."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Final

from odc_openeo.errors import ProcessGraphComplexity

WATCH_MARGIN: Final = 1.1
"""Factor on the limit above which a process is ended whose allocations did not fail at the limit itself."""


def limit_memory(nbytes: int) -> None:
    """Let this process allocate at most ``nbytes`` more than it has now; beyond, allocating fails.

    ``RLIMIT_DATA`` counts private writable memory: heap, anonymous mappings and stacks, but neither files
    that are mapped nor address space that is only reserved (getrlimit(2)).
    """
    limit = read_status_bytes("self", "VmData") + nbytes
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def lift_memory_limit() -> None:
    """Undo `limit_memory`, so that a process at its limit can say so before it ends."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def read_status_bytes(pid: int | str, name: str) -> int:
    """Return a size such as ``RssAnon`` from the kernel's status of a process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


class MemoryWatch:
    """Watches from outside how much memory a process takes beyond its usage at the start of the watch."""

    def __init__(self, pid: int, limit_bytes: int) -> None:
        self._pid = pid
        self._limit_bytes = limit_bytes
        self._baseline = read_status_bytes(pid, "RssAnon")

    def is_exceeded(self) -> bool:
        """Whether the process exceeds its limit by more than the margin."""
        grown = read_status_bytes(self._pid, "RssAnon") - self._baseline
        return grown > self._limit_bytes * WATCH_MARGIN


def memory_exceeded(limit_bytes: int) -> ProcessGraphComplexity:
    """Return the error for a run that needed more memory than its limit."""
    return ProcessGraphComplexity(
        reason=f"it needed more than {limit_bytes / 2**20:,.0f} MiB of memory for its preparation or for "
        "writing its result. Choose a smaller extent, fewer dates or bands, or smaller arrays."
    )
