"""What every answer carries: its id, headers that keep browsers from mischief, and compression."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Final

from flask import Flask, Response, g, request

from odc_openeo.api.request_log import REQUEST_ID, request_id

HARMLESS: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""Content security policy of what is no page: nothing in it is loaded or run."""

COMPRESSED: Final = frozenset(
    {"application/json", "application/geo+json", "application/schema+json", "text/html", "text/css"}
    | {"application/vnd.oai.openapi+json"}
    | {"text/csv", "text/plain", "text/javascript", "image/svg+xml", "application/xml", "text/xml"}
)
LEAST_BYTES: Final = 1400
"""What fits into one packet is sent as it is."""

LEVEL: Final = 5


def register(app: Flask) -> None:
    """Add the headers to every answer, errors included."""
    app.after_request(_secure)
    app.after_request(_compress)


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


def _compress(response: Response) -> Response:
    if response.mimetype not in COMPRESSED or response.direct_passthrough:
        return response
    response.vary.add("Accept-Encoding")
    wanted = request.accept_encodings["gzip"] > 0 and "Content-Encoding" not in response.headers
    data = response.get_data() if wanted and response.status_code != 304 else b""
    if len(data) < LEAST_BYTES:
        return response
    etag, _ = response.get_etag()
    # What has an ETag is large and asked for again and again.
    response.set_data(_packed(data) if etag is None else _packed_before(data))
    response.headers["Content-Encoding"] = "gzip"
    if etag is not None:
        # Other bytes than those of the plain answer, but of the same meaning.
        response.set_etag(etag, weak=True)
    return response


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, LEVEL, mtime=0)


_packed_before = lru_cache(maxsize=8)(_packed)
