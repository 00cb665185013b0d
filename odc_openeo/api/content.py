"""Answers that are files: ETag, Range and If-None-Match."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import IO, BinaryIO, Final
from urllib.parse import quote

from flask import Response, request
from werkzeug.wsgi import wrap_file

COPY_BYTES: Final = 2**20


def conditional(file: IO[bytes], size: int, type_: str, etag: str) -> Response:
    """A file as answer; it is closed when it is sent."""
    response = Response(
        wrap_file(request.environ, file, COPY_BYTES), content_type=type_, direct_passthrough=True
    )
    response.content_length = size
    response.set_etag(quote(etag, safe=""))
    response.cache_control.max_age = 3600
    response.call_on_close(file.close)
    response.make_conditional(request.environ, accept_ranges=True, complete_length=size)
    return response


def content(file: BinaryIO, type_: str) -> Response:
    """A file of this machine as answer, with its size and time of change for ETag."""
    found = os.fstat(file.fileno())
    response = conditional(file, found.st_size, type_, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")
    response.last_modified = datetime.fromtimestamp(found.st_mtime, UTC)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
