"""The runtimes of user-defined functions: interpreters, with the libraries that they say they have."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from odc_openeo.errors import InvalidRuntime, InvalidVersion, UdfUnavailable
from odc_openeo.udf.layers import find_sandbox
from odc_openeo.udf.placement import run_in_place
from odc_openeo.udf.settings import UdfSettings, describe_switch

NAME: Final = "Python"
LATEST: Final = "latest"
ANSWER_S: Final = 60
REMOTE_S: Final = 300
"""Seconds for which the answer of a worker is kept."""
NEEDED: Final = ("openeo", "xarray")
"""Libraries without which an interpreter can't run user-defined functions."""
QUESTION: Final = """\
import importlib.metadata, json, os, platform, sys
libraries = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
version, release = "%d.%d" % sys.version_info[:2], platform.python_version()
markers = {
    "implementation_name": sys.implementation.name, "implementation_version": release, "os_name": os.name,
    "platform_machine": platform.machine(), "platform_release": platform.release(),
    "platform_system": platform.system(), "platform_version": platform.version(),
    "python_full_version": release, "platform_python_implementation": platform.python_implementation(),
    "python_version": version, "sys_platform": sys.platform,
}
print(json.dumps({"version": version, "release": release, "libraries": libraries, "markers": markers}))
"""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter: its path, the version of Python, and its libraries with their versions.

    ``release``: the full version; ``markers``: what conditions of requirements (PEP 508) refer to.
    """

    python: str
    version: str
    libraries: Mapping[str, str]
    release: str
    markers: Mapping[str, str]

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """The versions of the libraries by their normalized names."""
        return {canonicalize_name(name): version for name, version in self.libraries.items()}


Runtimes = dict[str, dict[str, Interpreter]]

_remote: Final[dict[UdfSettings, tuple[float, Runtimes]]] = {}


@lru_cache(maxsize=64)
def ask_interpreter(python: str) -> Interpreter:
    """Ask an interpreter what it has; the answer is kept for this process.

    Raises:
        UdfUnavailable: it cannot be started, or lacks what user-defined functions need.
    """
    command = [python, "-I", "-c", QUESTION]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_S, check=True, env={})
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = f"the interpreter {python} cannot be started."
        raise UdfUnavailable(reason=reason) from error
    missing = [name for name in NEEDED if name not in answer["libraries"]]
    if missing:
        reason = f"the interpreter {python} lacks {' and '.join(missing)}."
        raise UdfUnavailable(reason=reason)
    return Interpreter(python, answer["version"], answer["libraries"], answer["release"], answer["markers"])


def list_runtimes(settings: UdfSettings) -> Runtimes:
    """List the interpreters by runtime and version; the first ones are the defaults.

    Interpreters of different versions belong to the runtime ``Python``. One of a version that there is
    already is a runtime of its own, named after the folder of its environment.

    Raises:
        UdfUnavailable: no user code runs here.
        InfrastructureBusy: there is no worker for user code.
    """
    if settings.scheduler is None:
        return _list_here(settings)
    until, runtimes = _remote.get(settings, (0.0, {}))
    if time.monotonic() > until:
        runtimes = run_in_place(settings, _list_here)
        _remote[settings] = time.monotonic() + REMOTE_S, runtimes
    return runtimes


def _list_here(settings: UdfSettings) -> Runtimes:
    runtimes: Runtimes = {NAME: {}}
    for python in settings.pythons:
        check_sandbox(settings, python)
        interpreter = ask_interpreter(python)
        name = NAME
        if interpreter.version in runtimes[NAME]:
            name = f"{NAME}-{Path(python).absolute().parents[1].name}"
        runtimes.setdefault(name, {}).setdefault(interpreter.version, interpreter)
    return runtimes


def check_sandbox(settings: UdfSettings, python: str) -> None:
    """Raise UdfUnavailable, with the reason, if no user code runs with an interpreter."""
    if settings.mode == "off":
        raise UdfUnavailable(reason=f"the operator has turned them off ({describe_switch(settings.mode)}).")
    sandbox = find_sandbox(settings, python)
    if not sandbox.is_usable:
        raise UdfUnavailable(reason=sandbox.reason)


def find_interpreter(settings: UdfSettings, runtime: str, version: str | None) -> Interpreter:
    """Find the interpreter of a runtime, named in any casing, in a version; None and ``latest``: the default.

    Raises:
        UdfUnavailable: no user code runs here.
        InvalidRuntime, InvalidVersion: there is none.
    """
    runtimes = list_runtimes(settings)
    name = next((key for key in runtimes if key.lower() == runtime.strip().lower()), None)
    if name is None:
        raise InvalidRuntime(runtime=runtime, available=", ".join(runtimes))
    versions = runtimes[name]
    if version is None or version.strip().lower() in ("", LATEST):
        return next(iter(versions.values()))
    match = re.match(r"\d+\.\d+", version.strip())
    chosen = versions.get(match[0]) if match else None
    if chosen is None:
        available = ", ".join([*versions, LATEST])
        raise InvalidVersion(runtime=name, version=version, available=available)
    return chosen


def describe_runtimes(settings: UdfSettings) -> dict[str, Any]:
    """Describe the runtimes as ``GET /udf_runtimes`` has them, with the level of the sandbox.

    Raises:
        UdfUnavailable: no user code runs here.
    """
    return run_in_place(settings, _describe_here)


def _describe_here(settings: UdfSettings) -> dict[str, Any]:
    return {name: _describe(settings, versions) for name, versions in _list_here(settings).items()}


def _describe(settings: UdfSettings, versions: Mapping[str, Interpreter]) -> dict[str, Any]:
    default = next(iter(versions.values()))
    sandbox = find_sandbox(settings, default.python)
    libraries = {
        version: {"libraries": {k: {"version": v} for k, v in sorted(interpreter.libraries.items())}}
        for version, interpreter in versions.items()
    }
    return {
        "type": "language",
        "title": f"{NAME} {', '.join(versions)}",
        "description": f"Functions with the signatures of `openeo.udf`. {settings.describe_access()} "
        f"Sandbox: {sandbox.describe()}.",
        "default": default.version,
        "versions": libraries,
    }
