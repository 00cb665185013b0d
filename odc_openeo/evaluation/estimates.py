"""Estimate what a job would take from its lazily evaluated graph: nothing is read or computed."""

from __future__ import annotations

from typing import Any, Final

from odc_openeo.config import Config
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.graph.estimate import Estimate
from odc_openeo.graph.estimate import estimate_computation as estimate_values
from odc_openeo.jobs import Job
from odc_openeo.jobs.options import parse_archives
from odc_openeo.registry.environment import RunLimits
from odc_openeo.user_data.run_environment import make_environment

SKETCH_ABOVE: Final = 20_000
"""Chunks of a load from which on only its form is known here: building larger graphs takes too long."""

ANY_NUMBER: Final = 2**31 - 1
"""Downloads that cost nothing, in numbers: null says the same, but the R client fails without a number."""


def estimate_job(config: Config, job: Job) -> dict[str, Any]:
    """Return the estimate as the API has it, with the numbers that it is made of.

    Raises what evaluating the graph raises: a job that can't run has no estimate.
    """
    limits, archives = RunLimits(sketch_above_chunks=SKETCH_ABOVE), parse_archives(job.draft.extras)
    env = make_environment(config, job.user, limits, exports=[], archives=archives)
    value = evaluate(job.draft.process, env, limits=GraphLimits.from_config(config))
    saved = [output.data for output in env.outputs] or [value]
    estimate = estimate_values([value, *saved], saved, env.loads, config.threads_per_worker)
    return _describe_estimate(estimate, any(load.chunks > SKETCH_ABOVE for load in env.loads))


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
