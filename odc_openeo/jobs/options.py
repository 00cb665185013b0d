"""The ``job_options``: memory per task and parallel tasks that a job requires of the dask workers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from odc_openeo.errors import RequestInvalid
from odc_openeo.udf.archives import MOST_ARCHIVES, parse_archive

OPTIONS: Final = "job_options"
MEMORY: Final = "memory"
SLOTS: Final = "slots"
"""Resources that dask workers declare: their memory in bytes, and one slot per worker."""

SOFT_ERRORS: Final = "soft-errors"
ARCHIVES: Final = "udf-dependency-archives"
ARCHIVES_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "array",
    "items": {"type": "string"},
    "maxItems": MOST_ARCHIVES,
    "description": "Zip or tar archives for user-defined functions, such as "
    "https://example.org/models.zip#models, or a path in your files: unpacked to the folder after '#' of the "
    "working folder of the function.",
}
MOST_THREADS: Final = 256
JOB_OPTIONS: Final[Mapping[str, Any]] = {
    "name": OPTIONS,
    "description": "Resources of a dask worker that each task takes, for chunks that need much memory.",
    "optional": True,
    "default": {},
    "schema": {
        "type": "object",
        "properties": {
            "memory": {
                "type": "string",
                "description": "Memory reserved for each task, such as 2GiB, 1.5GB or 512m.",
            },
            "threads": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_THREADS,
                "description": "Maximum number of tasks of the job that a worker runs in parallel.",
            },
            SOFT_ERRORS: {
                "type": ["boolean", "number"],
                "minimum": 0,
                "maximum": 1,
                "description": "Share of the parts of a large job that may fail and be left out of the "
                "results (true: any but all); their metadata name them.",
            },
            ARCHIVES: ARCHIVES_SCHEMA,
        },
    },
}
"""The options of jobs, as listed by ``GET /processing_parameters``."""
UDF_OPTIONS: Final[Mapping[str, Any]] = {
    "name": OPTIONS,
    "description": "What user-defined functions need.",
    "optional": True,
    "default": {},
    "schema": {"type": "object", "properties": {ARCHIVES: ARCHIVES_SCHEMA}},
}
"""The options of synchronous requests and services."""
NEARLY_ONE: Final = 0.999
"""Slots that the tasks on a worker take together: rounding never excludes the last one."""

FOREIGN_MEMORY: Final = (
    "executor-memory",
    "executor-memoryOverhead",
    "driver-memory",
    "driver-memoryOverhead",
    "python-memory",
)
"""Options of back-ends on Apache Spark that name memory; the largest one stands for ``memory``."""

ADVICE: Final = {
    "executor-cores": "use 'threads' for the number of tasks that a worker runs in parallel",
    "driver-cores": "use 'threads' for the number of tasks that a worker runs in parallel",
    "logging-threshold": "use the member 'log_level' of the job",
    "udf-dependency-files": "use 'udf-dependency-archives' for files of user-defined functions",
    "image-name": "GET /udf_runtimes lists the runtimes of user-defined functions",
}
"""For options of other back-ends, what to do or to know instead."""

SIZE: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE | re.ASCII)
POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
SHOWN_OPTIONS: Final = 20
SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True)
class JobResources:
    """The resources that each task of a job takes, by name.

    ``is_adapted``: the memory comes from an option of another back-end; workers that have less will do.
    ``warnings`` name the options that have another meaning here, or none.
    """

    amounts: Mapping[str, float] = field(default_factory=dict)
    is_adapted: bool = False
    warnings: tuple[str, ...] = ()


def parse_resources(extras: Mapping[str, Any]) -> JobResources:
    """Return the resources that each task takes, from the options ``memory`` and ``threads``.

    Memory may be given by options of other back-ends, too. All options without effect are named in warnings.

    Raises:
        RequestInvalid: the options are not an object, or the value of one of these two is not valid.
    """
    options = extras.get(OPTIONS)
    if options is None:
        return JobResources()
    if not isinstance(options, Mapping):
        raise RequestInvalid(reason=f"'{OPTIONS}' must be an object such as {{'memory': '4GiB'}}, or null.")
    foreign = _find_foreign_memory(options) if options.get(MEMORY) is None else None
    amounts: dict[str, float] = {}
    if options.get(MEMORY) is not None:
        amounts[MEMORY] = _parse_memory(options[MEMORY])
    elif foreign is not None:
        amounts[MEMORY] = foreign[1]
    if options.get("threads") is not None:
        amounts[SLOTS] = NEARLY_ONE / _parse_threads(options["threads"])
    return JobResources(amounts, foreign is not None, tuple(_list_warnings(options, foreign)))


def parse_size(value: Any) -> float | None:
    """Parse a size in bytes such as ``4g``, ``512m``, ``2048M`` (powers of 1024), ``1.5GB`` or ``2GiB``.

    None if it is not one.
    """
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    number, prefix, unit = match[1], match[2].lower(), (match[3] or "").lower()
    if not prefix and unit == "ib":
        return None
    base = 1000 if unit == "b" else 1024
    return float(number) * float(base ** POWERS[prefix]) or None


def _find_foreign_memory(options: Mapping[str, Any]) -> tuple[str, float] | None:
    """The option of another back-end that names most memory, and its bytes."""
    sizes = {name: _parse_foreign_size(options.get(name)) for name in FOREIGN_MEMORY}
    valid = [(size, name) for name, size in sizes.items() if size is not None]
    return (max(valid)[1], max(valid)[0]) if valid else None


def _parse_foreign_size(value: Any) -> float | None:
    """Parse a size of Apache Spark: numbers without a unit are MiB."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, str) and text.strip().replace(".", "", 1).isdecimal():
        text = f"{text}m"
    return parse_size(text)


