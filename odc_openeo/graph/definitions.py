"""User-defined processes: a process graph that can be called like a process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from odc_openeo.registry.process import OMITTED, Parameter

CHECKED: Final = frozenset(
    {
        *("type", "subtype", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "required"),
    }
)
"""Keywords of users' schemas that arguments are checked with. Others may never terminate or fetch URLs."""

TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def parse_parameters(declared: Any, used: Iterable[str]) -> dict[str, Parameter]:
    """Parse the parameters that a definition declares; without a declaration, those that its graph uses."""
    if declared is None:
        return {name: Parameter(name, "", {}, OMITTED, True, False, is_predefined=False) for name in used}
    declarations = [p for p in declared if isinstance(p, Mapping) and isinstance(p.get("name"), str)]
    return {p["name"]: _parse_parameter(p) for p in declarations}


def _parse_parameter(declaration: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=declaration["name"],
        description=str(declaration.get("description") or ""),
        schema=_parse_schema(declaration.get("schema")),
        default=declaration.get("default"),
        optional=bool(declaration.get("optional")) or "default" in declaration,
        deferred=False,
        is_predefined=False,
    )


def _parse_schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_parse_alternative(alternative) for alternative in schema] or {}
    return _parse_alternative(schema)


def _parse_alternative(schema: Any) -> dict[str, Any]:
    """Keep the part of a schema that is safe to check; invalid keywords are dropped."""
    if not isinstance(schema, Mapping):
        return {}
    checked = {name: value for name, value in schema.items() if name in CHECKED and _is_sound(name, value)}
    inner = schema.get("parameters")
    if schema.get("subtype") == "process-graph" and isinstance(inner, list):
        checked["parameters"] = [
            p for p in inner if isinstance(p, Mapping) and isinstance(p.get("name"), str)
        ]
    return checked


def _is_sound(name: str, value: Any) -> bool:
    if name == "type":
        types = value if isinstance(value, list) else [value]
        return bool(types) and all(isinstance(name, str) and name in TYPES for name in types)
    if name == "subtype":
        return isinstance(value, str)
    if name == "enum":
        return isinstance(value, list)
    if name == "required":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return name == "const" or (isinstance(value, int | float) and not isinstance(value, bool))
