"""Find out whether a job runs in parts, and prepare what its parts have in common."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import xarray as xr

from odc_openeo.config import Config
from odc_openeo.formats import name_outputs
from odc_openeo.formats.icechunk_parts import create_shared_repository
from odc_openeo.formats.parquet_parts import make_table_schema
from odc_openeo.formats.skeletons import strip_values
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.graph.estimate import estimate_computation
from odc_openeo.jobs import Job
from odc_openeo.jobs.options import parse_soft_errors
from odc_openeo.jobs.parts import PlannedParts
from odc_openeo.parts import JobSplit, PartLimits, is_larger_than_part, plan_parts, read_part_limits
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.storage import get_storage
from odc_openeo.storage.repository_places import keeps_repositories, open_repository_place
from odc_openeo.worker.part_layouts import choose_layout, compute_digest, list_starts, make_zarr_template

SKELETON: Final = ".parts/skeleton"
"""The file with the whole result but its values, below the folder of the run."""

SCHEMA: Final = ".parts/schema"
"""The file with the schema of tables, there as well."""


@dataclass
class Sketch:
    """A graph evaluated lazily, of which loads that are too large for one graph are only sketches."""

    value: Any
    env: Environment

    @property
    def data(self) -> Any:
        """The data that is saved."""
        return self.env.outputs[0].data if self.env.outputs else self.value


@dataclass
class JobPlanner:
    """Plans one run of a job; ``make_env`` makes an environment for a `RunLimits`."""

    config: Config
    job: Job
    key: str
    log: logging.Logger
    make_env: Callable[..., Environment]

    @cached_property
    def limits(self) -> PartLimits:
        """The most that one part may be, now."""
        return read_part_limits(self.config)

    def evaluate_sketch(self) -> Sketch:
        """Evaluate the graph; for a job that is no larger than a part this is all that it needs."""
        env = self.make_env(RunLimits.for_planning(self.limits.tasks), exports=[])
        return Sketch(self._evaluate(env), env)

    def _evaluate(self, env: Environment) -> Any:
        return evaluate(self.job.draft.process, env, limits=GraphLimits.from_config(self.config))

    def plan_large(self, sketch: Sketch) -> JobSplit | None:
        """Plan a job that is larger than a part may be; None, with a reason in its log, if it runs whole."""
        if not self._is_large(sketch):
            return None
        # It evaluates the graph, and some parts of it: their loads were announced before.
        env = self.make_env(exports=[], log=logging.getLogger("odc_openeo.worker.planning"))
        split = plan_parts(self.job.draft.process, env, self.limits, GraphLimits.from_config(self.config))
        if split.is_whole or len(split.parts) < 2:
            if split.reason:
                self.log.info("The job runs whole: %s", split.reason)
            return None
        return split

    def _is_large(self, sketch: Sketch) -> bool:
        saved, loads = [sketch.data], sketch.env.loads
        estimate = estimate_computation([sketch.value, *saved], saved, loads, self.limits.worker_threads)
        return is_larger_than_part(estimate, loads, self.limits)

    def evaluate_whole(self, sketch: Sketch) -> tuple[Any, Environment]:
        """Return the value of the whole graph: that of the sketch, unless the job is large.

        Then loads may be sketches, or too large to be read at once, which is said now.
        """
        if not self._is_large(sketch):
            return sketch.value, sketch.env
        env = self.make_env(exports=[])
        return self._evaluate(env), env

    def prepare_parts(self, split: JobSplit, sketch: Sketch, details: Mapping[str, Any]) -> PlannedParts:
        """Store what all parts need, and return the plan for the book."""
        soft_errors = parse_soft_errors(self.job.draft.extras)
        store, data = get_storage(self.config, patient=True), sketch.data
        layout = choose_layout(split, shares_repository=keeps_repositories(store, self.key))
        document = split.to_dict()
        parts = document.pop("parts")
        document |= {"layout": layout, "stem": self._choose_stem(sketch)}
        if isinstance(data, xr.DataArray) and split.kind in ("space", "time"):
            skeleton = pickle.dumps(strip_values(data))
            store.write(f"{self.key}/{SKELETON}", io.BytesIO(skeleton))
            document["skeleton"] = compute_digest(skeleton)
            if layout == "commits":
                place = open_repository_place(store, f"{self.key}/{document['stem']}.icechunk")
                options = split.template.options
                create_shared_repository(place, data, options, list_starts(split), len(parts))
            if layout == "regions":
                make_zarr_template(store, f"{self.key}/{document['stem']}.zarr", data, split)
        if layout == "tables":
            schema = make_table_schema(data)
            store.write(f"{self.key}/{SCHEMA}", io.BytesIO(schema))
            document["schema"] = compute_digest(schema)
        bytes_read = f"{split.input_bytes / 1e6:,.1f} MB will be read in all"
        self.log.info("The job runs in %d parts (%s); about %s", len(parts), split.kind, bytes_read)
        return PlannedParts(document, parts, details, soft_errors)

    def _choose_stem(self, sketch: Sketch) -> str:
        names = name_outputs(sketch.env.outputs)
        return names[0] if names else "result"
