"""Parse the JSON of requests strictly: all strings can be stored, and all numbers used in computations."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

from odc_openeo.errors import RequestInvalid


def parse_json(text: str) -> Any:
    """Parse a JSON value of a request; NaN and Infinity are allowed.

    Raises:
        RequestInvalid: it is not valid JSON, is nested too deeply, or contains U+0000, half a surrogate pair
            or an integer beyond the range of float.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise RequestInvalid(reason="its arrays and objects are nested too deeply. Flatten it.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RequestInvalid(reason=f"it is not valid JSON: {error.msg} at {where}.") from error
    except ValueError as error:
        raise RequestInvalid(reason=f"it contains a number that is too long ({error}).") from error
    if _DOUBTFUL.search(text):
        _check_scalars(value)
    return value


_DOUBTFUL: Final = re.compile(r"\\u0000|\\ud[89a-f]|\d{309}", re.IGNORECASE | re.ASCII)
"""Escapes and digits without which JSON contains nothing that `_check_scalars` refuses."""


MOST_DEPTH: Final = 100
"""Levels of arrays and objects in what user code sends: others walk over it recursively."""


def is_deeper_than(value: Any, depth: int = MOST_DEPTH) -> bool:
    """Return whether a JSON value has more than ``depth`` levels of arrays and objects in each other."""
    level = [value]
    for _ in range(depth + 1):
        level = [item for container in level for item in _list_containers(container)]
        if not level:
            return False
    return True


def _list_containers(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


def _check_scalars(value: Any) -> None:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            check_string(value)
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            raise RequestInvalid(reason="it contains an integer of more than 308 digits.")


def check_string(value: str) -> None:
    """Refuse a string that PostgreSQL or UTF-8 cannot represent; RequestInvalid gives the reason."""
    if "\0" in value:
        raise RequestInvalid("The request is invalid: a string contains the character U+0000. Remove it.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestInvalid(
            "The request is invalid: a string contains half of a surrogate pair. Send the whole character."
        )
