"""JSON process graph → nodes, the edges between them and the child graphs in their arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError, ProcessGraphComplexity, ProcessGraphInvalid, ProcessGraphMissing
from odc_openeo.graph.definitions import Definition, Lookup, parameters
from odc_openeo.process import PROCESSES

NODE_KEYS = frozenset({"process_id", "namespace", "description", "arguments", "result"})


@dataclass(frozen=True)
class Limits:
    """How large a process graph may be: nodes in all (children included), and levels of children."""

    nodes: int = 10_000
    depth: int = 60

    @classmethod
    def from_config(cls, config: Config) -> Limits:
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
        return {name: frozenset(parameter_references(value)) for name, value in self.arguments.items()}

    @cached_property
    def children(self) -> Mapping[str, tuple[Graph, ...]]:
        """For each argument, the child graphs in it."""
        return {name: tuple(child_graphs(value)) for name, value in self.arguments.items()}

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


@dataclass
class _Parser:
    limits: Limits
    lookup: Lookup | None = None
    errors: list[OpenEOError] = field(default_factory=list)
    count: int = 0
    deepest: int = 0
    known: dict[tuple[str, str], Definition] = field(default_factory=dict)
    within: list[tuple[str, str]] = field(default_factory=list)

    def graph(self, process: Any, path: str, depth: int) -> Graph | None:
        nodes = self._nodes_of(process, path, depth)
        if nodes is None:
            return None
        parsed = {id_: self._node(id_, body, path, depth) for id_, body in nodes.items()}
        found = {id_: node for id_, node in parsed.items() if node is not None}
        self._check_references(found, nodes, path)
        result = self._result(nodes, path)
        self._check_cycles(found, path)
        return Graph(found, result, _declared(process))

    def _nodes_of(self, process: Any, path: str, depth: int) -> Mapping[str, Any] | None:
        self._descend(depth)
        if not isinstance(process, Mapping) or "process_graph" not in process:
            self._add(ProcessGraphMissing, path, None)
            return None
        nodes = process["process_graph"]
        if not isinstance(nodes, Mapping) or not nodes:
            self._add(ProcessGraphInvalid, path, "it must be an object with at least one node.")
            return None
        self._spend(len(nodes))
        return nodes

    def _descend(self, depth: int) -> None:
        self.deepest = max(self.deepest, depth)
        if depth > self.limits.depth:
            raise ProcessGraphComplexity(
                reason=f"child processes are nested over {self.limits.depth} levels deep. Flatten the graph."
            )

    def _spend(self, nodes: int) -> None:
        self.count += nodes
        if self.count > self.limits.nodes:
            raise ProcessGraphComplexity(
                reason=f"it has more than {self.limits.nodes} nodes. Split the work into several graphs."
            )

    def _node(self, id_: str, body: Any, path: str, depth: int) -> Node | None:
        where = f"{path}{id_}"
        if not isinstance(body, Mapping):
            self._add(
                ProcessGraphInvalid, where, "a node must be an object with 'process_id' and 'arguments'."
            )
            return None
        process_id, arguments = body.get("process_id"), body.get("arguments")
        if not isinstance(process_id, str) or not isinstance(arguments, Mapping):
            self._add(
                ProcessGraphInvalid, where, "a node needs 'process_id' (text) and 'arguments' (object)."
            )
            return None
        parsed = {name: self._argument(value, f"{where}.", depth) for name, value in arguments.items()}
        uses = {name: frozenset(references(value)) for name, value in parsed.items()}
        namespace = body.get("namespace")
        if namespace is not None and not isinstance(namespace, str):
            self._add(ProcessGraphInvalid, where, "'namespace' must be a text or null.")
            return None
        return Node(
            id_, process_id, namespace, parsed, uses, self._definition(process_id, namespace, where, depth)
        )

    def _definition(self, id_: str, namespace: str | None, where: str, depth: int) -> Definition | None:
        """The user-defined process that a node calls, None if it is none."""
        remote = bool(self.within) and self.within[-1][0] != "user"
        if self.lookup is None or namespace == "backend" or (remote and namespace in (None, "user")):
            # Whoever has written a remote process does not know those of the user.
            return None
        key = (namespace or "user", id_)
        if key in self.within:
            reason = f"the process '{id_}' calls itself. The predefined one has the namespace 'backend'."
            self._add(ProcessGraphInvalid, where, reason)
            return None
        if key in self.known:
            self._spend(self.known[key].weight)
            self._descend(depth + self.known[key].height)
            return self.known[key]
        try:
            told = self.lookup(id_, namespace)
        except OpenEOError as error:
            error.node = where
            self.errors.append(error)
            return None
        return None if told is None else self._define(key, told, where, depth)

    def _define(
        self, key: tuple[str, str], told: Mapping[str, Any], where: str, depth: int
    ) -> Definition | None:
        count, deepest = self.count, self.deepest
        self.deepest = depth
        self.within.append(key)
        graph = self.graph(told, f"{where}.", depth + 1)
        self.within.pop()
        height = self.deepest - depth
        self.deepest = max(self.deepest, deepest)
        if graph is None:
            return None
        declared = parameters(told.get("parameters"), sorted(free_parameters(graph)))
        self.known[key] = Definition(key[1], declared, graph, self.count - count, height)
        return self.known[key]

    def _argument(self, value: Any, path: str, depth: int) -> Any:
        """The argument with every child process in it parsed to a `Graph`."""
        if isinstance(value, Mapping):
            if "process_graph" in value:
                return self.graph(value, path, depth + 1)
            return {k: self._argument(v, path, depth) for k, v in value.items()}
        if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
            return [self._argument(v, path, depth) for v in value]
        return value

    def _check_references(self, found: Mapping[str, Node], nodes: Mapping[str, Any], path: str) -> None:
        for id_, node in found.items():
            for missing in sorted(node.dependencies - nodes.keys()):
                reason = f"'from_node' refers to '{missing}', which is no node beside it."
                self._add(ProcessGraphInvalid, f"{path}{id_}", reason)

    def _result(self, nodes: Mapping[str, Any], path: str) -> str:
        results = [
            id_ for id_, body in nodes.items() if isinstance(body, Mapping) and body.get("result") is True
        ]
        if len(results) == 1:
            return results[0]
        reason = (
            "no node has 'result': true; mark the one that gives the result."
            if not results
            else f"several nodes have 'result': true ({', '.join(results)}); mark one only."
        )
        self._add(ProcessGraphInvalid, path, reason)
        return ""

    def _check_cycles(self, nodes: Mapping[str, Node], path: str) -> None:
        waiting = {id_: set(node.dependencies & nodes.keys()) for id_, node in nodes.items()}
        users: dict[str, list[str]] = {}
        for id_, needed in waiting.items():
            for other in needed:
                users.setdefault(other, []).append(id_)
        ready = [id_ for id_, needed in waiting.items() if not needed]
        while ready:
            done = ready.pop()
            del waiting[done]
            for user in users.get(done, ()):
                waiting[user].discard(done)
                if not waiting[user]:
                    ready.append(user)
        if waiting:
            self._add(
                ProcessGraphInvalid,
                path,
                f"the nodes {', '.join(sorted(waiting)[:10])} wait for one another.",
            )

    def _add(self, error: type[OpenEOError], path: str, reason: str | None) -> None:
        node = path.rstrip(".") or None
        self.errors.append(error(reason=reason, node=node) if reason else error(node=node))


def parse(
    process: Any, limits: Limits | None = None, lookup: Lookup | None = None
) -> tuple[Graph | None, list[OpenEOError]]:
    """Parse a process (an object with ``process_graph``); returns the graph and all errors of structure.

    The graph is None if there is no way to make one, and is only good for further validation if there are
    errors. A graph over the limits is refused at once. ``lookup`` finds user-defined processes.

    Raises:
        ProcessGraphComplexity: there are too many nodes or too many levels of child processes.
    """
    parser = _Parser(limits or Limits(), lookup)
    graph = parser.graph(process, "", 0)
    return graph, parser.errors


def references(value: Any) -> Iterator[str]:
    """The ids of the nodes that an argument refers to; child graphs have nodes of their own."""
    if isinstance(value, Mapping):
        if isinstance(value.get("from_node"), str) and len(value) == 1:
            yield value["from_node"]
        else:
            for item in value.values():
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping | list):
                yield from references(item)


def parameter_references(value: Any) -> Iterator[str]:
    """The names of the parameters that an argument refers to, child graphs left out."""
    if isinstance(value, Mapping):
        if isinstance(value.get("from_parameter"), str) and len(value) == 1:
            yield value["from_parameter"]
        else:
            for item in value.values():
                yield from parameter_references(item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping | list):
                yield from parameter_references(item)


def child_graphs(value: Any) -> Iterator[Graph]:
    """The child graphs in an argument."""
    if isinstance(value, Graph):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from child_graphs(item)


def called(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph, of the graphs in it and of the definitions it calls."""
    for node in graph.nodes.values():
        yield node
        inner = [node.definition.graph] if node.definition else []
        for each in chain(inner, *node.children.values()):
            yield from called(each)


def free_parameters(graph: Graph) -> set[str]:
    """The names of the parameters that a graph, and the graphs in it, take from around it."""
    nodes = graph.nodes.values()
    direct = {name for node in nodes for used in node.parameters.values() for name in used}
    return direct.union(*(free_in_children(node) for node in nodes))


def free_in_children(node: Node) -> set[str]:
    """The parameters that the child graphs of a node take from around the node."""
    process = node.definition or PROCESSES.get(node.process_id)
    found: set[str] = set()
    for name, children in node.children.items():
        declared = process.parameters.get(name) if process else None
        given = {p["name"] for p in (declared and declared.child or {}).get("parameters", ())}
        for inner in children:
            found |= free_parameters(inner) - given
    return found


def _declared(process: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    declared = process.get("parameters")
    return tuple(p for p in declared if isinstance(p, Mapping)) if isinstance(declared, list) else ()
