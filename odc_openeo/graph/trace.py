"""Record what each node of a graph was evaluated to, for those who explain the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odc_openeo.cube import is_cube
from odc_openeo.graph.plan import Plan


@dataclass
class Trace:
    """The record of an evaluation, by the path of each node: ids of nodes from the outermost graph inwards.

    ``values`` are JSON values and lazy xarray objects; a node of a child process that was called several
    times has its last one. ``parameters`` and ``plans`` are those of each graph, by the path before its
    nodes. ``loads`` are the volumes that a node has added to those of the run.

    A child process may be called with cubes, and with an empty JSON array to find out what it makes of no
    values: cubes are then kept as its values, and JSON is in ``json_values``.
    """

    values: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    json_values: dict[str, Any] = field(default_factory=dict)
    loads: dict[str, Sequence[Any]] = field(default_factory=dict)
    counted_loads: int = 0

    def enter_graph(self, path: str, parameters: Mapping[str, Any], plan: Plan) -> None:
        """Record the parameters that a graph is evaluated with, and its plan."""
        before = self.parameters.get(path, {})
        if any(map(is_cube, before.values())) and not any(map(is_cube, parameters.values())):
            return
        self.parameters[path] = parameters
        self.plans[path] = plan

    def record_value(self, path: str, value: Any, loads: Sequence[Any]) -> None:
        """Record the value of a node; ``loads`` are all volumes of the run so far."""
        if not is_cube(value):
            self.json_values[path] = value
        if not is_cube(self.values.get(path)) or is_cube(value):
            self.values[path] = value
        if len(loads) > self.counted_loads:
            self.loads[path] = tuple(loads[self.counted_loads :])
            self.counted_loads = len(loads)
