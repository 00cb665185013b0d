"""An id for every request: in each log line written while it is handled, and in its answer."""

from __future__ import annotations

import logging
import re
import time
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from flask import Flask, Response, g, has_request_context, request

from odc_openeo.api.backend import backend

log = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-Id"
SECRET: Final = frozenset({"signature", "share", "token", "key"})
"""Parts of paths that are not written down: who knows them may come in."""


class RequestIdFilter(logging.Filter):
    """Gives log records the attribute ``request_id``, and shows it before the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark the record; none is dropped."""
        if has_request_context() and not hasattr(record, "request_id"):
            id_ = request_id()
            record.__dict__["request_id"] = id_
            record.msg = f"[{id_}] {record.msg}"
        return True


def request_id() -> str:
    """The id of the request being handled: that of a trusted proxy if it gives one."""
    if "request_id" not in g:
        given = request.headers.get(REQUEST_ID, "") if backend().config.trusted_proxies else ""
        g.request_id = given if re.fullmatch(r"[\w.-]{8,64}", given, re.ASCII) else uuid4().hex
    return str(g.request_id)


def register(app: Flask) -> None:
    """Log every request once it is answered, with status and duration."""
    marker = RequestIdFilter()
    for name in (log.name, "odc_openeo.api.failures", "odc_openeo.run"):
        logging.getLogger(name).addFilter(marker)
    app.before_request(_start)
    app.after_request(_record)


def _start() -> None:
    g.started = time.monotonic()


def _record(response: Response) -> Response:
    seconds = time.monotonic() - g.get("started", time.monotonic())
    level = logging.DEBUG if request.path == "/health" else logging.INFO
    log.log(level, "%s %s %d %.3f s", request.method, _shown_path(), response.status_code, seconds)
    return response


def _shown_path() -> str:
    """The path in one line, without what must stay secret; the query is never written down."""
    secrets = [str(value) for name, value in (request.view_args or {}).items() if name in SECRET]
    path = quote(request.path, safe="/~:@+,")
    for secret in filter(None, secrets):
        path = path.replace(quote(secret), "***")
    return path
