"""What a job's ``job_options`` ask of the dask workers: memory for a task, tasks at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dask.utils import parse_bytes

from odc_openeo.errors import RequestInvalid

OPTIONS: Final = "job_options"
MEMORY: Final = "memory"
SLOTS: Final = "slots"
"""Resources that dask workers declare: bytes, and 1."""

MOST_THREADS: Final = 256
JOB_OPTIONS: Final[Mapping[str, Any]] = {
    "name": OPTIONS,
    "description": "What each task of the job takes of a dask worker; for chunks that need much memory.",
    "optional": True,
    "default": {},
    "schema": {
        "type": "object",
        "properties": {
            "memory": {"type": "string", "description": "Memory kept free for a task, such as 2GiB."},
            "threads": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_THREADS,
                "description": "Tasks of the job that a worker runs at the same time, at most.",
            },
        },
    },
}
"""The options as ``GET /processing_parameters`` shows them."""
NEARLY_ONE: Final = 0.999
"""So that rounding never keeps the last task away."""


def resources(extras: Mapping[str, Any]) -> dict[str, float]:
    """What each task of a job takes of a dask worker; the options ``memory`` and ``threads`` say it.

    Raises:
        RequestInvalid: one of them has no meaning. Other options are not looked at.
    """
    options = extras.get(OPTIONS)
    if not isinstance(options, Mapping):
        return {}
    found: dict[str, float] = {}
    if options.get("memory") is not None:
        found[MEMORY] = _memory(options["memory"])
    if options.get("threads") is not None:
        found[SLOTS] = NEARLY_ONE / _threads(options["threads"])
    return found


def _memory(value: Any) -> float:
    try:
        size = parse_bytes(value) if isinstance(value, str) else -1
    except ValueError:
        size = -1
    if size <= 0:
        raise RequestInvalid(reason="the job option 'memory' must be a size such as '4GiB'.")
    return float(size)


def _threads(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_THREADS:
        raise RequestInvalid(reason=f"the job option 'threads' must be a whole number, 1 to {MOST_THREADS}.")
    return value
