"""Call user-defined functions, each in a process of its own that a sandbox is closed around."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from odc_openeo.config import PREFIX, has_udf_scheduler
from odc_openeo.errors import OpenEOError, UdfLimitExceeded, UdfUnavailable
from odc_openeo.telemetry.counts import add_count
from odc_openeo.udf.children import CallReply, Child, ChildLost, retry_lost
from odc_openeo.udf.commands import ChildPlan
from odc_openeo.udf.layers import find_sandbox
from odc_openeo.udf.placement import run_in_place
from odc_openeo.udf.pool import Key, pool
from odc_openeo.udf.settings import UdfLimits, UdfSettings, read_udf_settings

__all__ = ["UdfCode", "UdfLimits", "UdfReply", "UdfSettings", "call_udf", "read_udf_settings"]

TRIES: Final = 3
"""Times at least that a call is begun when its process is killed from outside."""
PATIENCE_S: Final = 10.0
"""Seconds at least until a call whose processes are killed is given up."""

UdfReply = CallReply


@dataclass(frozen=True)
class UdfCode:
    """Code of a user.

    ``runtime``: the interpreter, one of those in the settings; empty for the first. ``packages``: folders on
    the module path; ``links``: folders that the code may read, by their names in its working folder.
    ``style``: the functions that it defines: ``dispatch`` for those of openEO, ``plain`` for
    ``call(header, arrays)``.
    """

    source: str
    runtime: str = ""
    packages: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    style: Literal["dispatch", "plain"] = "dispatch"


def call_udf(
    settings: UdfSettings,
    owner: str,
    code: UdfCode,
    header: Mapping[str, Any],
    arrays: Sequence[np.ndarray],
    limits: UdfLimits | None = None,
) -> UdfReply:
    """Call user code on arrays, in a process that only calls of the same owner and code share.

    Args:
        settings: the settings of the service.
        owner: the id of the user whose code it is.
        code: the code.
        header: JSON that goes with the arrays.
        arrays: numbers or booleans, of any shape and order.
        limits: if they are not those of the settings.

    Returns:
        The header, arrays and log entries of the reply.

    Raises:
        UdfUnavailable: no user code runs here; the text says why.
        UdfFailed: the code raised an error, ended its process, or returned what is not valid.
        UdfLimitExceeded: it was stopped at a limit.
        InfrastructureBusy: there is no worker for user code.

        The entries that it had logged are in the attribute ``logs`` of the last two.
    """
    return run_in_place(settings, _call_here, owner, code, header, arrays, limits or settings.limits)


def _call_here(
    settings: UdfSettings,
    owner: str,
    code: UdfCode,
    header: Mapping[str, Any],
    arrays: Sequence[np.ndarray],
    limits: UdfLimits,
) -> UdfReply:
    if has_udf_scheduler():
        reason = f"this process leaves them to workers of their own ({PREFIX}UDF_SCHEDULER)."
        raise UdfUnavailable(reason=reason)
    plan = make_plan(settings, code, limits)
    key = (owner, hashlib.sha256(code.source.encode()).hexdigest(), plan)
    try:
        return retry_lost(
            lambda: _call_once(_take_child(key), key, code.source, header, arrays), TRIES, PATIENCE_S
        )
    except ChildLost as error:
        reason = f"its process was killed {error} times, probably because the machine has too little memory."
        raise UdfLimitExceeded(reason=reason) from error


def _take_child(key: Key) -> Child:
    try:
        return retry_lost(lambda: pool.take(key))
    except ChildLost as error:
        raise UdfUnavailable(reason=f"its process was killed {error} times when it started.") from error


def _call_once(
    child: Child, key: Key, source: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]
) -> UdfReply:
    outcome = "lost"
    try:
        reply = child.carry_out(source, header, arrays)
        outcome = "finished"
        return reply
    except OpenEOError as error:
        outcome = "limit" if isinstance(error, UdfLimitExceeded) else "failed"
        error.logs = child.logs  # type: ignore[attr-defined]
        raise
    finally:
        add_count("udf_calls", outcome=outcome)
        if not child.is_good:
            add_count("udf_processes_killed")
        pool.give_back(key, child)


def make_plan(settings: UdfSettings, code: UdfCode, limits: UdfLimits) -> ChildPlan:
    """Decide how the process of user code is started.

    Raises:
        UdfUnavailable: no user code runs here.
    """
    python = code.runtime or settings.pythons[0]
    if python not in settings.pythons:
        raise UdfUnavailable(reason=f"there is no runtime '{code.runtime}'.")
    sandbox = find_sandbox(settings, python)
    if not sandbox.is_usable:
        raise UdfUnavailable(reason=sandbox.reason)
    _check_folders([*code.packages, *(folder for _, folder in code.links)])
    return ChildPlan(
        python=python,
        limits=limits,
        dispatcher=code.style,
        namespaces=sandbox.level == "namespaces",
        user=sandbox.user,
        packages=code.packages,
        links=code.links,
        relay=settings.relay,
    )


def _check_folders(folders: Sequence[str]) -> None:
    for folder in folders:
        if not os.path.isdir(folder):
            reason = (
                "its libraries or archives are not on the machine that runs it. The operator has to set "
                f"{PREFIX}UDF_CACHE_DIR to a folder that all machines share."
            )
            raise UdfUnavailable(reason=reason)
