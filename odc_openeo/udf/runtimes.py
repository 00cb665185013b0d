"""The runtimes of user-defined functions: interpreters, with the libraries that they say they have."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from odc_openeo.errors import InvalidRuntime, InvalidVersion, UdfUnavailable
from odc_openeo.udf.layers import find_sandbox
from odc_openeo.udf.settings import UdfSettings, describe_switch

NAME: Final = "Python"
LATEST: Final = "latest"
ANSWER_S: Final = 60
NEEDED: Final = ("openeo", "xarray")
"""Libraries without which an interpreter can't run user-defined functions."""
QUESTION: Final = """\
import importlib.metadata, json, sys
libraries = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
print(json.dumps({"version": "%d.%d" % sys.version_info[:2], "libraries": libraries}))
"""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter: its path, the version of Python, and its libraries with their versions."""

    python: str
    version: str
    libraries: Mapping[str, str]


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
    return Interpreter(python, answer["version"], answer["libraries"])


def list_runtimes(settings: UdfSettings) -> dict[str, dict[str, Interpreter]]:
    """List the interpreters by runtime and version; the first ones are the defaults.

    Interpreters of different versions belong to the runtime ``Python``. One of a version that there is
    already is a runtime of its own, named after the folder of its environment.

    Raises:
        UdfUnavailable: no user code runs here.
    """
    runtimes: dict[str, dict[str, Interpreter]] = {NAME: {}}
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


def find_interpreter(settings: UdfSettings, runtime: str, version: str | None) -> str:
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
        return next(iter(versions.values())).python
    match = re.match(r"\d+\.\d+", version.strip())
    chosen = versions.get(match[0]) if match else None
    if chosen is None:
        available = ", ".join([*versions, LATEST])
        raise InvalidVersion(runtime=name, version=version, available=available)
    return chosen.python


def describe_runtimes(settings: UdfSettings) -> dict[str, Any]:
    """Describe the runtimes as ``GET /udf_runtimes`` has them, with the level of the sandbox.

    Raises:
        UdfUnavailable: no user code runs here.
    """
    return {name: _describe(settings, versions) for name, versions in list_runtimes(settings).items()}


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
        "description": f"Functions with the signatures of `openeo.udf`. Sandbox: {sandbox.describe()}.",
        "default": default.version,
        "versions": libraries,
    }
