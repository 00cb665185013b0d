"""Answers that are files: ETag, Range and If-None-Match."""

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
"""One range of bytes; longer numbers are of no file."""


def conditional(file: IO[bytes], size: int, type_: str, etag: str) -> Response:
    """A file as answer; it is closed when it is sent."""
    response = Response(
        wrap_file(request.environ, file, COPY_BYTES), content_type=type_, direct_passthrough=True
    )
    response.content_length = size
    response.set_etag(quote(etag, safe=""))
    response.cache_control.max_age = 3600
    response.call_on_close(file.close)
    return make_conditional(response, size)


def make_conditional(response: Response, size: int) -> Response:
    """Answer with a part of the file, or that it has not changed, as the request asks (RFC 9110, 13 and 14).

    A ``Range`` that is malformed, in another unit than bytes, of several parts or not of GET is ignored.

    Raises:
        RequestedRangeNotSatisfiable: the part begins after the end; the file is closed.
    """
    environ = {name: value for name, value in request.environ.items() if name != "HTTP_RANGE"}
    part = _parse_range(request.headers.get("Range", ""), size) if request.method == "GET" else None
    # Werkzeug looks at ranges first, and that nothing has changed counts more.
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
    """First byte and the byte after the last; an empty range begins after the end. None: to be ignored."""
    match = RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        return max(size - (last or 0), 0), size
    if last is not None and last < first:
        return None
    return first, size if last is None else min(last + 1, size)


def content(file: BinaryIO, type_: str) -> Response:
    """A file of this machine as answer, with its size and time of change for ETag."""
    found = os.fstat(file.fileno())
    response = conditional(file, found.st_size, type_, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")
    response.last_modified = datetime.fromtimestamp(found.st_mtime, UTC)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
