"""Plan a process graph before evaluation: what each load must deliver, and which nodes are duplicates.

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
from odc_openeo.graph.arguments import find_mismatch
from odc_openeo.graph.model import Definition, Graph, Node, find_free_in_children
from odc_openeo.registry.child_results import runs_user_code
from odc_openeo.registry.demand import ALL, UNKNOWN, Demand, Grid
from odc_openeo.registry.process import PROCESSES, Process

LOAD: Final = "load_collection"

Edge = tuple[str, str]
"""A node and the argument by which it takes the value of another one."""


@dataclass(frozen=True)
class Plan:
    """The plan of a graph, made before it runs.

    ``demands``: the part of each node's value that the rest of the graph needs; ``edges``: the part that each
    argument needs; ``inputs``: the part of each parameter of the graph. ``duplicates``: for nodes that
    compute the same as an earlier one, the id of that one. ``grid_leaders``: for nodes whose cube is put on
    the grid of another one from the start, the id of that one.
    """

    demands: Mapping[str, Demand] = field(default_factory=dict)
    edges: Mapping[Edge, Demand] = field(default_factory=dict)
    inputs: Mapping[str, Demand] = field(default_factory=dict)
    duplicates: Mapping[str, str] = field(default_factory=dict)
    grid_leaders: Mapping[str, str] = field(default_factory=dict)

    def get_demand(self, id_: str) -> Demand:
        """The part of a node's value that is needed."""
        return self.demands.get(id_, ALL)

    def get_edge(self, id_: str, argument: str) -> Demand:
        """The part that an argument of a node needs of the value that it refers to."""
        return self.edges.get((id_, argument), ALL)

    def get_original(self, id_: str) -> str:
        """The node that computes what this one computes."""
        return self.duplicates.get(id_, id_)


def make_plan(graph: Graph, parameters: Mapping[str, Any], demand: Demand = ALL) -> Plan:
    """The plan of a valid graph whose parameters have the given values, if ``demand`` is needed of it."""
    values = {**_list_defaults(graph), **parameters}
    order = list(sort_topologically(graph))
    duplicates = _find_duplicates(graph, order)
    return _DemandWalk(graph, values, duplicates).make_plan(order, demand)


def plan_for_view(graph: Graph, parameters: Mapping[str, Any], demand: Demand) -> Plan:
    """Plan a graph; the demanded view is dropped unless all cubes can be made on its pixels.

    Cubes that meet are on one grid in either case.
    """
    plan = make_plan(graph, parameters, demand)
    if demand.view is None or _supports_view(graph, parameters, plan):
        return plan
    return make_plan(graph, parameters, replace(demand, view=None))


def _supports_view(graph: Graph, parameters: Mapping[str, Any], plan: Plan) -> bool:
    walk = _DemandWalk(graph, {**_list_defaults(graph), **parameters}, plan.duplicates)
    nodes = (node for id_, node in graph.nodes.items() if id_ not in plan.duplicates)
    return all(walk.supports_view(node, plan.get_demand(node.id)) for node in nodes)


def sort_topologically(graph: Graph) -> Iterator[str]:
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


def _list_defaults(graph: Graph) -> dict[str, Any]:
    return {p["name"]: p["default"] for p in graph.parameters if "name" in p and "default" in p}


# --- Demands -------------------------------------------------------------------------------------


