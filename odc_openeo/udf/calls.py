"""Call user-defined functions, each in a process of its own that a sandbox is closed around."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from odc_openeo.errors import OpenEOError, UdfLimitExceeded, UdfUnavailable
from odc_openeo.udf.children import CallReply, ChildLost
from odc_openeo.udf.commands import ChildPlan
from odc_openeo.udf.layers import find_sandbox
from odc_openeo.udf.pool import Key, pool
from odc_openeo.udf.settings import UdfLimits, UdfSettings, read_udf_settings

__all__ = ["UdfCode", "UdfLimits", "UdfReply", "UdfSettings", "call_udf", "read_udf_settings"]

TRIES: Final = 3
"""Times that a call is begun when its process is killed from outside."""

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

        The entries that it had logged are in the attribute ``logs`` of the last two.
    """
    plan = make_plan(settings, code, limits or settings.limits)
    key = (owner, hashlib.sha256(code.source.encode()).hexdigest(), plan)
    for _ in range(TRIES):
        with contextlib.suppress(ChildLost):
            return _call_once(key, code.source, header, arrays)
    reason = f"its process was killed {TRIES} times, probably because the machine has too little memory."
    raise UdfLimitExceeded(reason=reason)


def _call_once(key: Key, source: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> UdfReply:
    child = pool.take(key)
    try:
        return child.carry_out(source, header, arrays)
    except OpenEOError as error:
        error.logs = child.logs  # type: ignore[attr-defined]
        raise
    finally:
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
    return ChildPlan(
        python=python,
        limits=limits,
        dispatcher=code.style,
        namespaces=sandbox.level == "namespaces",
        user=sandbox.user,
        packages=code.packages,
        links=code.links,
    )
