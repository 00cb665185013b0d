"""Validate process graphs: every error at once, each with its code and the node that has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from odc_openeo.errors import (
    OpenEOError,
    ProcessParameterInvalid,
    ProcessParameterMissing,
    ProcessParameterRequired,
    ProcessParameterUnsupported,
    ProcessUnsupported,
)
from odc_openeo.graph.arguments import describe_kinds, find_mismatch, list_kinds
from odc_openeo.graph.definitions import Definition, Lookup
from odc_openeo.graph.parse import Graph, Limits, Node, parse
from odc_openeo.process import PROCESSES, Parameter, Process


def validate(
    process: Any,
    parameters: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    lookup: Lookup | None = None,
) -> list[OpenEOError]:
    """All errors of a process (an object with ``process_graph``); an empty list if there are none.

    ``lookup`` finds user-defined processes.
    """
    try:
        graph, errors = parse(process, limits, lookup)
    except OpenEOError as error:
        return [error]
    told = {error.node for error in errors}
    found = problems(graph, parameters or {}) if graph else ()
    # Why a process can't be had was said already.
    return [*errors, *(e for e in found if not (isinstance(e, ProcessUnsupported) and e.node in told))]


def find_process(id_: str, namespace: str | None) -> Process:
    """The registered process, else `ProcessUnsupported`."""
    if namespace in (None, "backend") and id_ in PROCESSES:
        return PROCESSES[id_]
    raise ProcessUnsupported(process=id_, namespace=namespace or "backend")


def process_of(node: Node) -> Process | Definition:
    """The process that a node calls, else `ProcessUnsupported`."""
    return node.definition or find_process(node.process_id, node.namespace)


def problems(graph: Graph, parameters: Mapping[str, Any]) -> Iterator[OpenEOError]:
    """The errors of a parsed graph whose outer parameters are named in ``parameters``."""
    yield from _graph(graph, frozenset(parameters), "")


def _graph(graph: Graph, known: frozenset[str], path: str) -> Iterator[OpenEOError]:
    names = known | {str(p.get("name")) for p in graph.parameters}
    for node in graph.nodes.values():
        for error in _node(graph, node, names, f"{path}{node.id}"):
            if error.node is None:
                error.node = f"{path}{node.id}"
            yield error


def _node(graph: Graph, node: Node, known: frozenset[str], path: str) -> Iterator[OpenEOError]:
    try:
        process = process_of(node)
    except ProcessUnsupported as error:
        yield error
        return
    for name in node.arguments.keys() - process.parameters.keys():
        available = ", ".join(process.parameters) or "no parameters"
        yield ProcessParameterUnsupported(process=process.id, parameter=name, available=available)
    for parameter in process.parameters.values():
        if parameter.name in node.arguments:
            yield from _argument(graph, process, parameter, node, known, path)
        elif not parameter.optional:
            yield ProcessParameterRequired(process=process.id, parameter=parameter.name)
    if isinstance(process, Definition):
        yield from _graph(process.graph, frozenset(process.parameters), f"{path}.")


def _argument(
    graph: Graph,
    process: Process | Definition,
    parameter: Parameter,
    node: Node,
    known: frozenset[str],
    path: str,
) -> Iterator[OpenEOError]:
    value = node.arguments[parameter.name]
    for name in node.parameters[parameter.name]:
        if name not in known:
            yield ProcessParameterMissing(parameter=name)
    for child, schema in _children(parameter, value):
        names = {p["name"] for p in (schema or {}).get("parameters", ())}
        yield from _graph(child, known | names, f"{path}.")
    refers = bool(node.uses[parameter.name] or node.parameters[parameter.name])
    reason = _reference_mismatch(graph, parameter, value) if refers else find_mismatch(parameter, value)
    if reason:
        yield ProcessParameterInvalid(process=process.id, parameter=parameter.name, reason=reason)


def _children(parameter: Parameter, value: Any) -> Iterator[tuple[Graph, Mapping[str, Any] | None]]:
    """The child graphs in an argument, with the schema that says which parameters they are given."""
    if isinstance(value, Graph):
        yield value, parameter.child
    elif isinstance(value, Mapping):
        inner = [
            s["additionalProperties"] for s in parameter.alternatives if s.get("subtype") == "metadata-filter"
        ]
        for item in value.values():
            if isinstance(item, Graph):
                yield item, inner[0] if inner else None


def _reference_mismatch(graph: Graph, parameter: Parameter, value: Any) -> str | None:
    """Why the value of the node referred to can't fit the parameter, if that is certain."""
    if not (isinstance(value, Mapping) and len(value) == 1 and isinstance(value.get("from_node"), str)):
        return None
    source = graph.nodes.get(value["from_node"])
    found = PROCESSES.get(source.process_id) if source else None
    if source is None or found is None or source.definition:
        return None
    given, wanted = list_kinds(found.returns), list_kinds(parameter.schema)
    if given is None or wanted is None or given & wanted or "datacube" in given:
        return None
    return f"it must be {describe_kinds(wanted)}, but '{source.process_id}' returns {describe_kinds(given)}."