@dataclass
class _DemandWalk:
    """The walk from the end of a graph to its loads, collecting what is needed."""

    graph: Graph
    parameters: Mapping[str, Any]
    duplicates: Mapping[str, str]
    nodes: dict[str, Demand] = field(default_factory=dict)
    edges: dict[Edge, Demand] = field(default_factory=dict)
    inputs: dict[str, Demand] = field(default_factory=dict)
    sources: dict[str, frozenset[str]] = field(default_factory=dict)

    def make_plan(self, order: list[str], demand: Demand) -> Plan:
        """The plan of the graph whose nodes are in this order."""
        for id_ in self.graph.end_nodes:
            if id_ != self.graph.result:
                self._add_demand(self.nodes, self.duplicates.get(id_, id_), ALL)
        self._add_demand(self.nodes, self.duplicates.get(self.graph.result, self.graph.result), demand)
        for id_ in reversed(order):
            if id_ not in self.duplicates:
                self._pass_on(self.graph.nodes[id_], self.nodes.get(id_, ALL))
        leaders = _find_grid_leaders(self.graph, self.nodes)
        return Plan(self.nodes, self.edges, self.inputs, self.duplicates, leaders)

    def _pass_on(self, node: Node, demand: Demand) -> None:
        """Add the demands of a node on what it refers to."""
        named = self._find_needs(node, demand)
        for name, value in node.arguments.items():
            needed = named.get(name, ALL)
            for used in node.uses[name]:
                part = needed if value == {"from_node": used} else ALL
                self.edges[node.id, name] = part
                self._add_demand(self.nodes, self.duplicates.get(used, used), part)
            for used in node.parameters[name]:
                part = needed if value == {"from_parameter": used} else ALL
                self.edges[node.id, name] = part
                self._add_demand(self.inputs, used, part)
        for used in find_free_in_children(node):
            self._add_demand(self.inputs, used, ALL)

    def _find_needs(self, node: Node, demand: Demand) -> Mapping[str, Demand]:
        arguments = self._find_constants(node)
        if node.definition is not None:
            return self._find_needs_of_definition(node.definition, demand, arguments)
        process = _find_predefined(node)
        if process is None or process.needs is None:
            return {}
        needs = _sign_grids(process.needs(demand, arguments), node.id)
        needs = _set_views(needs, demand.view if process.pointwise else None)
        if any(runs_user_code(child) for children in node.children.values() for child in children):
            # User code gets all bands of a pixel, whichever of its results are used.
            needs = {name: part.of_all_bands() for name, part in needs.items()}
        if len(self._find_sources(node)) == 1:
            needs = {name: part.on_shared_grid(demand) for name, part in needs.items()}
        return {} if self._is_open(node, arguments, needs) else needs

    def _find_sources(self, node: Node) -> frozenset[str]:
        """Where the cubes that a node takes come from, as far as can be told: nodes and parameters."""
        if node.id not in self.sources:
            sources = {f"{name}()" for names in node.parameters.values() for name in names}
            for used in node.dependencies:
                sources |= self._find_origin(self.graph.nodes[self.duplicates.get(used, used)])
            self.sources[node.id] = frozenset(sources)
        return self.sources[node.id]

    def _find_origin(self, node: Node) -> frozenset[str]:
        process = _find_predefined(node)
        passes_on = process is not None and process.needs is not None
        return self._find_sources(node) if passes_on else frozenset({node.id})

    def supports_view(self, node: Node, demand: Demand) -> bool:
        """Whether a node makes its cube on the pixels of a view, or makes no cube of pixels."""
        if node.definition is not None:
            arguments = self._find_constants(node)
            if demand.view is None:
                return False
            inner = node.definition.graph
            return _supports_view(inner, arguments, make_plan(inner, arguments, demand))
        process = PROCESSES[node.process_id]
        if not process.makes_raster:
            return True
        return demand.view is not None and (process.in_view or process.pointwise)

    def _find_needs_of_definition(
        self, definition: Definition, demand: Demand, arguments: Mapping[str, Any]
    ) -> Mapping[str, Demand]:
        # A grid is counted from that of a load, and the plan of a definition does not know others.
        inner = make_plan(definition.graph, arguments, replace(demand, grid=None))
        return {name: replace(part, grid=None) for name, part in inner.inputs.items()}

    def _find_constants(self, node: Node) -> dict[str, Any]:
        """The arguments that are known now (constants, parameters with a value, child graphs), else
        `UNKNOWN`."""
        return {name: self._find_constant(node, name, value) for name, value in node.arguments.items()}

    def _find_constant(self, node: Node, name: str, value: Any) -> Any:
        if isinstance(value, Graph) or not (node.uses[name] or node.parameters[name]):
            return value
        if len(value) == 1 and isinstance(value, Mapping) and value.get("from_parameter") in self.parameters:
            parameter_value = self.parameters[value["from_parameter"]]
            return (
                parameter_value
                if _is_json(parameter_value) and _fits_parameter(node, name, parameter_value)
                else UNKNOWN
            )
        return UNKNOWN

    def _is_open(self, node: Node, arguments: Mapping[str, Any], named: Mapping[str, Demand]) -> bool:
        """Whether a child process may meet cubes that the rule of its process does not speak of."""
        if not any(node.children.values()):
            return False
        if any(value is UNKNOWN and name not in named for name, value in arguments.items()):
            return True
        return any(not _is_json(self.parameters.get(p, UNKNOWN)) for p in find_free_in_children(node))

    @staticmethod
    def _add_demand(demands: dict[str, Demand], key: str, demand: Demand) -> None:
        demands[key] = demands[key].union(demand) if key in demands else demand