def _list_warnings(options: Mapping[str, Any], foreign: tuple[str, float] | None) -> list[str]:
    warnings = []
    if foreign is not None:
        name, size = foreign
        warnings.append(
            f"The job option '{name}' of other back-ends is taken as 'memory': {size / 2**20:,.0f} MiB for "
            "each task, or what the largest worker has if that is less."
        )
    used = {MEMORY, "threads", ARCHIVES, SOFT_ERRORS, foreign[0] if foreign else MEMORY}
    unused = [name for name, value in options.items() if name not in used and value is not None]
    warnings += [_describe_unused(name) for name in unused[:SHOWN_OPTIONS]]
    if len(unused) > SHOWN_OPTIONS:
        warnings.append(f"{len(unused) - SHOWN_OPTIONS} more job options have no effect here.")
    return warnings


def _describe_unused(name: str) -> str:
    shown = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"
    advice = ADVICE.get(name)
    if name in FOREIGN_MEMORY:
        advice = "use 'memory' for what each task needs"
    return f"The job option '{shown}' has no effect here{f': {advice}' if advice else ''}."


def parse_soft_errors(extras: Mapping[str, Any]) -> float:
    """Return the share of the parts of a job that may be left out, 0 to 1.

    Raises:
        RequestInvalid: it is neither a boolean nor such a number.
    """
    options = extras.get(OPTIONS)
    share = options.get(SOFT_ERRORS) if isinstance(options, Mapping) else None
    if share is None:
        return 0.0
    if not isinstance(share, bool | int | float) or not 0 <= share <= 1:
        reason = f"the job option '{SOFT_ERRORS}' must be true, false or a number from 0 to 1."
        raise RequestInvalid(reason=reason)
    return float(share)


def parse_archives(extras: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the archives of dependencies of user-defined functions.

    Raises:
        RequestInvalid: they are not a list of addresses, or two of them have the same folder.
    """
    options = extras.get(OPTIONS)
    archives = options.get(ARCHIVES) if isinstance(options, Mapping) else None
    if archives is None:
        return ()
    if not isinstance(archives, list) or not all(isinstance(archive, str) for archive in archives):
        raise RequestInvalid(reason=f"'{ARCHIVES}' in '{OPTIONS}' must be a list of URLs or paths.")
    if len(archives) > MOST_ARCHIVES:
        raise RequestInvalid(reason=f"'{ARCHIVES}' in '{OPTIONS}' may have {MOST_ARCHIVES} entries at most.")
    folders = [parse_archive(archive).folder for archive in archives]
    if len(set(folders)) < len(folders):
        reason = f"two of '{ARCHIVES}' have the same folder. Name different ones after '#'."
        raise RequestInvalid(reason=reason)
    return tuple(archives)


def _parse_memory(value: Any) -> float:
    size = parse_size(value)
    if size is None:
        raise RequestInvalid(reason="the job option 'memory' must be a size such as '4GiB', '4g' or '512m'.")
    return size


def _parse_threads(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_THREADS:
        raise RequestInvalid(reason=f"the job option 'threads' must be a whole number, 1 to {MOST_THREADS}.")
    return value
