"""Explain in plain words why a value does not fit a JSON Schema: which part, and what would be right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from odc_openeo.untrusted.json_schemas import ValidationError

LONGEST_VALUE: Final = 60
MOST_CHOICES: Final = 20

_TYPE_WORDS: Final = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "string": "a string",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
_PATTERN_WORDS: Final = {
    r"^\w+$": "consist of letters, digits and underscores only",
    r"^[\w\-\.~/]+$": "consist of letters, digits and the characters _ - . ~ / only",
    r"^[A-Za-z0-9_\-\.~/]+$": "consist of letters, digits and the characters _ - . ~ / only",
    r"^[\w\-\.~]+$": "consist of letters, digits and the characters _ - . ~ only",
    "^[^\r\n\\:'\"]+$": "be a path without line breaks, colons, quotes and backslashes",
    "^https?://": "begin with http:// or https://",
    r"^[A-Za-z_][\w.:-]{0,99}$": (
        "begin with a letter or _ and have at most 100 letters, digits and characters _ . : -"
    ),
    r"^\d{2}:\d{2}:\d{2}$": "be a time of day such as 13:30:00",
}
_SUBTYPE_WORDS: Final = {"duration": "be an ISO 8601 duration such as P1M, P10D or PT6H"}
_INTERVAL: Final = "temporal-interval"


def describe_schema_error(error: ValidationError) -> str:
    """Describe an error of jsonschema: where in the value it is, and what is expected there.

    Of alternatives, the one that the value comes closest to is explained.
    """
    error = _choose_branch(error)
    where = "".join(f"[{part!r}]" for part in error.absolute_path)
    return f"{where}: {_explain(error)}" if where else _explain(error)


def shorten_value(value: Any) -> str:
    """Write a JSON value as text of limited length; strings of their own in single quotes."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, TypeError):
        return "a value that can't be shown"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _choose_branch(error: ValidationError) -> ValidationError:
    """Return the error of the alternative that fits best, or the error itself if the type fits none."""
    while error.validator in ("anyOf", "oneOf") and error.context:
        branches: dict[Any, list[ValidationError]] = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        close = [faults for faults in branches.values() if not any(map(_is_of_other_kind, faults))]
        if not close:
            return error
        best = min(close, key=lambda faults: (-max(map(_measure_depth, faults)), len(faults)))
        error = max(best, key=_measure_depth)
    return error


def _is_of_other_kind(error: ValidationError) -> bool:
    """Whether the value as a whole is of another type than an alternative."""
    return error.validator == "type" and not error.relative_path


def _measure_depth(error: ValidationError) -> int:
    return len(error.absolute_path)


def _explain(error: Any) -> str:
    explain = _EXPLANATIONS.get(str(error.validator))
    if explain is not None:
        return explain(error)
    return (
        f"it must meet the rule '{error.validator}' of the schema; {shorten_value(error.instance)} does not"
    )


def _explain_type(error: Any) -> str:
    types = error.validator_value
    names = [types] if isinstance(types, str) else list(types)
    return (
        f"it must be {_list_types([{'type': names, **_get_subtype(error)}])}, not {_describe(error.instance)}"
    )


def _get_subtype(error: Any) -> Mapping[str, Any]:
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    return {"subtype": schema["subtype"]} if "subtype" in schema else {}


def _explain_alternatives(error: Any) -> str:
    return f"it must be {_list_types(error.validator_value)}, not {_describe(error.instance)}"


def _list_types(schemas: Iterable[Mapping[str, Any]]) -> str:
    words: dict[str, None] = {}
    for schema in schemas:
        if str(schema.get("subtype", "")).endswith("cube"):
            words["a data cube"] = None
            continue
        types = schema.get("type", ())
        words |= dict.fromkeys(_TYPE_WORDS.get(t, t) for t in ([types] if isinstance(types, str) else types))
    return join_words(list(words)) or "another kind of value"


def join_words(words: Sequence[str], last: str = "or") -> str:
    """Join words with commas and, before the last one, another word."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _describe(value: Any) -> str:
    names = {list: "the array", tuple: "the array", dict: "the object", str: "the string"}
    name = next((words for kind, words in names.items() if isinstance(value, kind)), None)
    return f"{name} {shorten_value(value)}" if name else shorten_value(value)


def _explain_enum(error: Any) -> str:
    choices = list(map(shorten_value, error.validator_value))
    shown = join_words(choices) if len(choices) <= MOST_CHOICES else f"{', '.join(choices[:MOST_CHOICES])} …"
    return f"it must be {'one of ' if len(choices) > 1 else ''}{shown}, not {shorten_value(error.instance)}"


def _explain_const(error: Any) -> str:
    return f"it must be {shorten_value(error.validator_value)}, not {shorten_value(error.instance)}"


def _make_bound(words: str) -> Callable[[Any], str]:
    def explain(error: Any) -> str:
        return f"it must be {words} {error.validator_value}, not {shorten_value(error.instance)}"

    return explain


def _make_count(words: str, unit: str) -> Callable[[Any], str]:
    def explain(error: Any) -> str:
        count, needed = len(error.instance), error.validator_value
        units = unit if needed == 1 else f"{unit}s"
        return f"it must have {words} {needed} {units}, and {shorten_value(error.instance)} has {count}"

    return explain


def _explain_pattern(error: Any) -> str:
    rule = _SUBTYPE_WORDS.get(str(_get_subtype(error).get("subtype")))
    rule = rule or _PATTERN_WORDS.get(error.validator_value, f"match the pattern {error.validator_value}")
    return f"{shorten_value(error.instance)} must {rule}"


def _explain_format(error: Any) -> str:
    return f"{shorten_value(error.instance)} is not a valid {error.validator_value}"


def _explain_unique(error: Any) -> str:
    if _get_subtype(error).get("subtype") == _INTERVAL and len(error.instance) == 2:
        both = shorten_value(error.instance[0])
        return f"the interval is empty: its end must be later than its start, and both are {both}"
    return f"its elements must be unique, and in {shorten_value(error.instance)} some are the same"


def _explain_required(error: Any) -> str:
    missing = [name for name in error.validator_value if name not in error.instance]
    return f"the member {join_words(list(map(shorten_value, missing)), 'and')} is missing"


def _explain_additional(error: Any) -> str:
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    allowed = list(schema.get("properties", ()))
    extra = [name for name in error.instance if name not in allowed]
    shown = join_words(list(map(shorten_value, extra[:MOST_CHOICES])), "and")
    return f"it has the member {shown}, and may have {join_words(allowed, 'and') or 'none'} only"


_EXPLANATIONS: Final[Mapping[str, Callable[[Any], str]]] = {
    "type": _explain_type,
    "anyOf": _explain_alternatives,
    "oneOf": _explain_alternatives,
    "enum": _explain_enum,
    "const": _explain_const,
    "minimum": _make_bound("at least"),
    "maximum": _make_bound("at most"),
    "exclusiveMinimum": _make_bound("greater than"),
    "exclusiveMaximum": _make_bound("less than"),
    "minLength": _make_count("at least", "character"),
    "maxLength": _make_count("at most", "character"),
    "minItems": _make_count("at least", "element"),
    "maxItems": _make_count("at most", "element"),
    "minProperties": _make_count("at least", "member"),
    "maxProperties": _make_count("at most", "member"),
    "pattern": _explain_pattern,
    "format": _explain_format,
    "uniqueItems": _explain_unique,
    "required": _explain_required,
    "additionalProperties": _explain_additional,
}
