"""The settings of user-defined functions that their callers need, on dask workers as well."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

from odc_openeo.config import PREFIX, Config
from odc_openeo.untrusted.safe_http import Policy

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
class RelayRules:
    """Where a sandboxed process may connect to, through `odc_openeo.udf.relays.Relay`.

    ``hosts``: names, or domains with a leading dot, maybe with a port, else ports 80 and 443; ``*`` is any.
    Their addresses are checked by ``policy``, but not those of ``trusted``: hosts with ports that the
    operator has chosen.
    """

    hosts: tuple[str, ...]
    policy: Policy
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class UdfSettings:
    """The part of the configuration that `call_udf` needs, without secrets.

    ``pythons``: the interpreters of runtimes; ``hidden``: folders that no interpreter may contain;
    ``relay``: where user code may connect to, None for nowhere; ``installs``: whether packages that it
    requires are installed; ``scheduler``: the address of that of the workers for user code, None if it runs
    in this process; ``wait_s``: seconds to wait for such a worker.
    """

    mode: Mode = "auto"
    pythons: tuple[str, ...] = (sys.executable,)
    hidden: tuple[str, ...] = ()
    limits: UdfLimits = UdfLimits()
    relay: RelayRules | None = None
    installs: bool = False
    scheduler: str | None = None
    wait_s: float = 15.0

    def describe_access(self) -> str:
        """Describe what code has besides the libraries of its runtime."""
        packages = "are installed as wheels" if self.installs else "are not installed"
        hosts = "closed" if self.relay is None else f"open to {', '.join(self.relay.hosts)}"
        return f"Other packages that code requires {packages}. The network is {hosts}."


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
    hosts = tuple(entry.strip().lower() for entry in config.udf_hosts.split(",") if entry.strip())
    return UdfSettings(
        mode=config.udf,
        pythons=pythons or (sys.executable,),
        hidden=(str(config.data_dir),),
        limits=limits,
        relay=RelayRules(hosts, Policy.from_config(config)) if hosts else None,
        installs=config.udf_install,
        scheduler=config.udf_scheduler,
        wait_s=config.worker_wait_s,
    )


def describe_switch(mode: Mode) -> str:
    """Name the setting that turns user-defined functions on and off, with its value."""
    return f"{PREFIX}UDF={mode}"
