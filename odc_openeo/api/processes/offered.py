"""The processes that are offered: all that are registered, but `run_udf` only where user code runs."""

from __future__ import annotations

from typing import Any, Final

from odc_openeo.api.backend import backend
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.user_functions import describe_user_functions
from odc_openeo.registry.child_results import RUN_UDF
from odc_openeo.registry.process import PROCESSES

_runtimes: Final[dict[Config, dict[str, Any]]] = {}


def get_runtimes() -> dict[str, Any]:
    """Return the runtimes of user-defined functions; a runner finds them out once for this process."""
    config = backend().config
    if config.udf == "off":
        return {}
    if config not in _runtimes:
        _runtimes[config] = run_for_view(describe_user_functions, user=None)
    return _runtimes[config]


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
