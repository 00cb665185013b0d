"""Exceptions → openEO errors: JSON with ``id``, ``code`` and ``message``; details stay in the log."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable, RequestEntityTooLarge
from werkzeug.routing import RequestRedirect

from odc_openeo.api.backend import API_VERSION, backend, public_path
from odc_openeo.api.request_log import request_id
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

log = logging.getLogger(__name__)

RETRY_AFTER_S = 10
KEPT_HEADERS: Final = frozenset({"Allow", "Content-Range"})
CLIENT_CLOSED_REQUEST = 499


def register(app: Flask) -> None:
    """Handle every exception that a request may end with."""
    # Flask answers these by itself, no handler of errors sees them.
    app.before_request(_redirect)
    app.register_error_handler(OpenEOError, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(RunAbandoned, _abandoned)
    app.register_error_handler(Exception, _unexpected)


def answer(error: OpenEOError) -> Response:
    """The response for an openEO error."""
    error.id = error.id or request_id()
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


def _http(error: HTTPException) -> Response:
    if error.response is not None or (error.code or 500) < 400:
        return error.get_response()  # type: ignore[return-value]
    answered = answer(_translate(error))
    answered.headers.extend({k: v for k, v in error.get_headers() if k in KEPT_HEADERS})
    return answered


def _redirect() -> Response | None:
    """Lead to another spelling of an address of ours: never to the host that the client has named."""
    error = request.routing_exception
    if not isinstance(error, RequestRedirect):
        return None
    target = urlsplit(error.new_url)
    path = "/" + target.path.lstrip("/")
    response = Response(status=error.code)
    response.headers["Location"] = urlunsplit(("", "", public_path(path), target.query, ""))
    return response


def _translate(error: HTTPException) -> OpenEOError:
    if isinstance(error, RequestEntityTooLarge):
        return RequestTooLarge(limit=backend().config.max_body_bytes)
    if isinstance(error, RequestedRangeNotSatisfiable):
        return RangeNotSatisfiable()
    if error.code == 404:
        return _not_found()
    if error.code == 405:
        return MethodNotAllowed(method=request.method)
    if (error.code or 500) < 500:
        return RequestInvalid(reason=error.description or error.name)
    return _internal(error)


def _not_found() -> OpenEOError:
    parts = request.path.split("/")
    if len(parts) > 2 and parts[1] == "openeo" and parts[2] != API_VERSION.rpartition(".")[0]:
        return UnsupportedApiVersion(version=parts[2], supported=API_VERSION)
    return NotFound()


def _abandoned(error: RunAbandoned) -> Response:
    """Nobody reads this answer; the status is what nginx logs for clients that have left."""
    return Response(status=CLIENT_CLOSED_REQUEST)


def _unexpected(error: Exception) -> Response:
    return answer(_internal(error))


def _internal(error: Exception) -> OpenEOError:
    failure = Internal()
    failure.__cause__ = error
    return failure
