"""Processes on strings: search in them, join them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import xarray as xr

from odc_openeo.cube.elementwise import labelwise
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Boolean, BooleanOrNull, JsonArray, String

Text = Annotated[str | None | xr.DataArray, Schema({"type": ["string", "null"]})]
_ANY_SCALAR = {"type": ["string", "number", "boolean", "null"]}
Scalars = Annotated[JsonArray, Schema({"type": "array", "items": _ANY_SCALAR})]
ScalarText = Annotated[Any, Schema(_ANY_SCALAR)]
Position = Annotated[int | None, Schema({"type": ["integer", "null"], "minimum": 0})]

_TEXT = "Lorem ipsum dolor sit amet"


@process(
    categories=["texts", "comparison"],
    examples=[
        Example({"data": _TEXT, "pattern": "Lorem"}, True),
        Example({"data": _TEXT, "pattern": "lorem"}, False),
        Example({"data": "Ä", "pattern": "ä", "case_sensitive": False}, True),
        Example({"data": None, "pattern": "null"}, None),
    ],
)
def text_begins(data: Text, pattern: String, case_sensitive: Boolean = True) -> BooleanOrNull:
    """Check whether a string starts with another.

    No-data stays no-data.

    Args:
        data: The string to search in.
        pattern: The string to search for; not a regular expression.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        True, false or no-data.
    """
    return _search_string(str.startswith, data, pattern, case_sensitive)


@process(
    categories=["texts", "comparison"],
    examples=[
        Example({"data": _TEXT, "pattern": "amet"}, True),
        Example({"data": _TEXT, "pattern": "AMET"}, False),
        Example({"data": _TEXT, "pattern": "AMET", "case_sensitive": False}, True),
    ],
)
def text_ends(data: Text, pattern: String, case_sensitive: Boolean = True) -> BooleanOrNull:
    """Check whether a string ends with another.

    No-data stays no-data.

    Args:
        data: The string to search in.
        pattern: The string to search for; not a regular expression.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        True, false or no-data.
    """
    return _search_string(str.endswith, data, pattern, case_sensitive)


@process(
    categories=["texts", "comparison"],
    examples=[
        Example({"data": _TEXT, "pattern": "ipsum dolor"}, True),
        Example({"data": _TEXT, "pattern": "SIT", "case_sensitive": False}, True),
        Example({"data": _TEXT, "pattern": "openEO"}, False),
    ],
)
def text_contains(data: Text, pattern: String, case_sensitive: Boolean = True) -> BooleanOrNull:
    """Check whether a string contains another.

    No-data stays no-data.

    Args:
        data: The string to search in.
        pattern: The string to search for; not a regular expression.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        True, false or no-data.
    """
    return _search_string(str.__contains__, data, pattern, case_sensitive)


@process(
    categories=["texts"],
    examples=[
        Example({"data": _TEXT, "pattern": "ipsum dolor"}, 6),
        Example({"data": _TEXT, "pattern": "SIT", "case_sensitive": False}, 18),
        Example({"data": _TEXT, "pattern": "openEO"}, None),
    ],
    experimental=True,
)
def text_find(data: Text, pattern: String, case_sensitive: Boolean = True) -> Position:
    """Position of a string in another.

    The zero-based position of the first occurrence of `pattern`, in characters. No-data stays no-data.

    Args:
        data: The string to search in.
        pattern: The string to search for; not a regular expression.
        case_sensitive: Whether to distinguish upper-case and lower-case letters.

    Returns:
        The position, or no-data if the string is not found.
    """
    return labelwise(lambda text: _find_position(text, pattern, case_sensitive), data)


@process(
    categories=["texts"],
    examples=[
        Example({"data": ["Hello", "World"], "separator": " "}, "Hello World"),
        Example(
            {"data": [None, True, False, 1, -1.5, "ß"], "separator": "\n"}, "null\ntrue\nfalse\n1\n-1.5\nß"
        ),
        Example({"data": []}, ""),
    ],
)
def text_concat(data: Scalars, separator: ScalarText = "") -> String:
    """Join strings.

    Numbers, booleans and null are written as in JSON: `-1.5`, `true`, `null`.

    Args:
        data: The elements to join.
        separator: The separator between the elements.

    Returns:
        The joined string.
    """
    values = getattr(data, "values", data)
    if not isinstance(values, list | tuple):
        reason = "it must be an array of strings, numbers, booleans and nulls."
        raise ProcessParameterInvalid(process="text_concat", parameter="data", reason=reason)
    return _format_element(separator).join(_format_element(v) for v in values)


def _search_string(
    is_match: Callable[[str, str], bool], data: Any, pattern: str, case_sensitive: bool
) -> Any:
    def search(text: str | None) -> bool | None:
        if not isinstance(text, str):
            return None
        return is_match(text, pattern) if case_sensitive else is_match(text.casefold(), pattern.casefold())

    return labelwise(search, data)


def _find_position(text: str | None, pattern: str, case_sensitive: bool) -> int | None:
    if not isinstance(text, str):
        return None
    if case_sensitive:
        position = text.find(pattern)
        return None if position < 0 else position
    # Case folding may turn one character into several ("ß" → "ss"): count characters of the original string.
    folded_characters, folded_pattern = [c.casefold() for c in text], pattern.casefold()
    start, folded_text = 0, "".join(folded_characters)
    for index, character in enumerate([*folded_characters, ""]):
        if folded_text.startswith(folded_pattern, start):
            return index
        start += len(character)
    return None


def _format_element(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isinf(value):
            return "infinity" if value > 0 else "-infinity"
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else str(value)
    if isinstance(value, int):
        return str(value)
    reason = f"its elements must be strings, numbers, booleans or null, not {value!r:.60}."
    raise ProcessParameterInvalid(process="text_concat", parameter="data", reason=reason)
