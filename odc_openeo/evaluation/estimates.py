"""Estimate what a job would take from its lazily evaluated graph: nothing is read or computed."""

from __future__ import annotations

import math
from typing import Any, Final

from odc_openeo.config import Config
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.graph.estimate import Estimate
from odc_openeo.graph.estimate import estimate_computation as estimate_values
from odc_openeo.jobs import Job
from odc_openeo.jobs.options import parse_archives
from odc_openeo.jobs.part_progress import find_reading_rates
from odc_openeo.parts import is_larger_than_part, plan_parts, read_part_limits
from odc_openeo.registry.environment import RunLimits
from odc_openeo.user_data.run_environment import make_environment

SKETCH_ABOVE: Final = 20_000
"""Chunks of a load from which on only its form is known here: building larger graphs takes too long."""

USUAL_BYTES_PER_SECOND: Final = 50e6
"""Bytes of pixels that a worker reads and reduces in a second, and in one of CPU time, until parts of jobs
have been measured."""

ANY_NUMBER: Final = 2**31 - 1
"""Downloads that cost nothing, in numbers: null says the same, but the R client fails without a number."""


def estimate_job(config: Config, job: Job) -> dict[str, Any]:
    """Return the estimate as the API has it, with the numbers that it is made of.

    Raises what evaluating the graph raises: a job that can't run has no estimate.
    """
    limits, archives = RunLimits.for_planning(SKETCH_ABOVE), parse_archives(job.draft.extras)
    env = make_environment(config, job.user, limits, exports=[], archives=archives)
    graph_limits = GraphLimits.from_config(config)
    value = evaluate(job.draft.process, env, limits=graph_limits)
    saved = [output.data for output in env.outputs] or [value]
    part_limits = read_part_limits(config)
    estimate = estimate_values([value, *saved], saved, env.loads, part_limits.worker_threads)
    is_sketch = any(load.chunks > SKETCH_ABOVE for load in env.loads)
    document = _describe_estimate(estimate, is_sketch)
    if not (is_sketch or is_larger_than_part(estimate, env.loads, part_limits)):
        return document | _describe_parts(config, 1, estimate.input_bytes)
    split = plan_parts(job.draft.process, env, part_limits, graph_limits)
    return document | _describe_parts(config, len(split.parts), estimate.input_bytes)


def _describe_parts(config: Config, parts: int, input_bytes: int) -> dict[str, Any]:
    """Describe the parts that a job will have, and how long one worker and its processors will take."""
    rates = find_reading_rates(config)
    seconds = input_bytes / (rates.per_second or USUAL_BYTES_PER_SECOND)
    cpu_seconds = input_bytes / (rates.per_cpu_second or USUAL_BYTES_PER_SECOND)
    return {
        "parts": parts,
        "hours": round(seconds / 3600, 6),
        "cpu_hours": round(cpu_seconds / 3600, 6),
        "duration": f"PT{max(math.ceil(seconds), 1)}S",
    }


def _describe_estimate(estimate: Estimate, is_sketch: bool) -> dict[str, Any]:
    """``size`` is that of the results before compression; jobs cost nothing.

    Steps and memory depend on the chunks, which a sketch does not have.
    """
    from_chunks = {"tasks": estimate.tasks, "worker_memory": estimate.worker_bytes}
    return {
        "costs": 0,
        "downloads_included": ANY_NUMBER,
        "size": estimate.output_bytes,
        "input_size": estimate.input_bytes,
        "datasets": estimate.datasets,
        "pixels": estimate.pixels,
        **({} if is_sketch else from_chunks),
    }
