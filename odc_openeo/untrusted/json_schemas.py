"""Compiled JSON Schemas of parameters: a fast test that most values pass, jsonschema for all others."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Make a module unavailable to what is imported meanwhile, unless it is imported already."""
    absent = module not in sys.modules
    if absent:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[module]


# jsonschema looks for the grammar of URIs, which takes more than a second to compile, a quarter of the time
# that one of our processes needs to start. No schema of ours checks the format of a string.
with _without("rfc3987_syntax"):
    from jsonschema import Draft7Validator, ValidationError
    from jsonschema.validators import extend

Match = Callable[[Any], bool]
"""True if a value certainly matches a schema; False if it does not, or if this is undecided."""

SCALARS: Final[frozenset[type]] = frozenset({bool, int, float, str, type(None)})
"""The Python types of scalar JSON values."""

SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**63 - 1

_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "boolean": frozenset({bool}),
    "string": frozenset({str}),
    "null": frozenset({type(None)}),
}
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "subtype", "examples", "default", "deprecated", "dimensions"}
)


def make_validator(schema: Any) -> Draft7Validator:
    """Make the validator of a schema, or of a list of alternatives."""
    return _Validator({"anyOf": schema} if isinstance(schema, list) else schema)


def compile_match(schema: Any, *, exact: bool) -> Match:
    """Make the fast test for a schema, or for a list of alternatives.

    With ``exact``, numbers must be finite and integers must fit into 64 bits.
    """
    alternatives = [_compile_schema(one, exact) for one in (schema if isinstance(schema, list) else [schema])]
    if len(alternatives) == 1:
        return alternatives[0]
    return lambda value: any(match(value) for match in alternatives)


def is_exact(value: Any) -> bool:
    """Whether a value is not a number, is a finite float, or is an integer that fits into 64 bits."""
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is not int or SMALLEST_INTEGER <= value <= LARGEST_INTEGER


def _compile_schema(schema: Mapping[str, Any], exact: bool) -> Match:
    keywords = {name: value for name, value in schema.items() if name not in _ANNOTATIONS}
    names = keywords.pop("type", None)
    if keywords.keys() == {"enum"}:
        strings = frozenset(v for v in keywords["enum"] if isinstance(v, str))
        return lambda value: type(value) is str and value in strings
    if names == "array" and keywords.keys() <= {"items", "minItems", "maxItems"}:
        return _compile_array(keywords, exact)
    if keywords.keys() - {"minimum", "maximum"}:
        return _match_nothing
    return _compile_scalar(_types_of(names), keywords, exact)


def _compile_scalar(types: frozenset[type], bounds: Mapping[str, Any], exact: bool) -> Match:
    if not bounds and not exact:
        return lambda value: type(value) in types
    low, high = bounds.get("minimum", -math.inf), bounds.get("maximum", math.inf)

    def match(value: Any) -> bool:
        if type(value) not in types or (exact and not is_exact(value)):
            return False
        return type(value) in (str, bool, type(None)) or low <= value <= high

    return match


def _compile_array(keywords: Mapping[str, Any], exact: bool) -> Match:
    items = keywords.get("items", {})
    fewest, most = keywords.get("minItems", 0), keywords.get("maxItems", math.inf)
    types = _types_of(items.get("type"))
    simple = not exact and items.keys() <= _ANNOTATIONS | {"type"} and items.get("type") != "array"
    element = _compile_schema(items, exact)

    def match(value: Any) -> bool:
        if type(value) is not list or not fewest <= len(value) <= most:
            return False
        return set(map(type, value)) <= types if simple else all(map(element, value))

    return match


def _types_of(names: Any) -> frozenset[type]:
    if names is None:
        return SCALARS
    return frozenset().union(
        *(_TYPES.get(name, ()) for name in ([names] if isinstance(names, str) else names))
    )


def _match_nothing(value: Any) -> bool:
    return False


def _check_unique(
    validator: Any, unique: bool, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Replace jsonschema's ``uniqueItems`` check, which can take quadratic time."""
    if unique and validator.is_type(instance, "array"):
        keys = list(map(_make_key, instance))
        if len(set(keys)) < len(keys):
            yield ValidationError("its elements must be unique")


def _make_key(value: Any) -> Any:
    """Make a hashable key that is equal only for equal JSON values."""
    if isinstance(value, Mapping):
        return ("object", frozenset((name, _make_key(v)) for name, v in value.items()))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ("array", *map(_make_key, value))
    return (isinstance(value, bool), value)


_Validator: Final = extend(Draft7Validator, {"uniqueItems": _check_unique})
