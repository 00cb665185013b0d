"""Request ids: in every log line written while a request is handled, and in its response."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid4

from flask import Flask, Response, g, has_request_context, request

from odc_openeo.api.backend import backend
from odc_openeo.telemetry.counts import add_count, observe_seconds
from odc_openeo.telemetry.log_records import set_log_ids

log = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-Id"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
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
    app.teardown_request(_forget_ids)


def _start_clock() -> None:
    g.started = time.monotonic()
    set_log_ids(request=request_id(), job=_find_job_id())


def _forget_ids(_: BaseException | None) -> None:
    set_log_ids()


def _find_job_id() -> str | None:
    """Find the id of the job in the path, if it looks like one."""
    with contextlib.suppress(KeyError, ValueError):
        return str(UUID((request.view_args or {})["job_id"]))
    return None


def _log_response(response: Response) -> Response:
    seconds = time.monotonic() - g.get("started", time.monotonic())
    level = logging.DEBUG if request.path.startswith("/health") else logging.INFO
    path, status = _redact_path(), response.status_code
    fields = {"method": request.method, "path": path, "status": status, "seconds": round(seconds, 3)}
    log.log(level, "%s %s %d %.3f s", request.method, path, status, seconds, extra={"fields": fields})
    _count_request(response.status_code, seconds)
    return response


def _count_request(status: int, seconds: float) -> None:
    """Count a request by the rule of its endpoint: paths and methods are whatever clients send."""
    rule = request.url_rule
    labels = {
        "method": request.method if request.method in METHODS else "other",
        "endpoint": "unknown" if rule is None or request.routing_exception is not None else rule.rule,
    }
    add_count("requests", status=str(status), **labels)
    observe_seconds("request_duration_seconds", seconds, **labels)


def _redact_path() -> str:
    """Return the path on one line with secrets redacted; the query string is never logged."""
    secrets = [str(value) for name, value in (request.view_args or {}).items() if name in SECRET_PATH_PARTS]
    path = quote(request.path, safe="/~:@+,")
    for secret in filter(None, secrets):
        path = path.replace(quote(secret), "***")
    return path
