"""Evaluate a process graph: one call of a registered function per node, nothing read, nothing computed.

A node is evaluated when its value is first needed, and once. Parameters marked `DEFERRED` (the branches of
``if``, say) reach their process as functions, so that what is not needed is never evaluated.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import dask
import xarray as xr

from odc_openeo.cube import LabeledArray, is_cube
from odc_openeo.cube.elementwise import drop_boolean_mark
from odc_openeo.errors import (
    DimensionMismatch,
    InfrastructureBusy,
    Internal,
    OpenEOError,
    ProcessGraphComplexity,
    ProcessParameterMissing,
    ProcessUnsupported,
)
from odc_openeo.graph.arguments import check_argument, is_default
from odc_openeo.graph.model import Definition, Graph, Node, find_free_parameters
from odc_openeo.graph.plan import Plan, make_plan
from odc_openeo.graph.trim_time import trim_to_interval
from odc_openeo.graph.validate import get_process
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import NODES, Environment, NotDetermined
from odc_openeo.registry.process import OMITTED, PROCESSES, Process
from odc_openeo.runners.memory_failures import is_memory_failure

log = logging.getLogger(__name__)

_UNSET = object()


def run_graph(
    graph: Graph,
    env: Environment,
    parameters: Mapping[str, Any],
    plan: Plan,
    *,
    planning: bool = True,
    path: str = "",
    part: Plan | None = None,
) -> Any:
    """Evaluate a valid graph and return the value of its result node: JSON, or a lazy xarray object.

    End nodes apart from the result run as well: a graph may save several results. ``path`` is that of the
    graphs around it. ``part`` is the plan of what will be computed, if that is only a part of the result.

    Raises:
        OpenEOError: what a process raised; ``node`` names where.
    """
    try:
        return _Scope(graph, parameters, env, plan, None, path, planning, part=part).run()
    except RecursionError as error:
        raise ProcessGraphComplexity(
            reason="its conditions are nested too deeply. Flatten the graph."
        ) from error


def check_graph(
    graph: Graph, env: Environment, parameters: Mapping[str, Any], plan: Plan, invalid: Iterable[str]
) -> tuple[list[OpenEOError], Any]:
    """Evaluate all of a graph that can be evaluated, without computing pixels, and collect the errors.

    Nodes that are ``invalid``, and what depends on them, are left out; so is what is `NotDetermined`, or
    depends on a parameter without a value. Returns the errors, and the value of the result node: None if it
    has none.

    Raises:
        InfrastructureBusy: a part of the service is not available.
    """
    scope = _Scope(graph, parameters, env, plan)
    with dask.config.set(scheduler=_refuse_computation):
        errors = scope.collect_errors(set(invalid))
    return errors, scope.values.get(plan.get_original(graph.result))


def _refuse_computation(*_: Any, **__: Any) -> Any:
    raise NotDetermined


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
    part: Plan | None = None

    def run(self) -> Any:
        if self.env.trace is not None:
            self.env.trace.enter_graph(self.path, self.parameters, self.plan)
        value = self.evaluate_node(self.graph.result)
        if self.parent is None:
            for id_ in self.graph.end_nodes:
                self.evaluate_node(id_)
        return value

    def evaluate_node(self, id_: str) -> Any:
        """The value of a node; what it depends on is evaluated first, without recursion."""
        id_ = self.plan.get_original(id_)
        waiting = [id_]
        while waiting:
            node = self.graph.nodes[waiting[-1]]
            if node.id in self.values:
                waiting.pop()
                continue
            missing = [d for d in self._find_needed(node) if d not in self.values]
            if missing:
                waiting.extend(missing)
            else:
                self.values[node.id] = self._call_node(node)
        return self.values[id_]

    def collect_errors(self, failed: set[str]) -> list[OpenEOError]:
        """Evaluate all that the result and the other end nodes need but for ``failed`` nodes."""
        errors: list[OpenEOError] = []
        before_failed = [used for id_ in failed for used in self._find_needed_if_valid(self.graph.nodes[id_])]
        for target in (self.graph.result, *self.graph.end_nodes, *before_failed):
            waiting = [self.plan.get_original(target)]
            while waiting:
                node = self.graph.nodes[waiting[-1]]
                if node.id in self.values or node.id in failed:
                    waiting.pop()
                elif any(self.plan.get_original(used) in failed for used in node.dependencies):
                    failed.add(node.id)
                elif missing := self._find_needed(node) - self.values.keys():
                    waiting.extend(missing)
                else:
                    errors += self._try_node(node, failed)
        return errors

    def _find_needed_if_valid(self, node: Node) -> set[str]:
        """The nodes whose values an invalid node would need, as far as that can be told."""
        try:
            return self._find_needed(node)
        except ProcessUnsupported:
            return set(node.dependencies)

    def _try_node(self, node: Node, failed: set[str]) -> list[OpenEOError]:
        """Evaluate a node; its error, if it has one."""
        try:
            self.values[node.id] = self._call_node(node)
            return []
        except (NotDetermined, ProcessParameterMissing):
            failed.add(node.id)
            return []
        except OpenEOError as error:
            if isinstance(error, InfrastructureBusy):
                raise
            failed.add(node.id)
            return [error]
        except Exception as error:
            if is_memory_failure(error) or isinstance(error, RecursionError):
                raise
            log.exception("the check of a process graph failed")
            failed.add(node.id)
            return [Internal(node=f"{self.path}{node.id}")]

    def _find_needed(self, node: Node) -> set[str]:
        declared = get_process(node).parameters
        eager = [used for name, used in node.uses.items() if name in declared and not declared[name].deferred]
        leader = {self.plan.grid_leaders[node.id]} if node.id in self.plan.grid_leaders else set()
        return {self.plan.get_original(used) for used in leader.union(*eager)}

    def _call_node(self, node: Node) -> Any:
        where = f"{self.path}{node.id}"
        before = NODES.set(((node.id, node.process_id), *NODES.get()))
        try:
            process = get_process(node)
            arguments = {
                name: self._make_argument(process, node, name, value, where)
                for name, value in node.arguments.items()
                if name in process.parameters
            }
            arguments = {
                name: value
                for name, value in arguments.items()
                if not is_default(process.parameters[name], value)
            }
            self._log_ignored(process, node)
            value = self._run_process(node, process, arguments, where)
            self.env.budget.spend(value)
            if self.env.trace is not None:
                self.env.trace.record_value(where, value, self.env.loads)
            return value
        except OpenEOError as error:
            if error.node is None:
                error.node = where
            raise
        finally:
            NODES.reset(before)

    def _run_process(
        self, node: Node, process: Process | Definition, arguments: Mapping[str, Any], where: str
    ) -> Any:
        demand = self.plan.get_demand(node.id)
        part = None if self.part is None else self.part.get_demand(node.id)
        if isinstance(process, Definition):
            self._log_override(node)
            return self._run_definition(process, arguments, demand, part, f"{where}.")
        grid = self._grid_of(self.plan.grid_leaders.get(node.id))
        try:
            value = process.call(arguments, replace(self.env, demand=demand, grid=grid, part=part))
            is_marked = process.returns_numbers and isinstance(value, xr.DataArray)
            return drop_boolean_mark(value) if is_marked else value
        except xr.AlignmentError as error:
            reason = "the labels of a dimension differ. Resample or merge the cubes first."
            raise DimensionMismatch(reason=reason) from error

    def _log_ignored(self, process: Process | Definition, node: Node) -> None:
        """Warn of arguments of other back-ends; validation has refused all others that are not declared."""
        for name in node.arguments.keys() - process.parameters.keys():
            self.env.log.warning(
                "The argument '%s' of %s belongs to other back-ends and is ignored here", name, process.id
            )

    def _log_override(self, node: Node) -> None:
        if node.namespace is None and node.process_id in PROCESSES:
            self.env.log.info("'%s' is your own process here, not the predefined one", node.process_id)

    def _run_definition(
        self,
        process: Definition,
        arguments: Mapping[str, Any],
        demand: Demand,
        part: Demand | None,
        path: str,
    ) -> Any:
        needed = replace(demand, grid=None)
        plan = make_plan(process.graph, arguments, needed) if self.planning else Plan()
        inner = None if part is None else make_plan(process.graph, arguments, replace(part, grid=None))
        scope = _Scope(process.graph, arguments, self.env, plan, None, path, self.planning, part=inner)
        return scope.run()

    def _grid_of(self, id_: str | None) -> Any:
        return None if id_ is None else self.values[id_].odc.geobox

    def _make_argument(
        self, process: Process | Definition, node: Node, name: str, value: Any, where: str
    ) -> Any:
        if process.parameters[name].deferred:
            return lambda: self._resolve_checked(process, name, value, where)
        resolved = value if node.is_constant(name) else self._resolve_checked(process, name, value, where)
        resolved = process.parameters[name].as_declared(resolved)
        return trim_to_interval(resolved, self.plan.get_edge(node.id, name))

    def _resolve_checked(self, process: Process | Definition, name: str, value: Any, where: str) -> Any:
        resolved = self._resolve_value(value, where)
        if isinstance(resolved, LabeledArray) and not process.parameters[name].takes_pixels:
            resolved = list(resolved.values)
        if resolved is not value:
            check_argument(process, name, resolved)
        return resolved

    def _resolve_value(self, value: Any, where: str) -> Any:
        """The argument with references, child graphs and all they hold replaced by values."""
        if isinstance(value, Graph):
            return ChildProcess(value, self, f"{where}.")
        if isinstance(value, Mapping):
            if len(value) == 1 and isinstance(value.get("from_node"), str):
                return self.evaluate_node(value["from_node"])
            if len(value) == 1 and isinstance(value.get("from_parameter"), str):
                return self.get_parameter(value["from_parameter"])
            return self._unless_same(value, {k: self._resolve_value(v, where) for k, v in value.items()})
        if isinstance(value, list) and any(isinstance(v, Mapping | list | Graph) for v in value):
            resolved = [self._resolve_value(v, where) for v in value]
            return value if all(a is b for a, b in zip(value, resolved, strict=True)) else resolved
        return value

    @staticmethod
    def _unless_same(value: Mapping[str, Any], resolved: dict[str, Any]) -> Mapping[str, Any]:
        return value if all(resolved[k] is value[k] for k in value) else resolved

    def get_parameter(self, name: str) -> Any:
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
class ChildProcess:
    """A child process graph as a callable: parameters by keyword, returns the value of its result node.

    ``graph`` is there for processes that can do better than calling it (search an index, say).
    """

    graph: Graph
    scope: _Scope = field(repr=False)
    path: str

    def __call__(self, **parameters: Any) -> Any:
        scope = self.scope
        return _Scope(self.graph, parameters, scope.env, Plan(), scope, self.path, scope.planning).run()

    def make_portable(self, *given: str) -> PortableChildProcess:
        """Detach the child process from this evaluation, so that a dask task can call it on values in memory.

        ``given`` are the names of the parameters it will be called with.

        Raises:
            NotPortable: it uses a cube of an outer process, or processes that need their surroundings.
        """
        _check_portable(self.graph)
        outer: dict[str, Any] = {}
        for name in find_free_parameters(self.graph) - set(given):
            with contextlib.suppress(ProcessParameterMissing):
                outer[name] = self.scope.get_parameter(name)
        for name, value in outer.items():
            if not _is_plain(value):
                raise NotPortable(f"it uses '{name}', which is not known before the data are read.")
        return PortableChildProcess(self.graph, outer, self.path)


class NotPortable(ValueError):
    """A child process can't run inside a dask task; the text says why."""


@dataclass(frozen=True)
class PortableChildProcess:
    """A child process that can be pickled: its graph, and the values of outer parameters that it uses.

    Called with numbers, lists and DataArrays in memory it gives what the `Child` would.
    """

    graph: Graph
    outer: Mapping[str, Any]
    path: str

    def __call__(self, **parameters: Any) -> Any:
        values = {**self.outer, **parameters}
        return _Scope(self.graph, values, Environment(), Plan(), None, self.path).evaluate_node(
            self.graph.result
        )


def _check_portable(graph: Graph) -> None:
    for node in graph.nodes.values():
        process = get_process(node)
        if isinstance(process, Definition):
            _check_portable(process.graph)
        elif process.needs_environment or not process.pure:
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
