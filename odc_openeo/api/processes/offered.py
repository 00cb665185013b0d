"""The processes that are offered: all that are registered, but `run_udf` only where user code runs."""

from __future__ import annotations

import time
from typing import Any, Final

from odc_openeo.api.backend import backend
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.user_functions import describe_user_functions
from odc_openeo.registry.child_results import RUN_UDF
from odc_openeo.registry.process import PROCESSES

RETRY_S: Final = 30.0
"""Seconds after which it is found out again whether user code runs, if it does not."""
REMOTE_S: Final = 300.0
"""Seconds after which workers for user code are asked again."""

_answers: Final[dict[Config, tuple[float, dict[str, Any] | OpenEOError]]] = {}
"""The runtimes by configuration, or why they are not known, and the time until which that is true."""


def get_runtimes() -> dict[str, Any]:
    """Return the runtimes of user-defined functions; a runner finds them out once for this process.

    That there are none may be an accident, and is found out again after a while.

    Raises:
        InfrastructureBusy: there is no worker for user code.
    """
    config = backend().config
    if config.udf == "off":
        return {}
    until, answer = _answers.get(config, (0.0, {}))
    if time.monotonic() > until:
        answer, seconds = _find_runtimes(config)
        _answers[config] = time.monotonic() + seconds, answer
    if isinstance(answer, OpenEOError):
        raise answer.detach()
    return answer


def _find_runtimes(config: Config) -> tuple[dict[str, Any] | OpenEOError, float]:
    """Find out the runtimes, and for how many seconds that is to be taken as true."""
    try:
        runtimes = run_for_view(describe_user_functions, user=None)
    except OpenEOError as error:
        return error, RETRY_S
    if not runtimes:
        return runtimes, RETRY_S
    return runtimes, float("inf") if config.udf_scheduler is None else REMOTE_S


def list_offered_processes() -> list[str]:
    """List the ids of the processes that are offered."""
    ids = sorted(PROCESSES)
    return ids if offers_user_functions() else [id_ for id_ in ids if id_ != RUN_UDF]


def offers_user_functions() -> bool:
    """Return whether user code runs here; what cannot be found out now is taken as configured."""
    try:
        return bool(get_runtimes())
    except OpenEOError:
        return backend().config.udf != "off"
