"""Find what keeps a job from being split, by what its processes say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from odc_openeo.graph.model import Graph, Node
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES, Process

USER_CODE: Final = "run_udf"
KNOWN_REACH: Final = frozenset({"apply_neighborhood"})
"""Processes whose blocks are the same in a part as in the whole, so that user code gets the same pixels."""


def find_obstacle(graph: Graph | None, env: Environment) -> str | None:
    """Return why a job is one part, as a plain sentence; None if nothing of it says so.

    ``env`` is the environment that its graph was evaluated in.
    """
    if graph is None:
        return None
    if len(env.outputs) > 1:
        return "It saves several results."
    if env.exports:
        return "It exports its results."
    if any(output.pieces for output in env.outputs):
        return "Each feature or tile of its result has files of its own."
    for node in _iterate_calls(graph):
        process = PROCESSES.get(node.process_id)
        if process is not None and node.definition is None and (reason := explain_whole(process)):
            return f"'{process.id}': {reason}."
    if _has_unbound_code(graph):
        return "User code may use any pixel, except in blocks of apply_neighborhood."
    return None


def explain_whole(process: Process) -> str | None:
    """Return why jobs with a process are one part: it says so, or nobody has said which pixels it needs."""
    if process.whole_because is not None:
        return process.whole_because
    if takes_raster(process) and process.needs is None and process.makes_raster and not is_load(process):
        return "which pixels it needs for a part of its result is not known"
    return None


def takes_raster(process: Process) -> bool:
    """Return whether a process takes a cube that may have pixels."""
    schemas = (s for p in process.parameters.values() for s in p.alternatives)
    cubes = [s for s in schemas if str(s.get("subtype", "")).endswith("cube")]
    return any({"type": "geometry"} not in s.get("dimensions", ()) for s in cubes)


def is_load(process: Process) -> bool:
    """Return whether a process brings cubes into a graph."""
    return "import" in process.categories


def _iterate_calls(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes.values():
        yield node
        for inner in _list_inner(node):
            yield from _iterate_calls(inner)


def _list_inner(node: Node) -> Iterable[Graph]:
    children = [child for graphs in node.children.values() for child in graphs]
    return [*children, node.definition.graph] if node.definition is not None else children


def _has_unbound_code(graph: Graph) -> bool:
    """Whether user code runs other than in blocks that are the same in each part."""
    for node in graph.nodes.values():
        if node.definition is None and node.process_id == USER_CODE:
            return True
        is_bound = node.definition is None and node.process_id in KNOWN_REACH
        if not is_bound and any(map(_has_unbound_code, _list_inner(node))):
            return True
    return False
