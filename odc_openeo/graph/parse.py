"""Parse JSON process graphs into nodes, the edges between them and the child graphs in arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from odc_openeo.errors import OpenEOError, ProcessGraphComplexity, ProcessGraphInvalid, ProcessGraphMissing
from odc_openeo.graph.definitions import parse_parameters
from odc_openeo.graph.model import (
    Definition,
    Graph,
    GraphLimits,
    Lookup,
    Node,
    find_free_parameters,
    iterate_references,
)
from odc_openeo.registry.process import PROCESSES

NODE_KEYS = frozenset({"process_id", "namespace", "description", "arguments", "result"})


@dataclass
class _Parser:
    limits: GraphLimits
    lookup: Lookup | None = None
    errors: list[OpenEOError] = field(default_factory=list)
    count: int = 0
    deepest: int = 0
    definitions: dict[tuple[str, str], Definition] = field(default_factory=dict)
    within: list[tuple[str, str]] = field(default_factory=list)

    def parse_graph(self, process: Any, path: str, depth: int) -> Graph | None:
        nodes = self._nodes_of(process, path, depth)
        if nodes is None:
            return None
        parsed = {id_: self._parse_node(id_, body, path, depth) for id_, body in nodes.items()}
        valid_nodes = {id_: node for id_, node in parsed.items() if node is not None}
        self._check_references(valid_nodes, nodes, path)
        result = self._find_result(nodes, path)
        self._check_cycles(valid_nodes, path)
        return Graph(valid_nodes, result, _list_declared(process))

    def _nodes_of(self, process: Any, path: str, depth: int) -> Mapping[str, Any] | None:
        self._check_depth(depth)
        if not isinstance(process, Mapping) or "process_graph" not in process:
            self._add_error(ProcessGraphMissing, path, None)
            return None
        nodes = process["process_graph"]
        if not isinstance(nodes, Mapping) or not nodes:
            self._add_error(ProcessGraphInvalid, path, "it must be an object with at least one node.")
            return None
        self._count_nodes(len(nodes))
        return nodes

    def _check_depth(self, depth: int) -> None:
        self.deepest = max(self.deepest, depth)
        if depth > self.limits.depth:
            raise ProcessGraphComplexity(
                reason=f"child processes are nested over {self.limits.depth} levels deep. Flatten the graph."
            )

    def _count_nodes(self, nodes: int) -> None:
        self.count += nodes
        if self.count > self.limits.nodes:
            raise ProcessGraphComplexity(
                reason=f"it has more than {self.limits.nodes} nodes. Split the work into several graphs."
            )

    def _parse_node(self, id_: str, body: Any, path: str, depth: int) -> Node | None:
        where = f"{path}{id_}"
        if not isinstance(body, Mapping):
            self._add_error(
                ProcessGraphInvalid, where, "a node must be an object with 'process_id' and 'arguments'."
            )
            return None
        process_id, arguments = body.get("process_id"), body.get("arguments")
        namespace = body.get("namespace")
        if not isinstance(process_id, str) or not isinstance(arguments, Mapping):
            self._add_error(
                ProcessGraphInvalid,
                where,
                "a node needs 'process_id' (a string) and 'arguments' (an object).",
            )
            return None
        if namespace is not None and not isinstance(namespace, str):
            self._add_error(ProcessGraphInvalid, where, "'namespace' must be a string or null.")
            return None
        definition = self._find_definition(process_id, namespace, where, depth)
        renamed = arguments if definition else _use_present_names(process_id, arguments)
        parsed = {name: self._parse_argument(value, f"{where}.", depth) for name, value in renamed.items()}
        uses = {name: frozenset(iterate_references(value)) for name, value in parsed.items()}
        return Node(
            id_,
            process_id,
            namespace,
            parsed,
            uses,
            definition,
        )

    def _find_definition(self, id_: str, namespace: str | None, where: str, depth: int) -> Definition | None:
        """The user-defined process that a node calls, None if it is none."""
        remote = bool(self.within) and self.within[-1][0] != "user"
        if self.lookup is None or namespace == "backend" or (remote and namespace in (None, "user")):
            # Whoever has written a remote process does not know those of the user.
            return None
        key = (namespace or "user", id_)
        if key in self.within:
            reason = f"the process '{id_}' calls itself. The predefined one has the namespace 'backend'."
            self._add_error(ProcessGraphInvalid, where, reason)
            return None
        if key in self.definitions:
            self._count_nodes(self.definitions[key].weight)
            self._check_depth(depth + self.definitions[key].height)
            return self.definitions[key]
        try:
            document = self.lookup(id_, namespace)
        except OpenEOError as error:
            error.node = where
            self.errors.append(error)
            return None
        return None if document is None else self._parse_definition(key, document, where, depth)

    def _parse_definition(
        self, key: tuple[str, str], document: Mapping[str, Any], where: str, depth: int
    ) -> Definition | None:
        count, deepest = self.count, self.deepest
        self.deepest = depth
        self.within.append(key)
        graph = self.parse_graph(document, f"{where}.", depth + 1)
        self.within.pop()
        height = self.deepest - depth
        self.deepest = max(self.deepest, deepest)
        if graph is None:
            return None
        declared = parse_parameters(document.get("parameters"), sorted(find_free_parameters(graph)))
        self.definitions[key] = Definition(key[1], declared, graph, self.count - count, height)
        return self.definitions[key]

    def _parse_argument(self, value: Any, path: str, depth: int) -> Any:
        """The argument with every child process in it parsed to a `Graph`."""
        if isinstance(value, Mapping):
            if "process_graph" in value:
                return self.parse_graph(value, path, depth + 1)
            return {k: self._parse_argument(v, path, depth) for k, v in value.items()}
        if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
            return [self._parse_argument(v, path, depth) for v in value]
        return value

    def _check_references(self, parsed: Mapping[str, Node], nodes: Mapping[str, Any], path: str) -> None:
        for id_, node in parsed.items():
            for missing in sorted(node.dependencies - nodes.keys()):
                reason = f"'from_node' refers to '{missing}', but the process graph has no such node."
                self._add_error(ProcessGraphInvalid, f"{path}{id_}", reason)

    def _find_result(self, nodes: Mapping[str, Any], path: str) -> str:
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
        self._add_error(ProcessGraphInvalid, path, reason)
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
            self._add_error(
                ProcessGraphInvalid,
                path,
                f"the nodes {', '.join(sorted(waiting)[:10])} form a cycle.",
            )

    def _add_error(self, error: type[OpenEOError], path: str, reason: str | None) -> None:
        node = path.rstrip(".") or None
        self.errors.append(error(reason=reason, node=node) if reason else error(node=node))


def parse_process(
    process: Any, limits: GraphLimits | None = None, lookup: Lookup | None = None
) -> tuple[Graph | None, list[OpenEOError]]:
    """Parse a process (an object with ``process_graph``); returns the graph and all errors of structure.

    The graph is None if there is no way to make one, and is only good for further validation if there are
    errors. A graph over the limits is refused at once. ``lookup`` finds user-defined processes.

    Raises:
        ProcessGraphComplexity: there are too many nodes or too many levels of child processes.
    """
    parser = _Parser(limits or GraphLimits(), lookup)
    graph = parser.parse_graph(process, "", 0)
    return graph, parser.errors


def _use_present_names(process_id: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give arguments with former names of parameters the names of today, unless these are there as well."""
    process = PROCESSES.get(process_id)
    former = {} if process is None else process.former_names
    return {
        name if former.get(name, name) in arguments else former[name]: value
        for name, value in arguments.items()
    }


def _list_declared(process: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    declared = process.get("parameters")
    return tuple(p for p in declared if isinstance(p, Mapping)) if isinstance(declared, list) else ()
