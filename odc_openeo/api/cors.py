"""Cross-origin requests: web pages from the allowed origins may use everything (preflights included)."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from odc_openeo.api.backend import backend, url_adapter

EXPOSED = (
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Range, ETag, Link, Location, "
    "OpenEO-Costs, OpenEO-Identifier, Retry-After, X-Request-Id"
)
ALLOWED = "Accept, Authorization, Content-Type, If-None-Match, Range"
PREFLIGHT_LIFETIME_S = 86_400


def register(app: Flask) -> None:
    """Answer preflight requests and add the CORS headers to every answer."""
    app.before_request(_preflight)
    app.after_request(_add_headers)


def _preflight() -> Response | None:
    rule = request.url_rule
    unknown = isinstance(request.routing_exception, HTTPException)
    if request.method != "OPTIONS" or unknown or rule is None:
        return None
    response = Response(status=204, content_type="application/json")
    response.headers["Allow"] = ", ".join(_methods())
    response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods())
    response.headers["Access-Control-Allow-Headers"] = ALLOWED
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_LIFETIME_S)
    return response


def _methods() -> list[str]:
    """The methods of this address, over all rules that match it."""
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
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
    return response
