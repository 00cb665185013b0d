"""What every answer carries: its id, and headers that keep browsers from mischief."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, g

from odc_openeo.api.request_log import REQUEST_ID, request_id

HARMLESS: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""Content security policy of what is no page: nothing in it is loaded or run."""


def register(app: Flask) -> None:
    """Add the headers to every answer, errors included."""
    app.after_request(_secure)


def _secure(response: Response) -> Response:
    headers = response.headers
    headers[REQUEST_ID] = request_id()
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    # The address of a signed link is its key.
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", HARMLESS)
    if "user" in g and "Cache-Control" not in headers:
        headers["Cache-Control"] = "private, no-cache"
    return response
