"""The ``job_options``: memory per task and parallel tasks that a job requires of the dask workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dask.utils import parse_bytes

from odc_openeo.errors import RequestInvalid
from odc_openeo.udf.archives import MOST_ARCHIVES, parse_archive

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
            "udf-dependency-archives": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Zip archives for user-defined functions, such as "
                "https://example.org/models.zip#models: unpacked to the folder after '#' of the working "
                "folder of the function.",
            },
        },
    },
}
"""The options, as listed by ``GET /processing_parameters``."""
ARCHIVES: Final = "udf-dependency-archives"
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


def parse_archives(extras: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the archives of dependencies of user-defined functions.

    Raises:
        RequestInvalid: they are not a list of addresses.
    """
    options = extras.get(OPTIONS)
    archives = options.get(ARCHIVES) if isinstance(options, Mapping) else None
    if archives is None:
        return ()
    if not isinstance(archives, list) or not all(isinstance(archive, str) for archive in archives):
        raise RequestInvalid(reason=f"the job option '{ARCHIVES}' must be a list of URLs.")
    if len(archives) > MOST_ARCHIVES:
        raise RequestInvalid(reason=f"the job option '{ARCHIVES}' may have {MOST_ARCHIVES} entries at most.")
    for archive in archives:
        parse_archive(archive)
    return tuple(archives)


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
