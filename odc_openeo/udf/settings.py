"""The settings of user-defined functions that their callers need, on dask workers as well."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

from odc_openeo.config import PREFIX, Config

Mode = Literal["off", "auto", "namespaces"]

LAYERS: Final = ("process", "landlock", "seccomp")
"""The layers of the sandbox without which no user code runs; see `odc_openeo.udf.child.sandbox`."""


@dataclass(frozen=True)
class UdfLimits:
    """Limits of user code.

    ``memory_bytes``: what it allocates; ``seconds``: of one call; ``output_bytes``: arrays that a call
    returns; ``file_bytes``: files in its folder, together; ``processes``: threads. It can start no processes.
    """

    memory_bytes: int = 2 * 2**30
    seconds: float = 300
    output_bytes: int = 2**30
    file_bytes: int = 2**30
    processes: int = 128


@dataclass(frozen=True)
class UdfSettings:
    """The part of the configuration that `call_udf` needs, without secrets.

    ``pythons``: the interpreters of runtimes; ``hidden``: folders that no interpreter may contain.
    """

    mode: Mode = "auto"
    pythons: tuple[str, ...] = (sys.executable,)
    hidden: tuple[str, ...] = ()
    limits: UdfLimits = UdfLimits()


def read_udf_settings(config: Config) -> UdfSettings:
    """Return the settings of user-defined functions in a configuration."""
    pythons = tuple(path.strip() for path in config.udf_pythons.split(",") if path.strip())
    limits = UdfLimits(
        memory_bytes=int(config.udf_memory),
        seconds=config.udf_timeout_s,
        output_bytes=int(config.udf_output),
        file_bytes=int(config.udf_disk),
        processes=config.udf_threads,
    )
    return UdfSettings(config.udf, pythons or (sys.executable,), (str(config.data_dir),), limits)


def describe_switch(mode: Mode) -> str:
    """Name the setting that turns user-defined functions on and off, with its value."""
    return f"{PREFIX}UDF={mode}"
