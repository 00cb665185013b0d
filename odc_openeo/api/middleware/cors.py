"""Cross-origin resource sharing (CORS): web pages of the allowed origins may use all endpoints.

Flask-Cors is not used: openEO demands preflight responses that list the methods of each endpoint, and without
``Vary: Origin`` in responses to other origins caches would give those to allowed ones.
"""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from odc_openeo.api.backend import backend, url_adapter

EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Range, ETag, Link, Location, "
    "OpenEO-Costs, OpenEO-Identifier, Retry-After, Warning, X-Request-Id"
)
ALLOWED_HEADERS = "Accept, Authorization, Content-Type, If-None-Match, Range"
PREFLIGHT_LIFETIME_S = 86_400


def register(app: Flask) -> None:
    """Answer preflight requests and add the CORS headers to every response."""
    app.before_request(_answer_preflight)
    app.after_request(_add_headers)


def _answer_preflight() -> Response | None:
    rule = request.url_rule
    is_unknown_url = isinstance(request.routing_exception, HTTPException)
    if request.method != "OPTIONS" or is_unknown_url or rule is None:
        return None
    response = Response(status=204, content_type="application/json")
    response.headers["Allow"] = ", ".join(_list_allowed_methods())
    response.headers["Access-Control-Allow-Methods"] = ", ".join(_list_allowed_methods())
    response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_LIFETIME_S)
    return response


def _list_allowed_methods() -> list[str]:
    """List the methods of the requested URL over all rules that match it."""
    return sorted({*url_adapter().allowed_methods(), "OPTIONS"})


def _add_headers(response: Response) -> Response:
    allowed = [o.strip() for o in backend().config.cors_origins.split(",")]
    origin = request.headers.get("Origin")
    if "*" in allowed:
        response.headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.vary.add("Origin")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = str(origin)
    response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    return response
