"""Where user code runs: in this process's children, or on dask workers that run nothing else.

Such workers have a scheduler of their own, as whoever reaches a scheduler can run anything on its workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from odc_openeo.compute import cluster
from odc_openeo.errors import OpenEOError, UdfLimitExceeded
from odc_openeo.udf.settings import UdfSettings

P = ParamSpec("P")
T = TypeVar("T")


def run_in_place(
    settings: UdfSettings,
    function: Callable[Concatenate[UdfSettings, P], T],
    *arguments: P.args,
    **options: P.kwargs,
) -> T:
    """Call a function with settings and arguments where user code runs; return what it returns.

    Raises:
        OpenEOError: the function raised it, with the attributes that it had.
        InfrastructureBusy: there is no worker for user code.
        UdfLimitExceeded: the workers that ran it were killed.
    """
    if settings.scheduler is None:
        return function(settings, *arguments, **options)
    there = replace(settings, scheduler=None)
    try:
        result = cluster.run_on_worker(
            settings.scheduler, settings.wait_s, _run_here, function, there, arguments, options
        )
    except cluster.WorkersKilled as error:
        reason = "the workers that ran it were killed, probably because they have too little memory."
        raise UdfLimitExceeded(reason=reason) from error
    if isinstance(result, OpenEOError):
        raise result
    return cast("T", result)


def _run_here(
    function: Callable[..., Any], settings: UdfSettings, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    # Returned, not raised: dask writes errors of tasks to the log of the worker, with the code of the user.
    try:
        return function(settings, *arguments, **options)
    except OpenEOError as error:
        return error.detach()
