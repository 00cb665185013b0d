"""Plan a process graph before evaluation: what each load must deliver, and which nodes are the same.

Nothing is read and no process is called; the plan is made of the graph and the rules beside the processes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from odc.geo.geobox import GeoBox

from odc_openeo.cube import is_cube
from odc_openeo.demand import ALL, UNKNOWN, Demand, Grid
from odc_openeo.graph.arguments import find_mismatch
from odc_openeo.graph.definitions import Definition
from odc_openeo.graph.parse import Graph, Node, free_in_children
from odc_openeo.process import PROCESSES, Process

LOAD: Final = "load_collection"

Edge = tuple[str, str]
"""A node and the argument by which it takes the value of another one."""


@dataclass(frozen=True)
class Plan:
    """What is known of a graph before it runs.

    ``demands``: the part of each node's value that the rest of the graph needs; ``edges``: the part that each
    argument needs; ``inputs``: the part of each parameter of the graph. ``twins``: for nodes that compute the
    same as an earlier one, the id of that one. ``leaders``: for nodes whose cube is put on the grid of
    another one from the start, the id of that one.
    """

    demands: Mapping[str, Demand] = field(default_factory=dict)
    edges: Mapping[Edge, Demand] = field(default_factory=dict)
    inputs: Mapping[str, Demand] = field(default_factory=dict)
    twins: Mapping[str, str] = field(default_factory=dict)
    leaders: Mapping[str, str] = field(default_factory=dict)

    def demand(self, id_: str) -> Demand:
        """What is needed of the value of a node."""
        return self.demands.get(id_, ALL)

    def edge(self, id_: str, argument: str) -> Demand:
        """What an argument of a node needs of the value that it refers to."""
        return self.edges.get((id_, argument), ALL)

    def original(self, id_: str) -> str:
        """The node that computes what this one computes."""
        return self.twins.get(id_, id_)


def make_plan(graph: Graph, parameters: Mapping[str, Any], demand: Demand = ALL) -> Plan:
    """The plan of a valid graph whose parameters have the given values, if ``demand`` is needed of it."""
    known = {**_defaults(graph), **parameters}
    order = list(topological(graph))
    twins = _twins(graph, order)
    return _Demands(graph, known, twins).plan(order, demand)


def seen(graph: Graph, parameters: Mapping[str, Any], demand: Demand) -> Demand:
    """The demand on a graph, without its view unless all cubes in it can be made on the pixels of that.

    Cubes that meet are on one grid then, in any case.
    """
    if demand.view is None:
        return demand
    return demand if _is_seen(graph, parameters, demand) else replace(demand, view=None)


def _is_seen(graph: Graph, parameters: Mapping[str, Any], demand: Demand) -> bool:
    plan = make_plan(graph, parameters, demand)
    walk = _Demands(graph, {**_defaults(graph), **parameters}, plan.twins)
    nodes = (node for id_, node in graph.nodes.items() if id_ not in plan.twins)
    return all(walk.sees(node, plan.demand(node.id)) for node in nodes)


def topological(graph: Graph) -> Iterator[str]:
    """The ids of the nodes, each after all it refers to."""
    done: set[str] = set()
    for start in graph.nodes:
        waiting = [start]
        while waiting:
            id_ = waiting[-1]
            missing = [d for d in graph.nodes[id_].dependencies if d not in done]
            if missing and id_ not in done:
                waiting.extend(missing)
                continue
            waiting.pop()
            if id_ not in done:
                done.add(id_)
                yield id_


def _defaults(graph: Graph) -> dict[str, Any]:
    return {p["name"]: p["default"] for p in graph.parameters if "name" in p and "default" in p}


# --- Demands -------------------------------------------------------------------------------------


@dataclass
class _Demands:
    """The walk from the end of a graph to its loads, collecting what is needed."""

    graph: Graph
    parameters: Mapping[str, Any]
    twins: Mapping[str, str]
    nodes: dict[str, Demand] = field(default_factory=dict)
    edges: dict[Edge, Demand] = field(default_factory=dict)
    inputs: dict[str, Demand] = field(default_factory=dict)
    sources: dict[str, frozenset[str]] = field(default_factory=dict)

    def plan(self, order: list[str], demand: Demand) -> Plan:
        """The plan of the graph whose nodes are in this order."""
        for id_ in self.graph.end_nodes:
            if id_ != self.graph.result:
                self._add(self.nodes, self.twins.get(id_, id_), ALL)
        self._add(self.nodes, self.twins.get(self.graph.result, self.graph.result), demand)
        for id_ in reversed(order):
            if id_ not in self.twins:
                self._pass_on(self.graph.nodes[id_], self.nodes.get(id_, ALL))
        leaders = _leaders(self.graph, self.nodes)
        return Plan(self.nodes, self.edges, self.inputs, self.twins, leaders)

    def _pass_on(self, node: Node, demand: Demand) -> None:
        """Add the demands of a node on what it refers to."""
        named = self._needs(node, demand)
        for name, value in node.arguments.items():
            needed = named.get(name, ALL)
            for used in node.uses[name]:
                part = needed if value == {"from_node": used} else ALL
                self.edges[node.id, name] = part
                self._add(self.nodes, self.twins.get(used, used), part)
            for used in node.parameters[name]:
                self._add(self.inputs, used, needed if value == {"from_parameter": used} else ALL)
        for used in free_in_children(node):
            self._add(self.inputs, used, ALL)

    def _needs(self, node: Node, demand: Demand) -> Mapping[str, Demand]:
        arguments = self._constants(node)
        if node.definition is not None:
            return self._of_definition(node.definition, demand, arguments)
        process = _predefined(node)
        if process is None or process.needs is None:
            return {}
        found = _signed(process.needs(demand, arguments), node.id)
        found = _viewed(found, demand.view if process.pointwise else None)
        if len(self._sources(node)) == 1:
            found = {name: part.alone(demand) for name, part in found.items()}
        return {} if self._is_open(node, arguments, found) else found

    def _sources(self, node: Node) -> frozenset[str]:
        """Where the cubes that a node takes come from, as far as can be told: nodes and parameters."""
        if node.id not in self.sources:
            found = {f"{name}()" for names in node.parameters.values() for name in names}
            for used in node.dependencies:
                found |= self._origin(self.graph.nodes[self.twins.get(used, used)])
            self.sources[node.id] = frozenset(found)
        return self.sources[node.id]

    def _origin(self, node: Node) -> frozenset[str]:
        process = _predefined(node)
        passes_on = process is not None and process.needs is not None
        return self._sources(node) if passes_on else frozenset({node.id})

    def sees(self, node: Node, demand: Demand) -> bool:
        """Whether a node makes its cube on the pixels of a view, or makes no cube of pixels."""
        if node.definition is not None:
            arguments = self._constants(node)
            return demand.view is not None and _is_seen(node.definition.graph, arguments, demand)
        process = PROCESSES[node.process_id]
        if not process.makes_raster:
            return True
        return demand.view is not None and (process.in_view or process.pointwise)

    def _of_definition(
        self, definition: Definition, demand: Demand, arguments: Mapping[str, Any]
    ) -> Mapping[str, Demand]:
        # A grid is counted from that of a load, and the plan of a definition does not know others.
        inner = make_plan(definition.graph, arguments, replace(demand, grid=None))
        return {name: replace(part, grid=None) for name, part in inner.inputs.items()}

    def _constants(self, node: Node) -> dict[str, Any]:
        """The arguments that are known now (constants, parameters with a value, child graphs), else
        `UNKNOWN`."""
        return {name: self._constant(node, name, value) for name, value in node.arguments.items()}

    def _constant(self, node: Node, name: str, value: Any) -> Any:
        if isinstance(value, Graph) or not (node.uses[name] or node.parameters[name]):
            return value
        if len(value) == 1 and isinstance(value, Mapping) and value.get("from_parameter") in self.parameters:
            found = self.parameters[value["from_parameter"]]
            return found if _is_json(found) and _fits(node, name, found) else UNKNOWN
        return UNKNOWN

    def _is_open(self, node: Node, arguments: Mapping[str, Any], named: Mapping[str, Demand]) -> bool:
        """Whether a child process may meet cubes that the rule of its process does not speak of."""
        if not any(node.children.values()):
            return False
        if any(value is UNKNOWN and name not in named for name, value in arguments.items()):
            return True
        return any(not _is_json(self.parameters.get(p, UNKNOWN)) for p in free_in_children(node))

    @staticmethod
    def _add(demands: dict[str, Demand], key: str, demand: Demand) -> None:
        demands[key] = demands[key].union(demand) if key in demands else demand


def _predefined(node: Node) -> Process | None:
    return None if node.definition else PROCESSES.get(node.process_id)


def _signed(demands: Mapping[str, Demand], id_: str) -> Mapping[str, Demand]:
    """The demands of a node, with its id in a grid that it asks for."""

    def signed(demand: Demand) -> Demand:
        grid = demand.grid
        return demand if grid is None or grid.node else replace(demand, grid=replace(grid, node=id_))

    return {name: signed(demand) for name, demand in demands.items()}


def _viewed(demands: Mapping[str, Demand], view: GeoBox | None) -> Mapping[str, Demand]:
    """Demands with a view, but for those on all of a cube."""
    return {name: replace(d, view=None if d.boxes is None else view) for name, d in demands.items()}


def _fits(node: Node, name: str, value: Any) -> bool:
    """Whether a value is right for an argument: rules of processes take no others."""
    process = node.definition or PROCESSES.get(node.process_id)
    declared = process.parameters.get(name) if process else None
    return declared is None or find_mismatch(declared, value) is None


def _is_json(value: Any) -> bool:
    # A Dataset is a Mapping.
    if isinstance(value, Mapping) and not is_cube(value):
        return all(map(_is_json, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, bool | int | float | str)


# --- Grids ---------------------------------------------------------------------------------------


def _leaders(graph: Graph, demands: dict[str, Demand]) -> dict[str, str]:
    """The loads that follow others onto their grid; a grid that not exactly one load leads is given up."""
    asked: dict[Grid, list[str]] = {}
    for id_, demand in demands.items():
        if demand.grid is not None and graph.nodes[id_].process_id == LOAD:
            asked.setdefault(replace(demand.grid, leads=True), []).append(id_)
    leaders: dict[str, str] = {}
    for ids in asked.values():
        leading = [id_ for id_ in ids if (grid := demands[id_].grid) is not None and grid.leads]
        independent = not any(graph.nodes[id_].dependencies for id_ in ids)
        if len(leading) == 1 and independent:
            leaders |= {id_: leading[0] for id_ in ids if id_ != leading[0]}
        else:
            for id_ in ids:
                demands[id_] = replace(demands[id_], grid=None)
    return leaders


# --- Nodes that are the same ---------------------------------------------------------------------


def _twins(graph: Graph, order: list[str]) -> dict[str, str]:
    twins: dict[str, str] = {}
    first: dict[str, str] = {}
    often = Counter(node.process_id for node in graph.nodes.values())
    for id_ in order:
        node = graph.nodes[id_]
        process = _predefined(node)
        if process is None or not process.pure or often[node.process_id] == 1:
            continue
        key = json.dumps([node.process_id, _canonical(node.arguments, twins)], sort_keys=True)
        if first.setdefault(key, id_) != id_:
            twins[id_] = first[key]
    return twins


def _canonical(value: Any, twins: Mapping[str, str]) -> Any:
    """An argument in which equal things are written alike: references lead to the original nodes."""
    if isinstance(value, Graph):
        nodes = {
            id_: [n.process_id, n.namespace, _canonical(n.arguments, {})] for id_, n in value.nodes.items()
        }
        return {"child": nodes, "result": value.result, "parameters": list(value.parameters)}
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(value.get("from_node"), str):
            return {"from_node": twins.get(value["from_node"], value["from_node"])}
        return {k: _canonical(v, twins) for k, v in value.items()}
    return [_canonical(v, twins) for v in value] if isinstance(value, list) else value
