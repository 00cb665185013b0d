"""File responses with support for ETag, Range and If-None-Match."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import IO, BinaryIO, Final
from urllib.parse import quote

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import wrap_file

COPY_BYTES: Final = 2**20
RANGE: Final = re.compile(r"[Bb][Yy][Tt][Ee][Ss]=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)
"""A single byte range; no file is large enough for longer numbers."""


def make_file_response(file: IO[bytes], size: int, media_type: str, etag: str) -> Response:
    """Make a response of an open file, which is closed once the response has been sent."""
    response = Response(
        wrap_file(request.environ, file, COPY_BYTES), content_type=media_type, direct_passthrough=True
    )
    response.content_length = size
    response.set_etag(quote(etag, safe=""))
    response.cache_control.max_age = 3600
    response.call_on_close(file.close)
    return make_conditional(response, size)


def make_conditional(response: Response, size: int) -> Response:
    """Apply the request's conditions and range to a response (RFC 9110, sections 13 and 14).

    A ``Range`` header is ignored if it is malformed, uses a unit other than bytes, asks for several ranges or
    the method is not GET.

    Raises:
        RequestedRangeNotSatisfiable: the range starts after the end of the file; the file is closed.
    """
    environ = {name: value for name, value in request.environ.items() if name != "HTTP_RANGE"}
    part = _parse_range(request.headers.get("Range", ""), size) if request.method == "GET" else None
    # Werkzeug evaluates ranges first, but "not modified" takes precedence.
    response.make_conditional(environ, accept_ranges=True, complete_length=size)
    if part is None or response.status_code != HTTPStatus.OK:
        return response
    environ["HTTP_RANGE"] = f"bytes={part[0]}-{part[1] - 1}" if part[0] < part[1] else f"bytes={size}-"
    try:
        response.make_conditional(environ, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    return response


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Parse a range to start and end (exclusive); None if it is to be ignored.

    The range is empty if it starts after the end of the file.
    """
    match = RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        return max(size - (last or 0), 0), size
    if last is not None and last < first:
        return None
    return first, size if last is None else min(last + 1, size)


def send_local_file(file: BinaryIO, media_type: str) -> Response:
    """Make a response of a local file; the ETag is derived from its size and modification time."""
    status = os.fstat(file.fileno())
    response = make_file_response(
        file, status.st_size, media_type, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
    )
    response.last_modified = datetime.fromtimestamp(status.st_mtime, UTC)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
