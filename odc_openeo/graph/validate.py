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
from odc_openeo.graph.model import Definition, Graph, Node
from odc_openeo.registry.process import PROCESSES, Parameter, Process


def find_process(id_: str, namespace: str | None) -> Process:
    """The registered process, else `ProcessUnsupported`."""
    if namespace in (None, "backend") and id_ in PROCESSES:
        return PROCESSES[id_]
    raise ProcessUnsupported(process=id_, namespace=namespace or "backend")


def get_process(node: Node) -> Process | Definition:
    """The process that a node calls, else `ProcessUnsupported`."""
    return node.definition or find_process(node.process_id, node.namespace)


def find_problems(graph: Graph, parameters: Mapping[str, Any]) -> Iterator[OpenEOError]:
    """The errors of a parsed graph whose outer parameters are named in ``parameters``."""
    yield from _check_graph(graph, frozenset(parameters), "")


def _check_graph(graph: Graph, outer_names: frozenset[str], path: str) -> Iterator[OpenEOError]:
    names = outer_names | {str(p.get("name")) for p in graph.parameters}
    for node in graph.nodes.values():
        for error in _check_node(graph, node, names, f"{path}{node.id}"):
            if error.node is None:
                error.node = f"{path}{node.id}"
            yield error


def _check_node(graph: Graph, node: Node, names: frozenset[str], path: str) -> Iterator[OpenEOError]:
    try:
        process = get_process(node)
    except ProcessUnsupported as error:
        yield error
        return
    yield from _check_names(process, node)
    for parameter in process.parameters.values():
        if parameter.name in node.arguments:
            yield from _check_argument(graph, process, parameter, node, names, path)
        elif not parameter.optional:
            yield ProcessParameterRequired(process=process.id, parameter=parameter.name)
    if isinstance(process, Process):
        yield from _check_constants(process, node)
    if isinstance(process, Definition):
        yield from _check_graph(process.graph, frozenset(process.parameters), f"{path}.")


def _check_names(process: Process | Definition, node: Node) -> Iterator[OpenEOError]:
    """The errors of arguments that a process does not have."""
    foreign = process.foreign if isinstance(process, Process) else {}
    for name in node.arguments.keys() - process.parameters.keys():
        if name in foreign and foreign[name] is None:
            continue
        advice = foreign.get(name) or f"It has: {', '.join(process.parameters) or 'no parameters'}."
        yield ProcessParameterUnsupported(process=process.id, parameter=name, advice=advice)


def _check_constants(process: Process, node: Node) -> Iterator[OpenEOError]:
    """The error that the rule of a process finds in the constant arguments of the right form."""
    if process.check is None:
        return
    constants = {
        name: node.arguments.get(name, parameter.default)
        for name, parameter in process.parameters.items()
        if (node.is_constant(name) if name in node.arguments else parameter.optional)
    }
    try:
        if not any(find_mismatch(process.parameters[name], value) for name, value in constants.items()):
            process.check(constants)
    except OpenEOError as error:
        yield error


def _check_argument(
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
    for child, schema in _list_children(parameter, value):
        names = {p["name"] for p in (schema or {}).get("parameters", ())}
        yield from _check_graph(child, known | names, f"{path}.")
    refers = bool(node.uses[parameter.name] or node.parameters[parameter.name])
    reason = _reference_mismatch(graph, parameter, value) if refers else find_mismatch(parameter, value)
    if reason:
        yield ProcessParameterInvalid(process=process.id, parameter=parameter.name, reason=reason)


def _list_children(parameter: Parameter, value: Any) -> Iterator[tuple[Graph, Mapping[str, Any] | None]]:
    """The child graphs in an argument, with the schema that says which parameters they are given."""
    if isinstance(value, Graph):
        yield value, parameter.child_schema
    elif isinstance(value, Mapping):
        inner = [
            s["additionalProperties"] for s in parameter.alternatives if s.get("subtype") == "metadata-filter"
        ]
        for item in value.values():
            if isinstance(item, Graph):
                yield item, inner[0] if inner else None


def _reference_mismatch(graph: Graph, parameter: Parameter, value: Any) -> str | None:
    """Explain why the value of the node referred to cannot fit the parameter, if that is certain."""
    if not (isinstance(value, Mapping) and len(value) == 1 and isinstance(value.get("from_node"), str)):
        return None
    source = graph.nodes.get(value["from_node"])
    source_process = PROCESSES.get(source.process_id) if source else None
    if source is None or source_process is None or source.definition:
        return None
    returned, accepted = list_kinds(source_process.returns), list_kinds(parameter.accepted)
    if returned is None or accepted is None or returned & accepted or "datacube" in returned:
        return None
    returns = describe_kinds(returned)
    return f"it must be {describe_kinds(accepted)}, but '{source.process_id}' returns {returns}."
