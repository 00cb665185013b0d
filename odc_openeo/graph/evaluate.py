"""Evaluate a process graph: one call of a registered function per node, nothing read, nothing computed.

A node is evaluated when its value is first needed, and once. Parameters marked `DEFERRED` (the branches of
``if``, say) reach their process as functions, so that what is not needed is never evaluated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import xarray as xr

from odc_openeo.cube import LabeledArray, is_cube
from odc_openeo.demand import ALL, Demand
from odc_openeo.errors import (
    DimensionMismatch,
    OpenEOError,
    ProcessGraphComplexity,
    ProcessGraphMissing,
    ProcessParameterMissing,
)
from odc_openeo.graph.arguments import check_argument
from odc_openeo.graph.cut import cut
from odc_openeo.graph.definitions import Definition
from odc_openeo.graph.parse import Graph, Limits, Node, free_parameters, parse
from odc_openeo.graph.plan import Plan, make_plan, seen
from odc_openeo.graph.validate import problems, process_of
from odc_openeo.process import DEFERRED, NODES, OMITTED, PROCESSES, Environment, Process

__all__ = ["DEFERRED", "evaluate"]

_UNSET = object()


def evaluate(
    process: Mapping[str, Any],
    env: Environment | None = None,
    parameters: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    *,
    demand: Demand = ALL,
    plan: bool = True,
) -> Any:
    """Evaluate a process: JSON values for JSON, lazy xarray objects for cubes.

    ``process`` is an object with ``process_graph`` and, if it has parameters, ``parameters``. The value of
    the result node is returned; end nodes apart from it run as well (a graph may save several results).
    ``demand`` is what of the result is needed; it may be more, and not on the pixels of the demanded view.
    Without ``plan`` each node delivers all it can, as slow as that is: for tests, and to find faults.

    Raises:
        OpenEOError: the first error of validation, or what a process raised; ``node`` names where.
    """
    given = dict(parameters or {})
    env = env or Environment()
    graph, errors = parse(process, limits, env.lookup)
    for error in (*errors, *(problems(graph, given) if graph else ())):
        raise error
    if graph is None:
        raise ProcessGraphMissing()
    try:
        planned = make_plan(graph, given, seen(graph, given, demand)) if plan else Plan()
        return _Scope(graph, given, env, planned, planning=plan).run()
    except RecursionError as error:
        raise ProcessGraphComplexity(
            reason="its conditions are nested too deeply. Flatten the graph."
        ) from error


@dataclass
class _Scope:
    """A graph in the course of evaluation: values so far, its parameters, the scope around it."""

    graph: Graph
    parameters: Mapping[str, Any]
    env: Environment
    plan: Plan
    parent: _Scope | None = None
    path: str = ""
    planning: bool = True
    values: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        value = self.value(self.graph.result)
        if self.parent is None:
            for id_ in self.graph.end_nodes:
                self.value(id_)
        return value

    def value(self, id_: str) -> Any:
        """The value of a node; what it depends on is evaluated first, without recursion."""
        id_ = self.plan.original(id_)
        waiting = [id_]
        while waiting:
            node = self.graph.nodes[waiting[-1]]
            if node.id in self.values:
                waiting.pop()
                continue
            missing = [d for d in self._needed(node) if d not in self.values]
            if missing:
                waiting.extend(missing)
            else:
                self.values[node.id] = self._call(node)
        return self.values[id_]

    def _needed(self, node: Node) -> set[str]:
        declared = process_of(node).parameters
        eager = [used for name, used in node.uses.items() if not declared[name].deferred]
        leader = {self.plan.leaders[node.id]} if node.id in self.plan.leaders else set()
        return {self.plan.original(used) for used in leader.union(*eager)}

    def _call(self, node: Node) -> Any:
        where = f"{self.path}{node.id}"
        before = NODES.set(((node.id, node.process_id), *NODES.get()))
        try:
            found = process_of(node)
            arguments = {
                name: self._argument(found, node, name, value, where)
                for name, value in node.arguments.items()
            }
            value = self._run_process(node, found, arguments, where)
            self.env.budget.spend(value)
            return value
        except OpenEOError as error:
            if error.node is None:
                error.node = where
            raise
        finally:
            NODES.reset(before)

    def _run_process(
        self, node: Node, found: Process | Definition, arguments: Mapping[str, Any], where: str
    ) -> Any:
        demand = self.plan.demand(node.id)
        if isinstance(found, Definition):
            self._tell_of(node)
            return self._run(found, arguments, demand, f"{where}.")
        grid = self._grid_of(self.plan.leaders.get(node.id))
        try:
            return found.call(arguments, replace(self.env, demand=demand, grid=grid))
        except xr.AlignmentError as error:
            reason = "the labels of a dimension differ. Resample or merge the cubes first."
            raise DimensionMismatch(reason=reason) from error

    def _tell_of(self, node: Node) -> None:
        if node.namespace is None and node.process_id in PROCESSES:
            self.env.log.info("'%s' is your own process here, not the predefined one", node.process_id)

    def _run(self, found: Definition, arguments: Mapping[str, Any], demand: Demand, path: str) -> Any:
        part = replace(demand, grid=None)
        plan = make_plan(found.graph, arguments, part) if self.planning else Plan()
        return _Scope(found.graph, arguments, self.env, plan, None, path, self.planning).run()

    def _grid_of(self, id_: str | None) -> Any:
        return None if id_ is None else self.values[id_].odc.geobox

    def _argument(self, found: Process | Definition, node: Node, name: str, value: Any, where: str) -> Any:
        if found.parameters[name].deferred:
            return lambda: self._resolve_checked(found, name, value, where)
        resolved = value if node.is_constant(name) else self._resolve_checked(found, name, value, where)
        resolved = found.parameters[name].as_declared(resolved)
        return cut(resolved, self.plan.edge(node.id, name))

    def _resolve_checked(self, found: Process | Definition, name: str, value: Any, where: str) -> Any:
        resolved = self._resolve(value, where)
        if isinstance(resolved, LabeledArray) and not found.parameters[name].takes_pixels:
            resolved = list(resolved.values)
        if resolved is not value:
            check_argument(found, name, resolved)
        return resolved

    def _resolve(self, value: Any, where: str) -> Any:
        """The argument with references, child graphs and all they hold replaced by values."""
        if isinstance(value, Graph):
            return Child(value, self, f"{where}.")
        if isinstance(value, Mapping):
            if len(value) == 1 and isinstance(value.get("from_node"), str):
                return self.value(value["from_node"])
            if len(value) == 1 and isinstance(value.get("from_parameter"), str):
                return self.parameter(value["from_parameter"])
            return self._unless_same(value, {k: self._resolve(v, where) for k, v in value.items()})
        if isinstance(value, list) and any(isinstance(v, Mapping | list | Graph) for v in value):
            resolved = [self._resolve(v, where) for v in value]
            return value if all(a is b for a, b in zip(value, resolved, strict=True)) else resolved
        return value

    @staticmethod
    def _unless_same(value: Mapping[str, Any], resolved: dict[str, Any]) -> Mapping[str, Any]:
        return value if all(resolved[k] is value[k] for k in value) else resolved

    def parameter(self, name: str) -> Any:
        """The value of a parameter: the innermost scope that has one, else the outermost default."""
        scope: _Scope | None = self
        default: Any = _UNSET
        while scope is not None:
            if name in scope.parameters:
                return scope.parameters[name]
            declared = next((p for p in scope.graph.parameters if p.get("name") == name), {})
            if "default" in declared or declared.get("optional"):
                default = declared.get("default")
            scope = scope.parent
        if default is _UNSET or default is OMITTED:
            raise ProcessParameterMissing(parameter=name)
        return default


@dataclass(frozen=True)
class Child:
    """A child process graph as a callable: parameters by keyword, returns the value of its result node.

    ``graph`` is there for processes that can do better than calling it (search an index, say).
    """

    graph: Graph
    scope: _Scope = field(repr=False)
    path: str

    def __call__(self, **parameters: Any) -> Any:
        scope = self.scope
        return _Scope(self.graph, parameters, scope.env, Plan(), scope, self.path, scope.planning).run()

    def portable(self, *given: str) -> PortableChild:
        """The same without what it leans on here, so that a dask task can call it on values in memory.

        ``given`` are the names of the parameters it will be called with.

        Raises:
            NotPortable: it uses a cube of an outer process, or processes that need their surroundings.
        """
        _check_portable(self.graph)
        outer: dict[str, Any] = {}
        for name in free_parameters(self.graph) - set(given):
            with contextlib.suppress(ProcessParameterMissing):
                outer[name] = self.scope.parameter(name)
        for name, value in outer.items():
            if not _is_plain(value):
                raise NotPortable(f"it uses '{name}', which is not known before the data are read.")
        return PortableChild(self.graph, outer, self.path)


class NotPortable(ValueError):
    """A child process can't run inside a dask task; the text says why."""


@dataclass(frozen=True)
class PortableChild:
    """A child process that can be pickled: its graph, and the values of outer parameters that it uses.

    Called with numbers, lists and DataArrays in memory it gives what the `Child` would.
    """

    graph: Graph
    outer: Mapping[str, Any]
    path: str

    def __call__(self, **parameters: Any) -> Any:
        values = {**self.outer, **parameters}
        return _Scope(self.graph, values, Environment(), Plan(), None, self.path).value(self.graph.result)


def _check_portable(graph: Graph) -> None:
    for node in graph.nodes.values():
        found = process_of(node)
        if isinstance(found, Definition):
            _check_portable(found.graph)
        elif found.needs_environment or not found.pure:
            raise NotPortable(f"the process '{node.process_id}' can't be used in it.")
        for inner in chain.from_iterable(node.children.values()):
            _check_portable(inner)


def _is_plain(value: Any) -> bool:
    """Whether a value is JSON; a Dataset is a Mapping, but no JSON."""
    if isinstance(value, Mapping) and not is_cube(value):
        return all(map(_is_plain, value.values()))
    if isinstance(value, LabeledArray):
        return all(map(_is_plain, value.values))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
