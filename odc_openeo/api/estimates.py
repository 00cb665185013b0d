"""What a job would take, told from its lazily evaluated graph: nothing is read or computed."""

from __future__ import annotations

from typing import Any

import dask

from odc_openeo.api.backend import Backend
from odc_openeo.graph import Limits, evaluate
from odc_openeo.graph.estimate import read_bytes
from odc_openeo.jobs import Job
from odc_openeo.process import Environment
from odc_openeo.stored import Library


def estimate(backend: Backend, job: Job) -> dict[str, Any]:
    """``size``: bytes of the results before compression; ``input_size``: bytes of pixels to be read.

    Raises what evaluating the graph raises: a job that can't run has no estimate.
    """
    config = backend.config
    library = Library(config, job.user)
    env = Environment(catalog=backend.catalog, user=str(job.user), lookup=library, exports=[])
    limits = Limits(nodes=config.max_graph_nodes, depth=config.max_graph_depth)
    value = evaluate(job.draft.process, env, limits=limits)
    made = [output.data for output in env.outputs] or [value]
    return {"size": sum(_nbytes(each) for each in made), "input_size": read_bytes([value, *made])}


def _nbytes(value: Any) -> int:
    if not dask.is_dask_collection(value):
        return int(getattr(value, "nbytes", 0)) or len(str(value))
    # Numbers of geometries or pixels that only computing tells are NaN.
    return int(value.nbytes) if value.nbytes == value.nbytes else 0