def _find_predefined(node: Node) -> Process | None:
    return None if node.definition else PROCESSES.get(node.process_id)


def _sign_grids(demands: Mapping[str, Demand], id_: str) -> Mapping[str, Demand]:
    """The demands of a node, with its id in a grid that it asks for."""

    def signed(demand: Demand) -> Demand:
        grid = demand.grid
        return demand if grid is None or grid.node else replace(demand, grid=replace(grid, node=id_))

    return {name: signed(demand) for name, demand in demands.items()}


def _set_views(demands: Mapping[str, Demand], view: GeoBox | None) -> Mapping[str, Demand]:
    """Demands with a view, but for those on all of a cube."""
    return {name: replace(d, view=None if d.boxes is None else view) for name, d in demands.items()}


def _fits_parameter(node: Node, name: str, value: Any) -> bool:
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


def _find_grid_leaders(graph: Graph, demands: dict[str, Demand]) -> dict[str, str]:
    """Map loads to the load whose grid they follow; a grid without exactly one leading load is dropped."""
    followers: dict[Grid, list[str]] = {}
    for id_, demand in demands.items():
        if demand.grid is not None and graph.nodes[id_].process_id == LOAD:
            followers.setdefault(replace(demand.grid, leads=True), []).append(id_)
    leaders: dict[str, str] = {}
    for ids in followers.values():
        leading = [id_ for id_ in ids if (grid := demands[id_].grid) is not None and grid.leads]
        independent = not any(graph.nodes[id_].dependencies for id_ in ids)
        if len(leading) == 1 and independent:
            leaders |= {id_: leading[0] for id_ in ids if id_ != leading[0]}
        else:
            for id_ in ids:
                demands[id_] = replace(demands[id_], grid=None)
    return leaders


# --- Nodes that are the same ---------------------------------------------------------------------


def _find_duplicates(graph: Graph, order: list[str]) -> dict[str, str]:
    twins: dict[str, str] = {}
    first: dict[str, str] = {}
    often = Counter(node.process_id for node in graph.nodes.values())
    for id_ in order:
        node = graph.nodes[id_]
        process = _find_predefined(node)
        if process is None or not process.pure or often[node.process_id] == 1:
            continue
        key = json.dumps([node.process_id, _canonicalize(node.arguments, twins)], sort_keys=True)
        if first.setdefault(key, id_) != id_:
            twins[id_] = first[key]
    return twins


def _canonicalize(value: Any, twins: Mapping[str, str]) -> Any:
    """An argument in which equal things are written alike: references lead to the original nodes."""
    if isinstance(value, Graph):
        nodes = {
            id_: [n.process_id, n.namespace, _canonicalize(n.arguments, {})] for id_, n in value.nodes.items()
        }
        return {"child": nodes, "result": value.result, "parameters": list(value.parameters)}
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(value.get("from_node"), str):
            return {"from_node": twins.get(value["from_node"], value["from_node"])}
        return {k: _canonicalize(v, twins) for k, v in value.items()}
    return [_canonicalize(v, twins) for v in value] if isinstance(value, list) else value
