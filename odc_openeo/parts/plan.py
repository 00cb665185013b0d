"""Decide whether and how a process graph splits into parts.

The whole is evaluated lazily once; of large loads only the form is made. What a part takes is then measured
by evaluating some of them: nothing is assumed of how tasks grow with pixels, and nothing is read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from odc_openeo import cube
from odc_openeo.cube.budget import Budget
from odc_openeo.graph import GraphLimits, prepare
from odc_openeo.graph.estimate import Estimate, estimate_computation
from odc_openeo.parts.measure import Size, measure_part
from odc_openeo.parts.model import JobSplit, OutputTemplate, Part, PartLimits, Stage
from odc_openeo.parts.obstacles import find_obstacle
from odc_openeo.parts.spaces import SplitFailure, split_geometries, split_space, split_times
from odc_openeo.parts.stages import cut_process, find_reduction
from odc_openeo.parts.template import describe_output
from odc_openeo.registry.environment import Environment, RunLimits


def is_larger_than_part(estimate: Estimate, loads: Sequence[Any], limits: PartLimits) -> bool:
    """Return whether a job is larger than one part may be, by the estimate and the volumes of its loads."""
    if any(load.chunks > limits.tasks for load in loads):
        return True
    return Size.from_estimate(estimate).find_excess(limits) > 1


def plan_parts(
    process: Mapping[str, Any],
    env: Environment,
    limits: PartLimits | None = None,
    graph_limits: GraphLimits | None = None,
) -> JobSplit:
    """Split a process into parts no larger than the limits, if it is larger; nothing is read or computed.

    Raises:
        OpenEOError: what evaluating the graph raises.
    """
    limits = limits or PartLimits()
    prepared = prepare(process, env.lookup, graph_limits)
    env = _make_quiet(env)
    planning_env = _make_environment(env, RunLimits.for_planning(limits.tasks))
    value = prepared.evaluate(planning_env)
    saved = [output.data for output in planning_env.outputs] or [value]
    estimate = estimate_computation([value, *saved], saved, planning_env.loads, limits.worker_threads)
    template = describe_output(value, planning_env.outputs)
    whole = _Whole(estimate, template)
    is_forced = limits.side is not None or limits.labels is not None
    if not is_forced and not is_larger_than_part(estimate, planning_env.loads, limits):
        return whole.as_one_part()
    obstacle = find_obstacle(prepared.graph, planning_env)
    if obstacle is not None:
        return whole.as_one_part(obstacle)
    probe = _PartProbe(process, env, template, limits, graph_limits)
    return _split(whole, probe, saved[0])


def _make_quiet(env: Environment) -> Environment:
    """An environment in which parts are measured: nothing of it is said to users, or kept."""
    return replace(env, limits=RunLimits(), log=logging.getLogger("odc_openeo.parts.plan"), trace=None)


def _make_environment(env: Environment, limits: RunLimits) -> Environment:
    """An environment for one evaluation of the whole."""
    exports: list[Any] | None = None if env.exports is None else []
    return replace(env, outputs=[], loads=[], exports=exports, budget=Budget(), limits=limits)


@dataclass(frozen=True)
class _Whole:
    """The estimate of the whole job, and the form of its output."""

    estimate: Estimate
    template: OutputTemplate

    def as_one_part(self, reason: str | None = None) -> JobSplit:
        part = Part(0, tasks=self.estimate.tasks, input_bytes=self.estimate.input_bytes)
        return self.as_parts("whole", [part], reason)

    def as_parts(self, kind: Any, parts: Sequence[Part], reason: str | None = None) -> JobSplit:
        return JobSplit(
            kind,
            tuple(parts),
            reason,
            sum(part.tasks for part in parts),
            max(self.estimate.input_bytes, sum(part.input_bytes for part in parts)),
            self.estimate.output_bytes,
            self.template,
        )


@dataclass(frozen=True)
class _PartProbe:
    """Measures parts of one job."""

    process: Mapping[str, Any]
    env: Environment
    template: OutputTemplate
    limits: PartLimits
    graph_limits: GraphLimits | None
    stage: Stage | None = None

    def __call__(self, part: Part) -> Size:
        threads = self.limits.worker_threads
        return measure_part(
            self.process, self.env, self.template, part, self.graph_limits, self.stage, threads
        )


def _split(whole: _Whole, probe: _PartProbe, saved: Any) -> JobSplit:
    template, limits = whole.template, probe.limits
    stage = None if template.spatial_dims else _find_stage(probe, template)
    try:
        _check_labels(template if stage is None else stage.template)
        if template.spatial_dims is not None and template.transform is not None:
            kind, parts = "space", split_space(template, probe, limits)
        elif stage is not None:
            probe = replace(probe, stage=stage)
            kind, parts = "stages", split_space(stage.template, probe, limits)
        elif cube.GEOMETRY in template.dims:
            kind, parts = "geometries", split_geometries(saved, template, probe, limits)
        elif template.time_dimension is not None:
            kind, parts = "time", split_times(template, probe, limits)
        else:
            raise SplitFailure("Its result has no pixels, geometries or dates to split over.")
    except SplitFailure as failure:
        return whole.as_one_part(str(failure))
    if len(parts) == 1:
        return whole.as_one_part("One part is as small as it gets.")
    read = sum(part.input_bytes for part in parts)
    if read > limits.most_repeats * max(whole.estimate.input_bytes, 1):
        times = read / max(whole.estimate.input_bytes, 1)
        return whole.as_one_part(f"Its {len(parts)} parts would read the data {times:.1f} times.")
    return replace(whole.as_parts(kind, parts), stage=stage)


def _check_labels(template: OutputTemplate) -> None:
    """Raise `SplitFailure` if there is nothing to split, as after a filter that leaves nothing."""
    empty = [name for name, size in template.sizes.items() if size == 0]
    if empty:
        raise SplitFailure(f"Nothing is left along its dimension '{empty[0]}'.")


def _find_stage(probe: _PartProbe, template: OutputTemplate) -> Stage | None:
    """The first of two stages in which a job reduces all pixels; None if it does not."""
    reduction = find_reduction(probe.process)
    if reduction is None or template.dtype is None:
        return None
    source, reducer = reduction
    planning_env = _make_environment(probe.env, RunLimits.for_planning(probe.limits.tasks))
    pixels = prepare(cut_process(probe.process, source), planning_env.lookup, probe.graph_limits).evaluate(
        planning_env
    )
    pixels_template = describe_output(pixels, ())
    if pixels_template.spatial_dims is None or pixels_template.transform is None:
        return None
    return Stage(source, reducer, template.dtype, replace(pixels_template, time_dimension=None))
