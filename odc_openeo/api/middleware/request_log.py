"""Request ids: in every log line written while a request is handled, and in its response."""

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
SECRET_PATH_PARTS: Final = frozenset({"signature", "share", "token", "key"})
"""Path parameters that are redacted in logs, because they grant access."""


class RequestIdFilter(logging.Filter):
    """Adds the attribute ``request_id`` to log records and prefixes their messages with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the request id; no record is dropped."""
        if has_request_context() and not hasattr(record, "request_id"):
            id_ = request_id()
            record.__dict__["request_id"] = id_
            record.msg = f"[{id_}] {record.msg}"
        return True


def request_id() -> str:
    """Return the id of the current request: the one of a trusted proxy if it sends one."""
    if "request_id" not in g:
        proxy_id = request.headers.get(REQUEST_ID, "") if backend().config.trusted_proxies else ""
        g.request_id = proxy_id if re.fullmatch(r"[\w.-]{8,64}", proxy_id, re.ASCII) else uuid4().hex
    return str(g.request_id)


def register(app: Flask) -> None:
    """Log every request with its status and duration once the response is ready."""
    marker = RequestIdFilter()
    for name in (log.name, "odc_openeo.api.middleware.error_handlers", "odc_openeo.run"):
        logging.getLogger(name).addFilter(marker)
    app.before_request(_start_clock)
    app.after_request(_log_response)


def _start_clock() -> None:
    g.started = time.monotonic()


def _log_response(response: Response) -> Response:
    seconds = time.monotonic() - g.get("started", time.monotonic())
    level = logging.DEBUG if request.path == "/health" else logging.INFO
    log.log(level, "%s %s %d %.3f s", request.method, _redact_path(), response.status_code, seconds)
    return response


def _redact_path() -> str:
    """Return the path on one line with secrets redacted; the query string is never logged."""
    secrets = [str(value) for name, value in (request.view_args or {}).items() if name in SECRET_PATH_PARTS]
    path = quote(request.path, safe="/~:@+,")
    for secret in filter(None, secrets):
        path = path.replace(quote(secret), "***")
    return path
