"""JSON Schemas of parameters in a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

MOST_VALUES: Final = 40


def type_text(schema: Any) -> str:
    """The type, such as ``array of numbers, or null``; alternatives are separated by ``or``."""
    alternatives = schema if isinstance(schema, list) else schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(type_text(each) for each in alternatives))
    if "subtype" in schema:
        return _subtype(schema)
    types = schema.get("type", "any")
    names = types if isinstance(types, list) else [types]
    return " or ".join(_name(name, schema) for name in names)


def _name(name: str, schema: Mapping[str, Any]) -> str:
    items = schema.get("items")
    if name != "array" or not isinstance(items, Mapping) or not items:
        return name
    inner = type_text(items)
    return f"array of ({inner})" if " or " in inner else f"array of {inner}"


def _subtype(schema: Mapping[str, Any]) -> str:
    subtype = str(schema["subtype"])
    if subtype == "process-graph":
        names = ", ".join(p["name"] for p in schema.get("parameters", ()))
        returned = schema.get("returns", {}).get("schema", {})
        return f"process ({names}) → {type_text(returned) if returned else 'any'}"
    if subtype == "datacube" and schema.get("dimensions"):
        kinds = ", ".join(str(d.get("type")) for d in schema["dimensions"])
        return f"datacube ({kinds})"
    return subtype


def values_text(schema: Any) -> list[str]:
    """The values that are allowed, as JSON; empty if they are not listed."""
    alternatives = schema if isinstance(schema, list) else [schema]
    values = [json.dumps(v, ensure_ascii=False) for s in alternatives for v in s.get("enum", ())]
    return [*values[:MOST_VALUES], *(["…"] if len(values) > MOST_VALUES else [])]
