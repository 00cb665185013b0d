"""Limits of filters that anybody may send: checked before CQL2 is parsed, in time linear in the filter.

The parser of CQL2 text takes twice as long for each bracket that another is nested in, and goes one level of
its stack deeper for each operator of a chain: without limits a few bytes would stop the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from odc_openeo.errors import RequestInvalid

MOST_CHARACTERS: Final = 32_768
MOST_STEPS: Final = 2**17
"""Steps of the parser at worst: each token counts 2 to the power of the brackets around it."""
MOST_OPERATORS: Final = 64
"""Operators in a row, such as in ``1 + 1 + 1``."""
MOST_DEPTH: Final = 32
MOST_VALUES: Final = 2_000
"""Conditions, properties and values of a filter together, without coordinates."""
MOST_VERTICES: Final = 10_000

# Quoted strings are not left out: a bracket in one counts too, so that nothing can be hidden by quotes.
_TOKEN: Final = re.compile(r"[\w.]+|[^\w\s]")
_OPERATORS: Final = frozenset({"not", "like", "in", "is", "between", "div", *"+-*/^%=<>"})
_CONNECTIVES: Final = frozenset({"and", "or", ","})


def check_filter_text(text: str) -> None:
    """Refuse CQL2 text that its parser would take too long for; RequestInvalid says what to change."""
    if len(text) > MOST_CHARACTERS:
        raise _too_complex(f"it is longer than {MOST_CHARACTERS} characters")
    steps, operators = 0, [0]
    for token in _TOKEN.findall(text.lower()):
        if token == "(":
            operators.append(0)
        elif token == ")" and len(operators) > 1:
            operators.pop()
        elif token in _CONNECTIVES:
            operators[-1] = 0
        operators[-1] += token in _OPERATORS
        if operators[-1] > MOST_OPERATORS:
            raise _too_complex(f"it has more than {MOST_OPERATORS} operators in a row")
        steps += 2 ** (len(operators) - 1)
        if steps > MOST_STEPS:
            raise _too_complex("its brackets are nested too deeply, or there are too many")


def check_filter_tree(expression: Any) -> None:
    """Refuse a filter in CQL2's JSON that is too deep or too large; RequestInvalid says what to change."""
    level, values, geometries = [expression], 0, []
    for _ in range(MOST_DEPTH):
        geometries += [value for value in level if _is_geometry(value)]
        level = [value for value in level if not _is_geometry(value)]
        values += len(level)
        if values > MOST_VALUES:
            raise _too_complex(f"it has more than {MOST_VALUES} conditions and values")
        level = [member for value in level for member in _list_members(value)]
        if not level:
            check_vertices(geometries)
            return
    raise _too_complex(f"it is nested more than {MOST_DEPTH} deep")


def check_vertices(geometry: Any) -> None:
    """Refuse a GeoJSON geometry with too many vertices, or nested too deeply to be one."""
    level = [geometry]
    for _ in range(MOST_DEPTH):
        level = [member for value in level for member in _list_members(value)]
        # A vertex has two or three numbers.
        if len(level) > 3 * MOST_VERTICES:
            raise RequestInvalid(f"The geometry has more than {MOST_VERTICES} vertices. Simplify it.")
        if not level:
            return
    raise RequestInvalid("The geometry is not a valid GeoJSON geometry: it is nested too deeply.")


def _is_geometry(value: Any) -> bool:
    return isinstance(value, Mapping) and ("coordinates" in value or "geometries" in value)


def _list_members(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_complex(reason: str) -> RequestInvalid:
    return RequestInvalid(f"The filter is too complex: {reason}. Make it shorter, or send several searches.")
