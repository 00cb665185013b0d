"""The parts of a parsed process graph, and walks over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from odc_openeo.config import Config
from odc_openeo.registry.process import PROCESSES, Parameter

Lookup = Callable[[str, str | None], Mapping[str, Any] | None]
"""Finds what a user has defined by process id and namespace (null, ``user`` or an address)."""


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


@dataclass(frozen=True)
class GraphLimits:
    """How large a process graph may be: nodes in all (children included), and levels of children."""

    nodes: int = 10_000
    depth: int = 60

    @classmethod
    def from_config(cls, config: Config) -> GraphLimits:
        """The limits that the operator has set."""
        return cls(nodes=config.max_graph_nodes, depth=config.max_graph_depth)


@dataclass(frozen=True)
class Node:
    """A call of a process: ``uses`` names, for each argument, the nodes it refers to.

    ``definition`` is there if the process is a user-defined one.
    """

    id: str
    process_id: str
    namespace: str | None
    arguments: Mapping[str, Any]
    uses: Mapping[str, frozenset[str]]
    definition: Definition | None = None

    @cached_property
    def dependencies(self) -> frozenset[str]:
        """All nodes this one refers to."""
        return frozenset().union(*self.uses.values())

    @cached_property
    def parameters(self) -> Mapping[str, frozenset[str]]:
        """For each argument, the parameters it refers to, child graphs left out."""
        return {
            name: frozenset(iterate_parameter_references(value)) for name, value in self.arguments.items()
        }

    @cached_property
    def children(self) -> Mapping[str, tuple[Graph, ...]]:
        """For each argument, the child graphs in it."""
        return {name: tuple(iterate_child_graphs(value)) for name, value in self.arguments.items()}

    def is_constant(self, name: str) -> bool:
        """Whether an argument is what it is: it refers to nothing and has no child graph."""
        return not (self.uses[name] or self.parameters[name] or self.children[name])


@dataclass(frozen=True)
class Graph:
    """A process graph: its nodes by id, the id of the result node. Child graphs are `Graph`s in arguments."""

    nodes: Mapping[str, Node]
    result: str
    parameters: tuple[Mapping[str, Any], ...] = ()

    @property
    def end_nodes(self) -> list[str]:
        """The nodes that no other node refers to."""
        used = (
            frozenset().union(*(n.dependencies for n in self.nodes.values())) if self.nodes else frozenset()
        )
        return [id_ for id_ in self.nodes if id_ not in used]


def iterate_references(value: Any) -> Iterator[str]:
    """The ids of the nodes that an argument refers to; child graphs have nodes of their own."""
    return _iterate_references(value, "from_node")


def iterate_parameter_references(value: Any) -> Iterator[str]:
    """The names of the parameters that an argument refers to, child graphs left out."""
    return _iterate_references(value, "from_parameter")


def _iterate_references(value: Any, member: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get(member), str) and len(value) == 1:
            yield value[member]
        else:
            for item in value.values():
                yield from _iterate_references(item, member)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping | list):
                yield from _iterate_references(item, member)


def iterate_child_graphs(value: Any) -> Iterator[Graph]:
    """The child graphs in an argument."""
    if isinstance(value, Graph):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from iterate_child_graphs(item)


def iterate_calls(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph, of the graphs in it and of the definitions it calls."""
    for node in graph.nodes.values():
        yield node
        inner = [node.definition.graph] if node.definition else []
        for graph_inside in chain(inner, *node.children.values()):
            yield from iterate_calls(graph_inside)


def find_free_parameters(graph: Graph) -> set[str]:
    """The names of the parameters that a graph, and the graphs in it, take from around it."""
    nodes = graph.nodes.values()
    direct = {name for node in nodes for used in node.parameters.values() for name in used}
    return direct.union(*(find_free_in_children(node) for node in nodes))


def find_free_in_children(node: Node) -> set[str]:
    """The parameters that the child graphs of a node take from around the node."""
    process = node.definition or PROCESSES.get(node.process_id)
    free: set[str] = set()
    for name, children in node.children.items():
        declared = process.parameters.get(name) if process else None
        passed = {p["name"] for p in (declared and declared.child_schema or {}).get("parameters", ())}
        for inner in children:
            free |= find_free_parameters(inner) - passed
    return free
