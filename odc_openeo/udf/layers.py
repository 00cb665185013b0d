"""Which layers of the sandbox hold on this machine; each is tested from inside, by itself."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

from odc_openeo.config import Config, find_udf_mode
from odc_openeo.errors import OpenEOError, UdfUnavailable
from odc_openeo.udf.children import Child, ChildLost, retry_lost
from odc_openeo.udf.commands import ChildPlan, find_bubblewrap, find_interpreter_folders, make_variables
from odc_openeo.udf.placement import run_in_place
from odc_openeo.udf.settings import LAYERS, Mode, UdfSettings, describe_switch, read_udf_settings

log = logging.getLogger(__name__)

Level = Literal["off", "filters", "namespaces"]

STRICTNESS: Final = ("auto", "namespaces", "off")
"""The values of the setting, the most permissive first."""
RETRY_S: Final = 30.0
"""Seconds after which a sandbox that failed is tested again."""
FIRST_USER: Final = 61184
"""The first of the ids that systemd keeps for services without a user; user code of root runs as one."""
USERS: Final = 4000
PROBE_TRIES: Final = 6
"""Times that a test of a layer is begun when its process is killed from outside."""

TEXTS: Final = {
    "process": "a process without privileges, with limits",
    "landlock": "Landlock",
    "seccomp": "seccomp",
    "user": "a user of its own",
    "namespaces": "namespaces (bubblewrap)",
}


@dataclass(frozen=True)
class Sandbox:
    """The sandbox for an interpreter: the level that is reached, and for each layer None or why it fails.

    ``user``: the id of the user that its processes run as, None for that of this process; ``reason``: why no
    user code runs, if none does.
    """

    level: Level
    layers: tuple[tuple[str, str | None], ...]
    user: int | None = None
    reason: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether user code runs."""
        return self.level != "off"

    def describe(self) -> str:
        """Describe the level and its layers in one sentence."""
        if not self.is_usable:
            return self.reason
        good = ", ".join(TEXTS[name] for name, failure in self.layers if failure is None)
        missing = [f"{TEXTS[name]}: {failure}" for name, failure in self.layers if failure is not None]
        return f"level {self.level}: {good}" + (f"; without {'; '.join(missing)}" if missing else "")


_tested: dict[tuple[UdfSettings, str], tuple[float, Sandbox]] = {}


def find_sandbox(settings: UdfSettings, python: str) -> Sandbox:
    """Test the layers of the sandbox with an interpreter.

    A good answer is kept for this process, a bad one, which may be an accident, for a while.
    """
    until, sandbox = _tested.get((settings, python), (0.0, None))
    if sandbox is None or time.monotonic() > until:
        sandbox = _test_sandbox(settings, python)
        until = time.monotonic() + (float("inf") if sandbox.is_usable else RETRY_S)
        _tested[settings, python] = until, sandbox
        log.info("user-defined functions with %s: %s", python, sandbox.describe())
    return sandbox


def _test_sandbox(settings: UdfSettings, python: str) -> Sandbox:
    # The settings are those of the caller; this worker may have stricter ones of its own.
    mode = max(settings.mode, find_udf_mode(), key=STRICTNESS.index)
    if mode == "off":
        return Sandbox("off", (), reason=f"the operator has turned them off ({describe_switch('off')}).")
    settings = replace(settings, mode=cast("Mode", mode))
    try:
        _check_hidden(settings, python)
    except (OSError, ValueError) as error:
        return Sandbox("off", (), reason=f"the interpreter {python} cannot be used: {error}.")
    base = ChildPlan(python, settings.limits, dispatcher="probes")
    user = FIRST_USER + os.getpid() % USERS if os.geteuid() == 0 else None
    plans = {
        **{name: replace(base, layers=(name,)) for name in LAYERS},
        "user": replace(base, user=user),
        "namespaces": replace(base, namespaces=True),
    }
    with ThreadPoolExecutor(len(plans)) as executor:
        failures = dict(
            zip(plans, executor.map(lambda p: _find_failure(p, settings), plans.values()), strict=True)
        )
    private = user if user is not None and failures["user"] is None else None
    if user is None:
        del failures["user"]
    return _choose_level(settings, failures, private)


def _choose_level(settings: UdfSettings, failures: dict[str, str | None], user: int | None) -> Sandbox:
    layers = tuple(failures.items())
    for name in LAYERS if settings.mode == "auto" else (*LAYERS, "namespaces"):
        if failures[name] is not None:
            reason = f"the sandbox lacks {TEXTS[name]}: {failures[name]} ({describe_switch(settings.mode)})."
            return Sandbox("off", layers, reason=reason)
    return Sandbox("filters" if failures["namespaces"] else "namespaces", layers, user)


def _find_failure(plan: ChildPlan, settings: UdfSettings) -> str | None:
    if plan.namespaces and find_bubblewrap() is None:
        return "bubblewrap is not installed"
    try:
        return retry_lost(lambda: _probe(plan, settings), PROBE_TRIES, patience_s=0)
    except ChildLost as error:
        return f"its process was killed {error} times"
    except UdfUnavailable as error:
        return str(error.message).partition(": ")[2].rstrip(".")


def _probe(plan: ChildPlan, settings: UdfSettings) -> str | None:
    child = Child.start(plan)
    try:
        header = {
            "layers": list(plan.layers),
            "variables": [*make_variables(child.folder), "PWD", "LC_CTYPE"],
            "hidden": [path for path in settings.hidden if os.path.exists(path)],
            "namespaces": plan.namespaces,
            "programs": False,
        }
        failures = child.carry_out("", header, []).header.get("failures", {})
    except OpenEOError as error:
        return str(error.message)
    finally:
        child.kill()
    return "; ".join(text for texts in failures.values() for text in texts) or None


def _check_hidden(settings: UdfSettings, python: str) -> None:
    """Refuse an interpreter in whose folders, which user code may read, secrets are."""
    for place in find_interpreter_folders(python):
        for hidden in settings.hidden:
            if Path(hidden).resolve().is_relative_to(Path(place).resolve()):
                raise ValueError(f"user code may read {place}, and {hidden} is in it")


def check_udf(config: Config) -> str:
    """Describe the sandbox of each interpreter.

    Raises:
        UdfUnavailable: namespaces are asked for, and the sandbox does not have them.
    """
    settings = read_udf_settings(config)
    sandboxes = run_in_place(settings, _find_sandboxes)
    if settings.mode == "namespaces":
        for sandbox in sandboxes.values():
            if not sandbox.is_usable:
                raise UdfUnavailable(reason=sandbox.reason)
    levels = ". ".join(f"{python}: {sandbox.describe()}" for python, sandbox in sandboxes.items())
    place = f"on the workers of {settings.scheduler}: " if settings.scheduler else ""
    return f"{place}{levels}" if settings.mode == "off" else f"{place}{levels}. {settings.describe_access()}"


def _find_sandboxes(settings: UdfSettings) -> dict[str, Sandbox]:
    return {python: find_sandbox(settings, python) for python in settings.pythons}


def find_udf_warning(config: Config) -> str | None:
    """Return what should be changed: user code does not run though it is not turned off."""
    settings = read_udf_settings(config)
    if settings.mode == "off":
        return None
    if all(sandbox.is_usable for sandbox in run_in_place(settings, _find_sandboxes).values()):
        return None
    return (
        "code of users is refused; run the service on Linux 5.13 or later, in a container without own seccomp"
    )
