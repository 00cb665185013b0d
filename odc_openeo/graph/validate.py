"""Validate process graphs: every error at once, each with its code and the node that has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from odc_openeo.cube import LabeledArray
from odc_openeo.errors import (
    OpenEOError,
    ProcessParameterInvalid,
    ProcessParameterMissing,
    ProcessParameterRequired,
    ProcessParameterUnsupported,
    ProcessUnsupported,
)
from odc_openeo.graph.definitions import Definition, Lookup
from odc_openeo.graph.parse import Graph, Limits, Node, parse
from odc_openeo.process import PROCESSES, Parameter, Process

_SIMPLE = (bool, int, float, str, type(None))


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


def check_value(process: Process | Definition, name: str, value: Any) -> None:
    """Check a JSON value that came out of the graph against the schema of the parameter it goes to.

    Raises:
        ProcessParameterInvalid: it doesn't fit. Cubes and child processes are left to the process.
    """
    if not isinstance(value, _SIMPLE):
        return
    reason = _mismatch(process.parameters[name], value)
    if reason:
        raise ProcessParameterInvalid(process=process.id, parameter=name, reason=reason)


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
    reason = _reference_mismatch(graph, parameter, value) if refers else _constant_mismatch(parameter, value)
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
    given, wanted = _kinds(found.returns), _kinds(parameter.schema)
    if given is None or wanted is None or given & wanted or "datacube" in given:
        return None
    return f"it must be {_list(wanted)}, but '{source.process_id}' returns {_list(given)}."


def _kinds(schema: Any) -> set[str] | None:
    """The kinds of values that a schema accepts, None if any."""
    kinds: set[str] = set()
    for alternative in schema if isinstance(schema, list) else [schema]:
        types = alternative.get("type")
        if types is None:
            return None
        if str(alternative.get("subtype", "")).endswith("cube"):
            types = "datacube"
        kinds |= {types} if isinstance(types, str) else set(types)
    return kinds | {"integer"} if "number" in kinds else kinds | {"number"} if "integer" in kinds else kinds


def _constant_mismatch(parameter: Parameter, value: Any) -> str | None:
    if isinstance(value, Graph):
        return None if _takes_child(parameter) else "it does not take a child process."
    if isinstance(value, Mapping) and any(isinstance(v, Graph) for v in value.values()):
        return None
    return _mismatch(parameter, value)


def _takes_child(parameter: Parameter) -> bool:
    return parameter.child is not None or any("type" not in s for s in parameter.alternatives)


def _mismatch(parameter: Parameter, value: Any) -> str | None:
    """Why a JSON value does not fit the schema of the parameter, None if it does."""
    if isinstance(value, LabeledArray) or (
        value is None and parameter.optional and parameter.default is None
    ):
        return None
    alternatives = parameter.alternatives
    if isinstance(value, Mapping) and _only_opaque(alternatives):
        return f"it must be {_subtypes(alternatives)}, not a JSON object. Refer to a node with 'from_node'."
    errors = list(parameter.validator.iter_errors(value))
    if not errors:
        return None
    return _explain(errors[0], value, alternatives)


def _explain(error: Any, value: Any, alternatives: list[dict[str, Any]]) -> str:
    deepest = max(error.context, key=lambda e: len(e.absolute_path), default=None) if error.context else None
    if deepest is not None and deepest.absolute_path:
        error = deepest
    if error.validator == "anyOf":
        kinds = _kinds(alternatives) or set()
        return f"it must be {_list(kinds)}; {_short(value)} is none of them."
    where = "".join(f"[{p!r}]" for p in error.absolute_path)
    message = error.message if len(error.message) < 300 else f"{error.message[:300]}…"
    return f"{where}: {message}." if where else f"{message}."


def _only_opaque(alternatives: list[dict[str, Any]]) -> bool:
    objects = [s for s in alternatives if _fits_type(s, "object")]
    return bool(objects) and all(_is_opaque(s) for s in objects)


def _is_opaque(schema: Mapping[str, Any]) -> bool:
    """Whether a value of this schema can come only from another process, never from JSON."""
    subtype = str(schema.get("subtype", ""))
    return subtype.endswith("cube") or subtype in {"process-graph", "ml-model"}


def _fits_type(schema: Mapping[str, Any], type_: str) -> bool:
    types = schema.get("type", type_)
    return type_ == types or (isinstance(types, list) and type_ in types)


def _subtypes(alternatives: list[dict[str, Any]]) -> str:
    names = {"process-graph": "a child process", "ml-model": "a model"}
    found = dict.fromkeys(
        names.get(s.get("subtype", ""), "a data cube") for s in alternatives if _is_opaque(s)
    )
    return " or ".join(found)


def _list(kinds: set[str]) -> str:
    names = {"datacube": "a data cube", "integer": None, "object": "an object", "array": "an array"}
    shown = [n for n in (names.get(k, k if k == "null" else f"a {k}") for k in sorted(kinds)) if n]
    return " or ".join(shown) or "an integer"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
