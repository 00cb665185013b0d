"""Prepare a process once for all uses: its errors, its value, its fingerprint, its calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from odc_openeo.errors import OpenEOError, ProcessGraphMissing, ProcessUnsupported
from odc_openeo.graph.evaluate import check_graph, run_graph
from odc_openeo.graph.fingerprint import compute_fingerprint
from odc_openeo.graph.model import Graph, GraphLimits, Lookup, Node, iterate_calls
from odc_openeo.graph.parse import parse_process
from odc_openeo.graph.plan import Plan, make_plan, plan_for_view
from odc_openeo.graph.validate import find_problems
from odc_openeo.registry.demand import ALL, Demand
from odc_openeo.registry.environment import Environment


@dataclass(frozen=True)
class PreparedProcess:
    """A parsed process, its calls of stored processes resolved.

    ``graph`` is None if there is no way to make one, and only good for validation if there are
    ``structure_errors``.
    """

    graph: Graph | None
    structure_errors: tuple[OpenEOError, ...] = ()

    def find_errors(self, parameters: Mapping[str, Any] | None = None) -> list[OpenEOError]:
        """Return all errors, given the values of the outer parameters; an empty list if there are none."""
        nodes = {error.node for error in self.structure_errors}
        problems = find_problems(self.graph, parameters or {}) if self.graph else ()
        # Why a stored process cannot be had is among the errors of structure.
        return [
            *self.structure_errors,
            *(p for p in problems if not (isinstance(p, ProcessUnsupported) and p.node in nodes)),
        ]

    def evaluate(
        self,
        env: Environment | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        demand: Demand = ALL,
        plan: bool = True,
        part: Demand | None = None,
    ) -> Any:
        """Evaluate the process: JSON values for JSON, lazy xarray objects for cubes.

        Args:
            env: What processes may use of the service.
            parameters: The values of the outer parameters.
            demand: The part of the result that is needed. The result may be more than that, and it may not be
                on the pixels of the demanded view.
            part: The part of the result that will be computed: the value is the whole, of which the rest need
                not be there.
            plan: Without a plan each node delivers all it can, as slow as that is: for tests, and to find
                faults.

        Raises:
            OpenEOError: the first error of validation, or what a process raised; ``node`` names where.
        """
        values, env = dict(parameters or {}), env or Environment()
        for error in self.find_errors(values):
            raise error
        if self.graph is None:
            raise ProcessGraphMissing()
        planned = plan_for_view(self.graph, values, demand) if plan else Plan()
        of_part = None if part is None else make_plan(self.graph, values, part)
        return run_graph(self.graph, env, values, planned, planning=plan, part=of_part)

    def check_run(
        self, env: Environment, parameters: Mapping[str, Any] | None = None
    ) -> tuple[list[OpenEOError], Any]:
        """Return all errors that can be found without reading pixels, and the value of the process.

        These are the errors of `find_errors`, and those of evaluating the valid parts of the graph with the
        metadata of its collections. The value is None if it could not be evaluated.
        """
        values = dict(parameters or {})
        errors = self.find_errors(values)
        if self.graph is None or self.structure_errors:
            return errors, None
        invalid = {id_ for id_ in self.graph.nodes for error in errors if _is_within(error.node, id_)}
        plan = Plan() if invalid else plan_for_view(self.graph, values, ALL)
        run_errors, value = check_graph(self.graph, env, values, plan, invalid)
        distinct = {(error.node, error.message): error for error in [*errors, *run_errors]}
        return list(distinct.values()), value

    def compute_fingerprint(self) -> Any:
        """JSON that is equal for processes that compute the same; None if that is not certain."""
        return None if self.graph is None or self.structure_errors else compute_fingerprint(self.graph)

    def find_calls(self) -> Iterator[Node]:
        """All nodes, those of child graphs and of the stored processes that are called included."""
        return iter(()) if self.graph is None else iterate_calls(self.graph)


def _is_within(path: str | None, id_: str) -> bool:
    """Whether a path of nodes, from a graph into its child graphs, leads to or into a node."""
    return path is not None and (path == id_ or path.startswith(f"{id_}."))


def prepare(process: Any, lookup: Lookup | None = None, limits: GraphLimits | None = None) -> PreparedProcess:
    """Parse a process (an object with ``process_graph`` and, if it has any, ``parameters``).

    ``lookup`` finds user-defined processes.

    Raises:
        ProcessGraphComplexity: there are too many nodes or too many levels of child processes.
    """
    graph, errors = parse_process(process, limits, lookup)
    return PreparedProcess(graph, tuple(errors))


def evaluate(
    process: Mapping[str, Any],
    env: Environment | None = None,
    parameters: Mapping[str, Any] | None = None,
    limits: GraphLimits | None = None,
    *,
    demand: Demand = ALL,
    plan: bool = True,
    part: Demand | None = None,
) -> Any:
    """Prepare a process and evaluate it; see `PreparedProcess.evaluate`."""
    env = env or Environment()
    prepared = prepare(process, env.lookup, limits)
    return prepared.evaluate(env, parameters, demand=demand, plan=plan, part=part)


def validate(
    process: Any,
    parameters: Mapping[str, Any] | None = None,
    limits: GraphLimits | None = None,
    lookup: Lookup | None = None,
) -> list[OpenEOError]:
    """Prepare a process and return all its errors; see `PreparedProcess.find_errors`."""
    try:
        return prepare(process, lookup, limits).find_errors(parameters)
    except OpenEOError as error:
        return [error]
