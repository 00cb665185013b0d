"""The ``job_options``: memory per task and parallel tasks that a job requires of the dask workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dask.utils import parse_bytes

from odc_openeo.errors import RequestInvalid

OPTIONS: Final = "job_options"
MEMORY: Final = "memory"
SLOTS: Final = "slots"
"""Resources that dask workers declare: their memory in bytes, and one slot per worker."""

MOST_THREADS: Final = 256
JOB_OPTIONS: Final[Mapping[str, Any]] = {
    "name": OPTIONS,
    "description": "Resources of a dask worker that each task takes, for chunks that need much memory.",
    "optional": True,
    "default": {},
    "schema": {
        "type": "object",
        "properties": {
            "memory": {"type": "string", "description": "Memory reserved for each task, such as 2GiB."},
            "threads": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_THREADS,
                "description": "Maximum number of tasks of the job that a worker runs in parallel.",
            },
        },
    },
}
"""The options, as listed by ``GET /processing_parameters``."""
NEARLY_ONE: Final = 0.999
"""Slots that the tasks on a worker take together: rounding never excludes the last one."""


def parse_resources(extras: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources that each task takes, from the options ``memory`` and ``threads``.

    Raises:
        RequestInvalid: the value of one of them is not valid. Other options are ignored.
    """
    options = extras.get(OPTIONS)
    if not isinstance(options, Mapping):
        return {}
    amounts: dict[str, float] = {}
    if options.get("memory") is not None:
        amounts[MEMORY] = _parse_memory(options["memory"])
    if options.get("threads") is not None:
        amounts[SLOTS] = NEARLY_ONE / _parse_threads(options["threads"])
    return amounts


def _parse_memory(value: Any) -> float:
    try:
        size = parse_bytes(value) if isinstance(value, str) else -1
    except ValueError:
        size = -1
    if size <= 0:
        raise RequestInvalid(reason="the job option 'memory' must be a size such as '4GiB'.")
    return float(size)


def _parse_threads(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_THREADS:
        raise RequestInvalid(reason=f"the job option 'threads' must be a whole number, 1 to {MOST_THREADS}.")
    return value
