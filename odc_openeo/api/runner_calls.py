"""Run the work of a request in runners, for as long as its client waits."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from flask import request

from odc_openeo.api.backend import backend
from odc_openeo.api.middleware.request_log import request_id
from odc_openeo.runners import RunnerPool, is_always_wanted
from odc_openeo.users import accounts


def run_for_result(function: Callable[..., Any], *arguments: Any, user: str) -> Any:
    """Run a task of a synchronous request for a user; raises the errors of `RunnerPool.run`."""
    return _run_in_pool(backend().result_runners, function, arguments, user, backend().config.sync_timeout_s)


def run_for_view(
    function: Callable[..., Any], *arguments: Any, user: str | None, seconds: float | None = None
) -> Any:
    """Run an interactive task; without a user it counts against the client's IP address."""
    limit = seconds or backend().config.tile_timeout_s
    counted_user = user or accounts.get_network(request.remote_addr or "")
    return _run_in_pool(backend().view_runners, function, arguments, counted_user, limit)


def _run_in_pool(
    pool: RunnerPool, function: Callable[..., Any], arguments: tuple[Any, ...], user: str, seconds: float
) -> Any:
    return pool.run(
        function,
        *arguments,
        user=user,
        seconds=seconds,
        is_wanted=watch_client(request.environ),
        label=request_id(),
    )


def watch_client(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Return a function that tells whether the client of a WSGI request is still connected.

    As in proxies, a client that has closed its side of the connection counts as disconnected.
    """
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return is_always_wanted

    watch = select.poll()
    # Without POLLIN: data that a client sends ahead does not mean that it is still connected.
    watch.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)

    def is_connected() -> bool:
        try:
            return not watch.poll(0)
        except (OSError, ValueError):
            return False

    return is_connected
