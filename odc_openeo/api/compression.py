"""Answers in JSON and other text are sent compressed to clients that take it."""

from __future__ import annotations

import gzip
from typing import Final

from flask import Flask, Response, request

LEAST_BYTES: Final = 1000
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
    # The same text gives the same bytes: without a time.
    response.set_data(gzip.compress(response.get_data(), LEVEL, mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    etag, _ = response.get_etag()
    if etag is not None:
        # The bytes are others, the content is the same.
        response.set_etag(etag, weak=True)
    return response
