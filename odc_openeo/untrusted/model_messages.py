"""Describe in plain words why a document does not fit a pydantic model, without the names of its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from odc_openeo.untrusted.schema_messages import shorten_value

MOST_FAULTS: Final = 3
"""Faults that a message reports."""

_KINDS: Final = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "mapping_type": "an object",
    "list_type": "an array",
    "tuple_type": "an array",
    "set_type": "an array",
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "none_required": "null",
}
"""The expected kind of value, by pydantic's type of fault: the value is of another kind as a whole."""

_PATTERNS: Final = {
    r"^\w+$": "letters, digits and underscores only",
    r"^[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-\[\]_a-z~%]*$": "a URL such as https://example.org",
}

Path = tuple[int | str, ...]
Fault = Mapping[str, Any]


def describe_model_faults(error: ValidationError, document: Any) -> str:
    """Describe the first faults of a document with their locations, as sentences without the last period.

    Where the model has alternatives, the one that the document comes closest to is described.
    """
    located: dict[Path, list[Fault]] = {}
    for details in error.errors(include_url=False):
        fault: Fault = dict(details)
        located.setdefault(_locate(fault, document), []).append(fault)
    paths = [path for path in located if not _is_explained_inside(path, located)]
    return "; ".join(_describe_path(path, located[path]) for path in paths[:MOST_FAULTS])


def _locate(fault: Fault, document: Any) -> Path:
    """The path of a fault in the document: without the names that pydantic gives alternatives."""
    path: list[int | str] = []
    value = document
    for part in fault["loc"]:
        is_member = isinstance(value, Mapping) and part in value
        is_element = isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int)
        if is_member or (is_element and int(part) < len(value)):
            value = value[part]
            path.append(part)
    if fault["type"] == "missing":
        path.append(fault["loc"][-1])
    return tuple(path)


def _is_explained_inside(path: Path, located: Mapping[Path, Sequence[Fault]]) -> bool:
    """Whether a value is of the wrong kind for some alternatives, and has faults inside for others."""
    is_kind = all(fault["type"] in _KINDS for fault in located[path])
    return is_kind and any(inner != path and inner[: len(path)] == path for inner in located)


def _describe_path(path: Path, faults: Sequence[Fault]) -> str:
    where = f"'{'.'.join(map(str, path))}'" if path else "it"
    kinds = dict.fromkeys(_KINDS[fault["type"]] for fault in faults if fault["type"] in _KINDS)
    specific = [fault for fault in faults if fault["type"] not in _KINDS]
    if not specific:
        return f"{where} must be {' or '.join(kinds)}, not {shorten_value(faults[0]['input'])}"
    return f"{where} {_describe_fault(specific[0])}"


def _describe_fault(fault: Fault) -> str:
    kind, context = fault["type"], fault.get("ctx") or {}
    shown = shorten_value(fault["input"])
    if kind == "missing":
        return "is missing"
    if kind == "string_pattern_mismatch":
        rule = _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
        return f"must be {rule}, not {shown}"
    if kind in ("literal_error", "enum"):
        return f"must be one of {context['expected']}, not {shown}"
    message = re.sub(r"^(Value|Assertion) error, ", "", fault["msg"])
    message = re.sub(r"^(Input|Value|String|List|Dictionary) should ", "must ", message)
    if message.startswith("must be "):
        return f"{message}, not {shown}"
    return message if message.startswith(("must ", "is ", "contains ")) else f"is not valid: {message}"
