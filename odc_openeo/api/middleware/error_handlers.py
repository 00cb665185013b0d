"""Turn exceptions into openEO errors: JSON with ``id``, ``code`` and ``message``; details are only logged."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable, RequestEntityTooLarge
from werkzeug.routing import RequestRedirect

from odc_openeo.api.backend import API_VERSION, backend, public_path
from odc_openeo.api.middleware.request_log import request_id
from odc_openeo.errors import (
    Internal,
    MethodNotAllowed,
    NotFound,
    OpenEOError,
    RangeNotSatisfiable,
    RequestInvalid,
    RequestTooLarge,
    TooManyRequests,
    UnsupportedApiVersion,
)
from odc_openeo.runners import RunAbandoned
from odc_openeo.telemetry.counts import add_count

log = logging.getLogger(__name__)

RETRY_AFTER_S = 10
KEPT_HEADERS: Final = frozenset({"Allow", "Content-Range"})
CLIENT_CLOSED_REQUEST = 499


def register(app: Flask) -> None:
    """Handle every exception that a request may raise."""
    # Flask handles redirects itself; they never reach an error handler.
    app.before_request(_redirect_to_canonical_path)
    app.register_error_handler(OpenEOError, make_error_response)
    app.register_error_handler(HTTPException, _handle_http_exception)
    app.register_error_handler(RunAbandoned, _handle_abandoned_run)
    app.register_error_handler(Exception, _handle_unexpected_error)


def make_error_response(error: OpenEOError) -> Response:
    """Make the response for an openEO error and log it."""
    error.id = error.id or request_id()
    add_count("errors", code=error.code)
    level = logging.ERROR if error.status >= 500 else logging.INFO
    log.log(level, "%s: %s", error.code, error, exc_info=error.__cause__ if error.status >= 500 else None)
    response = jsonify(error.to_dict())
    response.status_code = error.status
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="openEO"'
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.seconds)
    if error.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _handle_http_exception(error: HTTPException) -> Response:
    if error.response is not None or (error.code or 500) < 400:
        return error.get_response()  # type: ignore[return-value]
    response = make_error_response(_translate_http_exception(error))
    response.headers.extend({k: v for k, v in error.get_headers() if k in KEPT_HEADERS})
    return response


def _redirect_to_canonical_path() -> Response | None:
    """Redirect to the canonical path of a URL, never to the host that the client sent."""
    error = request.routing_exception
    if not isinstance(error, RequestRedirect):
        return None
    target = urlsplit(error.new_url)
    path = "/" + target.path.lstrip("/")
    response = Response(status=error.code)
    response.headers["Location"] = urlunsplit(("", "", public_path(path), target.query, ""))
    return response


def _translate_http_exception(error: HTTPException) -> OpenEOError:
    if isinstance(error, RequestEntityTooLarge):
        return RequestTooLarge(limit=backend().config.max_body_bytes)
    if isinstance(error, RequestedRangeNotSatisfiable):
        return RangeNotSatisfiable()
    if error.code == 404:
        return _make_not_found_error()
    if error.code == 405:
        return MethodNotAllowed(method=request.method)
    if (error.code or 500) < 500:
        return RequestInvalid(reason=error.description or error.name)
    return _make_internal_error(error)


def _make_not_found_error() -> OpenEOError:
    parts = request.path.split("/")
    if len(parts) > 2 and parts[1] == "openeo" and parts[2] != API_VERSION.rpartition(".")[0]:
        return UnsupportedApiVersion(version=parts[2], supported=API_VERSION)
    return NotFound()


def _handle_abandoned_run(error: RunAbandoned) -> Response:
    """Respond to a client that has disconnected, with the status that nginx logs in this case."""
    return Response(status=CLIENT_CLOSED_REQUEST)


def _handle_unexpected_error(error: Exception) -> Response:
    return make_error_response(_make_internal_error(error))


def _make_internal_error(error: Exception) -> OpenEOError:
    failure = Internal()
    failure.__cause__ = error
    return failure
