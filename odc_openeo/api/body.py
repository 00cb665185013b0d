"""JSON request bodies: parsed within limits of size and depth, else refused with what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from odc_openeo.errors import ContentTypeInvalid, RequestInvalid
from odc_openeo.strict_json import parse_json

MAX_DEPTH = 600
"""Most levels of arrays and objects: a level of child processes takes four of them."""

TEXTS: Final = {"title": 500, "description": 100_000}
"""Texts that a user may give, with their greatest length."""


def json_object() -> dict[str, Any]:
    """The request body as a JSON object. NaN and Infinity are allowed; it may not be too deep or too large.

    Raises:
        ContentTypeInvalid: the body is declared to be something else than JSON.
        RequestInvalid: it is missing, is no JSON, no object, or nested too deeply.
        werkzeug.exceptions.RequestEntityTooLarge: it is over the limit; it is not read then.
    """
    if request.mimetype and not (request.is_json or request.mimetype == "text/plain"):
        raise ContentTypeInvalid(types="application/json")
    raw = request.get_data(cache=False)
    # A body of unknown length is cut off at the limit without a word.
    if request.content_length is None and len(raw) >= (request.max_content_length or math.inf):
        raise RequestEntityTooLarge
    if not raw.strip():
        raise RequestInvalid(reason="it is empty. Send a JSON object.")
    value = _parse(raw)
    if not isinstance(value, dict):
        raise RequestInvalid(reason=f"it is {_kind(value)}. Send a JSON object.")
    _check_depth(value)
    return value


def _parse(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestInvalid(reason=f"it is no UTF-8 text: byte {error.start} is wrong.") from error
    return parse_json(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> RequestInvalid:
    return RequestInvalid(reason=f"arrays and objects are nested more than {MAX_DEPTH} deep. Flatten it.")


def check_numbers(body: Mapping[str, Any]) -> None:
    """Refuse NaN and infinity: they can be computed with, but no JSON answer could show them."""
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise RequestInvalid(reason="NaN and Infinity are no JSON. For NaN use the process 'nan'.")


def text_or_null(body: Mapping[str, Any], name: str) -> str | None:
    """A title or description; RequestInvalid if it is no text, or too long."""
    value, most = body.get(name), TEXTS[name]
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise RequestInvalid(reason=f"'{name}' must be a text of at most {most} characters, or null.")
    return value


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
