"""Decide whether and how a process graph splits into parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from odc_openeo.cube.budget import Budget
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.graph.estimate import estimate_computation
from odc_openeo.parts.model import JobSplit, Part, PartLimits
from odc_openeo.parts.template import describe_output
from odc_openeo.parts.windows import cut_windows
from odc_openeo.registry.environment import Environment


def plan_parts(
    process: Mapping[str, Any],
    env: Environment,
    limits: PartLimits | None = None,
    graph_limits: GraphLimits | None = None,
) -> JobSplit:
    """Split a process into parts no larger than the limits; nothing is read or computed."""
    limits = limits or PartLimits()
    own = replace(env, outputs=[], loads=[], budget=Budget())
    value = evaluate(process, own, limits=graph_limits)
    saved = [output.data for output in own.outputs] or [value]
    estimate = estimate_computation([value, *saved], saved, own.loads)
    template = describe_output(value, own.outputs)
    known = {
        "tasks": estimate.tasks,
        "input_bytes": estimate.input_bytes,
        "output_bytes": estimate.output_bytes,
        "template": template,
    }
    whole = (Part(0, tasks=estimate.tasks, input_bytes=estimate.input_bytes),)
    if estimate.tasks <= limits.tasks and estimate.input_bytes <= limits.input_bytes:
        return JobSplit("whole", whole, **known)
    if template.spatial_dims is None:
        return JobSplit("whole", whole, "its result has no pixels to split over.", **known)
    count = max(-(-estimate.tasks // limits.tasks), -(-estimate.input_bytes // limits.input_bytes))
    rows, columns = (template.sizes[name] for name in template.spatial_dims)
    windows = cut_windows((rows, columns), count, limits.block)
    parts = tuple(
        Part(
            i, window, tasks=estimate.tasks // len(windows), input_bytes=estimate.input_bytes // len(windows)
        )
        for i, window in enumerate(windows)
    )
    return JobSplit("space", parts, **known)
