"""Answers in JSON and other text are sent compressed to clients that take it."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Final

from flask import Flask, Response, request

LEAST_BYTES: Final = 1400
"""What fits into one packet is sent as it is."""

LEVEL: Final = 5
TEXT: Final = ("json", "text/", "xml", "javascript")


def register(app: Flask) -> None:
    """Compress what is worth it."""
    app.after_request(compress)


def compress(response: Response) -> Response:
    """Compress a text with gzip, if the client takes it. Files are sent as they are, for their ranges."""
    if response.direct_passthrough or not any(kind in str(response.mimetype) for kind in TEXT):
        return response
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] <= 0 or "Content-Encoding" in response.headers:
        return response
    if response.status_code in (204, 206, 304) or len(response.get_data()) < LEAST_BYTES:
        return response
    etag, _ = response.get_etag()
    # What has an ETag is large and asked for again and again.
    response.set_data((_packed if etag is None else _packed_before)(response.get_data()))
    response.headers["Content-Encoding"] = "gzip"
    if etag is not None:
        # The bytes are others, the content is the same.
        response.set_etag(etag, weak=True)
    return response


def _packed(data: bytes) -> bytes:
    # Without a time, the same text gives the same bytes.
    return gzip.compress(data, LEVEL, mtime=0)


_packed_before = lru_cache(maxsize=8)(_packed)
