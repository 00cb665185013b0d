"""Evaluate a graph with a trace, and explain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import odc_openeo.explain.emitters  # noqa: F401  (registers them)
import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.config import Config
from odc_openeo.explain.diagram import write_mermaid
from odc_openeo.explain.parts import describe_split
from odc_openeo.explain.plan import describe_in_words, describe_plan
from odc_openeo.explain.program import Program
from odc_openeo.explain.writer import Writer
from odc_openeo.graph import Graph, GraphLimits, PreparedProcess, prepare
from odc_openeo.graph.estimate import Estimate, estimate_computation
from odc_openeo.graph.trace import Trace
from odc_openeo.parts import JobSplit, Part, PartLimits, is_larger_than_part, plan_parts, read_part_limits
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.user_data.run_environment import make_environment

SKETCH_ABOVE: Final = 20_000
"""Chunks of a load from which on only its form is known here: building larger graphs takes too long."""

TITLE: Final = "A process graph as a program: loading with datacube and odc-stac, computing with xarray."


@dataclass(frozen=True)
class Explanation:
    """The program of a graph: its source, the name of the result in it, and what it leaves out.

    ``value`` is what the service evaluates the graph to, lazily, ``trace`` has the values of all nodes.
    """

    program: str
    result: str
    incomplete: list[dict[str, str]]
    graph: Graph
    value: Any
    trace: Trace


def explain_process(config: Config, process: Mapping[str, Any], user: UUID | str | None) -> dict[str, Any]:
    """Explain a process of a user as JSON: ``plan``, ``text``, ``diagram``, ``program``, ``incomplete``.

    Raises:
        OpenEOError: what evaluating the process raises.
    """
    env = make_environment(config, user, RunLimits.for_planning(SKETCH_ABOVE), exports=[])
    prepared = prepare(process, env.lookup, GraphLimits.from_config(config))
    explanation = write_program(prepared, env)
    saved = [output.data for output in env.outputs] or [explanation.value]
    limits = read_part_limits(config)
    estimate = estimate_computation([explanation.value, *saved], saved, env.loads, limits.worker_threads)
    plan = describe_plan(explanation.graph, explanation.trace, estimate)
    plan["parts"] = describe_split(_split_job(config, process, env, estimate, limits))
    return {
        "plan": plan,
        "text": describe_in_words(plan, explanation.incomplete),
        "diagram": write_mermaid(plan),
        "program": explanation.program,
        "incomplete": explanation.incomplete,
    }


def _split_job(
    config: Config, process: Mapping[str, Any], env: Environment, estimate: Estimate, limits: PartLimits
) -> JobSplit:
    """Split the process as the worker of a job does, if it is larger than one part may be."""
    is_sketch = any(load.chunks > SKETCH_ABOVE for load in env.loads)
    if is_sketch or is_larger_than_part(estimate, env.loads, limits):
        return plan_parts(process, env, limits, GraphLimits.from_config(config))
    return JobSplit("whole", (Part(0, tasks=estimate.tasks),), tasks=estimate.tasks)


def write_program(
    prepared: PreparedProcess, env: Environment, parameters: Mapping[str, Any] | None = None
) -> Explanation:
    """Evaluate a process lazily, and write it as a program.

    Cubes among the ``parameters`` are variables of their names, which whoever runs the program provides.

    Raises:
        OpenEOError: what evaluating the process raises.
    """
    env.trace = trace = Trace()
    value = prepared.evaluate(env, parameters)
    assert prepared.graph is not None  # It was evaluated.
    program = Program()
    writer = Writer(program, trace, env)
    result = writer.write_graph(prepared.graph, writer.bind_parameters(parameters or {}))
    return Explanation(program.write(TITLE), result.code, program.incomplete, prepared.graph, value, trace)
