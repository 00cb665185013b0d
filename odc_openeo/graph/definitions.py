"""User-defined processes: a process graph that can be called like a process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from odc_openeo.process import OMITTED, Parameter

if TYPE_CHECKING:
    from odc_openeo.graph.parse import Graph

Lookup = Callable[[str, str | None], Mapping[str, Any] | None]
"""Finds what a user has defined by process id and namespace (null, ``user`` or an address)."""

CHECKED: Final = frozenset(
    {
        *("type", "subtype", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "required"),
    }
)
"""Keywords of users' schemas that arguments are checked with. Others can take forever or lead elsewhere."""

TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


@dataclass(frozen=True)
class Definition:
    """A user-defined process: its parameters by name, and the graph that runs.

    ``weight`` counts the nodes that a call evaluates, those of definitions that it calls included, and
    ``height`` the levels of graphs in graphs.
    """

    id: str
    parameters: Mapping[str, Parameter]
    graph: Graph
    weight: int
    height: int


def parameters(declared: Any, used: Iterable[str]) -> dict[str, Parameter]:
    """The parameters that a definition declares; if it says nothing of any, those that its graph uses."""
    if declared is None:
        return {name: Parameter(name, "", {}, OMITTED, True, False) for name in used}
    found = [p for p in declared if isinstance(p, Mapping) and isinstance(p.get("name"), str)]
    return {p["name"]: _parameter(p) for p in found}


def _parameter(told: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=told["name"],
        description=str(told.get("description") or ""),
        schema=_schema(told.get("schema")),
        default=told.get("default"),
        optional=bool(told.get("optional")) or "default" in told,
        deferred=False,
    )


def _schema(told: Any) -> Any:
    if isinstance(told, list):
        return [_alternative(each) for each in told] or {}
    return _alternative(told)


def _alternative(told: Any) -> dict[str, Any]:
    """What is safe to check of a schema; what makes no sense is left out."""
    if not isinstance(told, Mapping):
        return {}
    found = {name: value for name, value in told.items() if name in CHECKED and _sound(name, value)}
    inner = told.get("parameters")
    if told.get("subtype") == "process-graph" and isinstance(inner, list):
        found["parameters"] = [p for p in inner if isinstance(p, Mapping) and isinstance(p.get("name"), str)]
    return found


def _sound(name: str, value: Any) -> bool:
    if name == "type":
        types = value if isinstance(value, list) else [value]
        return bool(types) and all(isinstance(each, str) and each in TYPES for each in types)
    if name == "subtype":
        return isinstance(value, str)
    if name == "enum":
        return isinstance(value, list)
    if name == "required":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return name == "const" or (isinstance(value, int | float) and not isinstance(value, bool))
