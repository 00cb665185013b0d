"""Strings of requests that nothing here can store or compare: refused before any view sees them.

JSON bodies are checked where they are parsed (`body`), forms where they are read (`pages.forms`).
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, request
from werkzeug.datastructures import MultiDict

from odc_openeo.errors import AuthenticationSchemeInvalid
from odc_openeo.strict_json import check_string


def register(app: Flask) -> None:
    """Check path, query, cookies and the name and password of HTTP Basic of every request."""
    app.before_request(_check_request)


def _check_request() -> None:
    for value in _strings_of_request():
        check_string(value)


def _strings_of_request() -> Iterator[str]:
    yield request.path
    yield from strings_of(request.args)
    yield from strings_of(request.cookies)
    if not request.headers.get("Authorization", "").isascii():
        raise AuthenticationSchemeInvalid("The header Authorization may hold ASCII characters only.")
    credentials = request.authorization
    if credentials is not None:
        yield from (credentials.username or "", credentials.password or "")


def strings_of(fields: MultiDict[str, str]) -> Iterator[str]:
    """Names and values of the fields of a query or a form."""
    for name, value in fields.items(multi=True):
        yield from (name, value)
