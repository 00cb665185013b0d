"""Reject requests with strings that cannot be stored or compared, before they reach a view.

JSON bodies are checked where they are parsed (`json_body`), forms where they are read (`pages.forms`).
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, request
from werkzeug.datastructures import MultiDict

from odc_openeo.errors import AuthenticationSchemeInvalid
from odc_openeo.untrusted.strict_json import check_string


def register(app: Flask) -> None:
    """Check the path, query, cookies and HTTP Basic credentials of every request."""
    app.before_request(_check_request)


def _check_request() -> None:
    for value in _iterate_request_strings():
        check_string(value)


def _iterate_request_strings() -> Iterator[str]:
    yield request.path
    yield from iterate_strings(request.args)
    yield from iterate_strings(request.cookies)
    if not request.headers.get("Authorization", "").isascii():
        raise AuthenticationSchemeInvalid("The Authorization header must contain ASCII characters only.")
    credentials = request.authorization
    if credentials is not None:
        yield from (credentials.username or "", credentials.password or "")


def iterate_strings(fields: MultiDict[str, str]) -> Iterator[str]:
    """Iterate over the names and values of the fields of a query or form."""
    for name, value in fields.items(multi=True):
        yield from (name, value)
