"""What a job would take, told from its lazily evaluated graph: nothing is read or computed."""

from __future__ import annotations

from typing import Any, Final

from odc_openeo.config import Config
from odc_openeo.evaluation.catalogs import shared_catalog
from odc_openeo.graph import Limits, evaluate
from odc_openeo.graph.estimate import Estimate
from odc_openeo.graph.estimate import estimate as estimate_values
from odc_openeo.jobs import Job
from odc_openeo.process import Environment
from odc_openeo.stored import Library

SKETCH_ABOVE: Final = 20_000
"""Chunks of a load from which on only its form is known here: building larger graphs takes too long."""


def estimate_job(config: Config, job: Job) -> dict[str, Any]:
    """Return the estimate as the API has it, with the numbers that it is made of.

    Raises what evaluating the graph raises: a job that can't run has no estimate.
    """
    env = Environment(
        catalog=shared_catalog(config),
        user=str(job.user),
        lookup=Library(config, job.user),
        exports=[],
        settings={"sketch_above": SKETCH_ABOVE},
    )
    limits = Limits.from_config(config)
    value = evaluate(job.draft.process, env, limits=limits)
    made = [output.data for output in env.outputs] or [value]
    found = estimate_values([value, *made], made, env.loads, config.threads_per_worker)
    return _document(found, any(load.chunks > SKETCH_ABOVE for load in env.loads))


def _document(found: Estimate, is_sketch: bool) -> dict[str, Any]:
    """``size`` is that of the results before compression; jobs cost nothing.

    Steps and memory depend on the chunks, which a sketch does not have.
    """
    known = {"tasks": found.tasks, "worker_memory": found.worker_bytes}
    return {
        "costs": 0,
        "size": found.output_bytes,
        "input_size": found.input_bytes,
        "datasets": found.datasets,
        "pixels": found.pixels,
        **({} if is_sketch else known),
    }
