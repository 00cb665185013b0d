"""Security headers and the request id, set on every response."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, g

from odc_openeo.api.middleware.request_log import REQUEST_ID, request_id

DEFAULT_CSP: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""Content security policy of everything but pages: nothing is loaded or run."""


def register(app: Flask) -> None:
    """Add the headers to every response, including errors."""
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers[REQUEST_ID] = request_id()
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    # The URL of a signed link grants access and must not leak as a referrer.
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", DEFAULT_CSP)
    if "user" in g and "Cache-Control" not in headers:
        headers["Cache-Control"] = "private, no-cache"
    return response
