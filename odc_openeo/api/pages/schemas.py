"""Short descriptions of the JSON Schemas of parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

MAX_VALUES: Final = 40


def describe_type(schema: Any) -> str:
    """Describe the type, such as ``array of number or null``; alternatives are separated by ``or``."""
    alternatives = schema if isinstance(schema, list) else schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(describe_type(alternative) for alternative in alternatives))
    if "subtype" in schema:
        return _describe_subtype(schema)
    types = schema.get("type", "any")
    names = types if isinstance(types, list) else [types]
    return " or ".join(_describe_named_type(name, schema) for name in names)


def _describe_named_type(name: str, schema: Mapping[str, Any]) -> str:
    items = schema.get("items")
    if name != "array" or not isinstance(items, Mapping) or not items:
        return name
    inner = describe_type(items)
    return f"array of ({inner})" if " or " in inner else f"array of {inner}"


def _describe_subtype(schema: Mapping[str, Any]) -> str:
    subtype = str(schema["subtype"])
    if subtype == "process-graph":
        names = ", ".join(p["name"] for p in schema.get("parameters", ()))
        returned = schema.get("returns", {}).get("schema", {})
        return f"process ({names}) → {describe_type(returned) if returned else 'any'}"
    if subtype == "datacube" and schema.get("dimensions"):
        kinds = ", ".join(str(d.get("type")) for d in schema["dimensions"])
        return f"datacube ({kinds})"
    return subtype


def list_values(schema: Any) -> list[str]:
    """List the allowed values as JSON; empty if the schema does not enumerate them."""
    alternatives = schema if isinstance(schema, list) else [schema]
    values = [json.dumps(v, ensure_ascii=False) for s in alternatives for v in s.get("enum", ())]
    return [*values[:MAX_VALUES], *(["…"] if len(values) > MAX_VALUES else [])]
