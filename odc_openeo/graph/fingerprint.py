"""Fingerprints of process graphs: equal for graphs that compute the same, however they are written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from odc_openeo.graph.model import Definition, Graph, Node
from odc_openeo.graph.validate import get_process


def compute_fingerprint(graph: Graph) -> Any:
    """JSON that is equal for graphs that compute the same, with the stored processes that they call.

    None if the same graph may give different results: it loads what is outside of the catalogue, or does more
    than compute.
    """
    return _of_graph(graph) if _is_pure(graph) else None


def _is_pure(graph: Graph) -> bool:
    return all(_is_pure_node(node) for node in graph.nodes.values())


def _is_pure_node(node: Node) -> bool:
    process = get_process(node)
    pure = _is_pure(process.graph) if isinstance(process, Definition) else process.pure
    return pure and all(map(_is_pure, chain.from_iterable(node.children.values())))


def _of_graph(graph: Graph) -> Any:
    nodes = {id_: _of_node(node) for id_, node in graph.nodes.items()}
    return {"nodes": nodes, "result": graph.result, "parameters": _of_value(list(graph.parameters))}


def _of_node(node: Node) -> Any:
    definition = None if node.definition is None else _of_graph(node.definition.graph)
    arguments = {
        name: value if node.is_constant(name) else _of_value(value) for name, value in node.arguments.items()
    }
    return [node.process_id, node.namespace, definition, arguments]


def _of_value(value: Any) -> Any:
    if isinstance(value, Graph):
        return {"child": _of_graph(value)}
    if isinstance(value, Mapping):
        return {str(k): _of_value(v) for k, v in value.items()}
    return [_of_value(v) for v in value] if isinstance(value, list) else value
