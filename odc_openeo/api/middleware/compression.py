"""Compression of JSON and other text for clients that accept gzip.

Flask-Compress is not used: it compresses for clients that reject gzip (``gzip;q=0``), its output for the same
text changes every second, and it compresses large listings anew for every request.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Final

from flask import Flask, Response, request

MIN_BYTES: Final = 1400
"""Smaller responses fit into one packet and are not compressed."""

LEVEL: Final = 5
TEXT_TYPES: Final = ("json", "text/", "xml", "javascript")


def register(app: Flask) -> None:
    """Compress responses where it is worthwhile."""
    app.after_request(compress_response)


def compress_response(response: Response) -> Response:
    """Compress a text response with gzip if the client accepts it; never files, which support ranges."""
    if response.direct_passthrough or not any(kind in str(response.mimetype) for kind in TEXT_TYPES):
        return response
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] <= 0 or "Content-Encoding" in response.headers:
        return response
    if response.status_code in (204, 206, 304) or len(response.get_data()) < MIN_BYTES:
        return response
    etag, _ = response.get_etag()
    # Responses with an ETag are large and requested repeatedly.
    response.set_data((_gzip if etag is None else _gzip_cached)(response.get_data()))
    response.headers["Content-Encoding"] = "gzip"
    if etag is not None:
        # The bytes differ, but the content is equivalent.
        response.set_etag(etag, weak=True)
    return response


def _gzip(data: bytes) -> bytes:
    # Without a modification time, the same text gives the same bytes.
    return gzip.compress(data, LEVEL, mtime=0)


_gzip_cached = lru_cache(maxsize=8)(_gzip)
