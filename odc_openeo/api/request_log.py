"""An id for every request: in each log line written while it is handled, and in each error answered."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from flask import Flask, Response, g, has_request_context, request

log = logging.getLogger(__name__)


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
    """The id of the request being handled."""
    if "request_id" not in g:
        g.request_id = uuid4().hex
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
    log.log(level, "%s %s %d %.3f s", request.method, request.path, response.status_code, seconds)
    return response
