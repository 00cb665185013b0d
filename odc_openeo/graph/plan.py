"""Plan a process graph before evaluation: what each load must deliver, and which nodes are the same.

Nothing is read and no process is called; the plan is made of the graph and the rules beside the processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from odc_openeo.demand import ALL, Demand
from odc_openeo.graph.parse import Graph, Node, parameter_references, references
from odc_openeo.process import PROCESSES, Process


@dataclass(frozen=True)
class Plan:
    """What is known of a graph before it runs.

    ``demands``: the part of each node's value that the rest of the graph needs. ``twins``: for nodes that
    compute the same as an earlier one, the id of that one.
    """

    demands: Mapping[str, Demand] = field(default_factory=dict)
    twins: Mapping[str, str] = field(default_factory=dict)

    def demand(self, id_: str) -> Demand:
        """What is needed of the value of a node."""
        return self.demands.get(id_, ALL)

    def original(self, id_: str) -> str:
        """The node that computes what this one computes."""
        return self.twins.get(id_, id_)


def make_plan(graph: Graph, parameters: Mapping[str, Any], demand: Demand = ALL) -> Plan:
    """The plan of a valid graph whose parameters have the given values, and whose results are demanded."""
    order = list(topological(graph))
    twins = _twins(graph, order)
    return Plan(_demands(graph, order, parameters, twins, demand), twins)


def within_reach(graph: Graph, parameters: Mapping[str, Any], demand: Demand) -> Demand:
    """The demand on a graph, without its grid unless all cubes can be made on that grid."""
    return demand if _all_on_grid(graph, parameters, demand) else replace(demand, grid=None)


def _all_on_grid(graph: Graph, parameters: Mapping[str, Any], demand: Demand) -> bool:
    plan = make_plan(graph, parameters, demand)
    return all(
        _on_grid(node, plan.demand(id_), parameters)
        for id_, node in graph.nodes.items()
        if id_ not in plan.twins
    )


def _on_grid(node: Node, demand: Demand, parameters: Mapping[str, Any]) -> bool:
    if node.definition:
        inner = node.definition.graph
        return demand.grid is not None and _all_on_grid(inner, _constants(node, parameters), demand)
    process = PROCESSES[node.process_id]
    if not process.makes_raster:
        return True
    return demand.grid is not None and (process.on_grid or process.needs is not None)


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


# --- Demands -------------------------------------------------------------------------------------


def _demands(
    graph: Graph,
    order: list[str],
    parameters: Mapping[str, Any],
    twins: Mapping[str, str],
    demand: Demand,
) -> dict[str, Demand]:
    demands = {twins.get(id_, id_): demand for id_ in (graph.result, *graph.end_nodes)}
    for id_ in reversed(order):
        if id_ in twins:
            continue
        for other, passed in _passed_on(graph.nodes[id_], demands.get(id_, ALL), parameters):
            used = twins.get(other, other)
            demands[used] = demands[used].union(passed) if used in demands else passed
    return demands


def _passed_on(node: Node, demand: Demand, parameters: Mapping[str, Any]) -> Iterator[tuple[str, Demand]]:
    """The demands of a node on the nodes it refers to."""
    process = _predefined(node)
    rule = process.needs if process else None
    named = rule(demand, _constants(node, parameters)) if rule else {}
    for name, used in node.uses.items():
        for other in used:
            direct = node.arguments[name] == {"from_node": other}
            yield other, named.get(name, ALL) if direct else ALL


def _predefined(node: Node) -> Process | None:
    return None if node.definition else PROCESSES.get(node.process_id)


def _constants(node: Node, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are known now: constants, parameters with a value, child graphs."""
    known: dict[str, Any] = {}
    for name, value in node.arguments.items():
        if isinstance(value, Mapping) and len(value) == 1 and value.get("from_parameter") in parameters:
            known[name] = parameters[value["from_parameter"]]
        elif isinstance(value, Graph) or not _has_references(value):
            known[name] = value
    return known


def _has_references(value: Any) -> bool:
    return any(True for _ in references(value)) or any(True for _ in parameter_references(value))


# --- Nodes that are the same ---------------------------------------------------------------------


def _twins(graph: Graph, order: list[str]) -> dict[str, str]:
    twins: dict[str, str] = {}
    first: dict[str, str] = {}
    for id_ in order:
        node = graph.nodes[id_]
        process = _predefined(node)
        if process is None or not process.pure:
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
