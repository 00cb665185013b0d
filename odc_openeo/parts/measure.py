"""Measure what a part of a job takes, from its lazy graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask

from odc_openeo.graph import GraphLimits
from odc_openeo.graph.estimate import THREADS, Estimate, estimate_computation
from odc_openeo.parts.evaluate import evaluate_part
from odc_openeo.parts.model import JobSplit, OutputTemplate, Part, PartLimits, Stage
from odc_openeo.registry.environment import Environment


@dataclass(frozen=True)
class Size:
    """The tasks of a dask graph, the bytes it reads, the bytes its largest tasks hold in a worker."""

    tasks: int
    input_bytes: int
    worker_bytes: int

    @classmethod
    def from_estimate(cls, estimate: Estimate) -> Size:
        """Return the size that was estimated."""
        return cls(estimate.tasks, estimate.input_bytes, estimate.worker_bytes)

    def find_excess(self, limits: PartLimits) -> float:
        """Return the largest share of a limit that this is; more than 1 is too much."""
        shares = [self.tasks / limits.tasks, self.input_bytes / limits.input_bytes]
        if limits.worker_bytes is not None:
            shares.append(self.worker_bytes / limits.worker_bytes)
        return max(shares)

    def scale(self, factor: float) -> Size:
        """Return the size of something that is larger by a factor."""
        return Size(math.ceil(self.tasks * factor), math.ceil(self.input_bytes * factor), self.worker_bytes)


def measure_part(
    process: Mapping[str, Any],
    env: Environment,
    template: OutputTemplate,
    part: Part,
    graph_limits: GraphLimits | None = None,
    stage: Stage | None = None,
    threads: int = THREADS,
) -> Size:
    """Evaluate a part lazily and measure its graph, which has no tasks but those it needs.

    ``threads`` are those of a worker.
    """
    split = JobSplit("space" if stage is None else "stages", (part,), template=template, stage=stage)
    value, outputs = evaluate_part(process, env, split, part, graph_limits)
    return measure_value(outputs[0].data if outputs else value, threads)


def measure_value(value: Any, threads: int = THREADS) -> Size:
    """Measure the graph of a lazy value, for workers with so many threads."""
    if not dask.is_dask_collection(value):
        return Size(0, 0, 0)
    return Size.from_estimate(estimate_computation([value], [value], [], threads))
