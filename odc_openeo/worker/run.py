"""One run of one job, in its own process: evaluate, compute, write, report to the supervisor.

The process communicates only with the catalogue, the cluster and, by a pipe, its supervisor. It may be killed
at any time: its files count only once the supervisor has recorded them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import dask
from dask.array import PerformanceWarning

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo import db
from odc_openeo.compute import cluster
from odc_openeo.config import Config, allowed_gdal_drivers, mask_password
from odc_openeo.errors import InfrastructureBusy, Internal, OpenEOError, StorageFailure, walk_causes
from odc_openeo.formats import Asset, Output, name_outputs, write_outputs
from odc_openeo.formats.blocks import BATCH_BYTES
from odc_openeo.formats.thumbnail import write_thumbnail
from odc_openeo.formats.write_errors import as_storage_failure, is_disk_full
from odc_openeo.graph.estimate import count_read_bytes
from odc_openeo.jobs import LEVELS, Entry, Job
from odc_openeo.jobs.options import MEMORY, parse_archives, parse_resources
from odc_openeo.jobs.records import make_entry
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.runners.hidden_memory import hide_memory
from odc_openeo.runners.memory import lift_memory_limit, limit_memory, memory_exceeded
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.runners.server_log import log_to_stderr
from odc_openeo.storage import be_patient, get_storage
from odc_openeo.telemetry.counts import drain_counts
from odc_openeo.telemetry.log_records import set_process_log_ids
from odc_openeo.udf.pool import pool
from odc_openeo.untrusted.gdal_drivers import secure_gdal
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.worker.exporting import carry_out_exports
from odc_openeo.worker.messages import RunDone, RunFailed, RunSplit, RunUpdate
from odc_openeo.worker.planning import JobPlanner
from odc_openeo.worker.provenance import RecordingCatalog, collect_provenance, describe_asset

log = logging.getLogger(__name__)

MOST_PROGRESS: Final = 99.0
"""Only finished jobs are at 100 %."""

LONGEST_CAUSE: Final = 500
"""Characters of each error in the log of the worker."""

FORWARDED_LOGGERS: Final = (
    "odc_openeo.compute.cluster",
    "odc_openeo.load",
    "odc_openeo.processes",
    "rasterio",
)
"""Loggers whose warnings are forwarded to the owner of the job."""

NOT_FOR_USERS: Final = (
    DeprecationWarning,
    PendingDeprecationWarning,
    FutureWarning,
    ImportWarning,
    ResourceWarning,
    RuntimeWarning,
    PerformanceWarning,
)
"""Warnings for developers, and warnings of numpy about NaN, which is no-data here."""


@dataclass
class Channel:
    """The pipe to the supervisor, for all threads of the run."""

    pipe: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: RunUpdate | RunDone | RunFailed | RunSplit) -> None:
        """Send a message to the supervisor."""
        with self.lock:
            self.pipe.send(message)


class OwnerLogHandler(logging.Handler):
    """Sends log records to the owner of the job, with the node they come from."""

    def __init__(self, channel: Channel, level: str) -> None:
        super().__init__(LEVELS[level])
        self.channel = channel
        self.sent: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; repeated messages of libraries are sent only once."""
        if not record.name.startswith("odc_openeo.run"):
            text = record.getMessage()
            if text in self.sent:
                return
            self.sent.add(text)
        self.channel.send(RunUpdate(entry=make_entry(record)))


def run_job(config: Config, job: Job, key: str, folder: Path, pipe: Connection) -> None:
    """Run a job and store its files below ``key``; ``folder`` is where they are written first."""
    prepare_process(config, job)
    channel = Channel(pipe)
    job_run = Run(config, job, key, folder, channel, make_run_logger(channel, job))
    try:
        send_outcome(job_run, job_run.produce_results)
    finally:
        pipe.close()
        pool.stop()
        # Threads of the dask client would only delay the exit.
        os._exit(0)


def send_outcome(job_run: Run, produce: Callable[[], RunDone | RunSplit]) -> bool:
    """Produce what a run is for and send its outcome; False if it has failed."""
    channel = job_run.channel
    try:
        done = produce()
        channel.send(RunUpdate(counts=tuple(drain_counts())))
        channel.send(done)
    except Exception as error:
        channel.send(RunUpdate(counts=tuple(drain_counts())))
        channel.send(explain_failure(error, counts=job_run.began, memory_bytes=job_run.config.job_memory))
        return False
    return True


def prepare_process(config: Config, job: Job) -> None:
    """Prepare this process for runs of a job: what it may open, its memory, its logs."""
    hide_memory()
    set_process_log_ids(job=job.id, user=job.user)
    log_to_stderr(config)
    # What a run says to its owner is in the logs of the job only.
    logging.getLogger("odc_openeo.run").propagate = False
    threading.Thread(target=_end_with_parent, daemon=True).start()
    secure_gdal(allowed_gdal_drivers())
    limit_memory(config.job_memory)
    be_patient()


def make_run_logger(channel: Channel, job: Job) -> logging.Logger:
    """Make the logger of the run; its handler also gets warnings of libraries that matter to users."""
    handler = OwnerLogHandler(channel, job.draft.log_level)
    run_logger = logging.getLogger(f"odc_openeo.run.{job.id}")
    run_logger.setLevel(LEVELS[job.draft.log_level])
    libraries = logging.getLogger("odc_openeo.warnings")
    for logger in (run_logger, libraries, *map(logging.getLogger, FORWARDED_LOGGERS)):
        logger.addHandler(handler)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not issubclass(category, NOT_FOR_USERS):
            libraries.warning("%s: %s", category.__name__, message)

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show_warning
    return run_logger


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass
class Run:
    """The state of a run, with bytes of the outputs (``total``), computed so far (``done``), to ``read``."""

    config: Config
    job: Job
    key: str
    folder: Path
    channel: Channel
    log: logging.Logger
    total: int = 0
    done: int = 0
    read: int = 0
    began: bool = False
    before: cluster.Counters = field(default_factory=cluster.Counters)

    def produce_results(self) -> RunDone | RunSplit:
        """Evaluate the process graph, write its outputs and describe them; or plan the job in parts."""
        for warning in parse_resources(self.job.draft.extras).warnings:
            self.log.warning("%s", warning)
        catalog = RecordingCatalog(self.config)
        make_env = partial(
            make_environment,
            self.config,
            self.job.user,
            catalog=catalog,
            log=self.log,
            archives=parse_archives(self.job.draft.extras),
        )
        planner = JobPlanner(self.config, self.job, self.key, self.log, make_env)
        sketch = planner.evaluate_sketch()
        split = planner.plan_large(sketch)
        if split is not None:
            return RunSplit(planner.prepare_parts(split, sketch, collect_provenance(catalog, self.config)))
        value, env = planner.evaluate_whole(sketch)
        saved = [value, *(output.data for output in env.outputs)]
        self.read = count_read_bytes(saved)
        self.total = sum(map(count_output_bytes, [output.data for output in env.outputs] or [value]))
        self.log.info("The process graph is evaluated; about %.1f MB will be read", self.read / 1e6)
        with as_storage_failure():
            self.folder.mkdir(parents=True, exist_ok=True)
        written = self._write_outputs(value, env.outputs)
        assets, provenance = (
            [describe_asset(asset) for asset in written],
            collect_provenance(catalog, self.config),
        )
        outputs = [
            [described for asset, described in zip(written, assets, strict=True) if asset.output == i]
            for i in range(len(env.outputs))
        ]
        carry_out_exports(self.config, self.job, self.key, env.exports or (), outputs, provenance, self.log)
        return RunDone([*assets, *self._make_thumbnail(written)], provenance)

    def _make_thumbnail(self, written: Sequence[Asset]) -> list[dict[str, Any]]:
        picture = write_thumbnail(written, self.folder)
        if picture is None:
            return []
        self._store_assets([picture])
        return [describe_asset(picture)]

    def _write_outputs(self, value: Any, outputs: Sequence[Output]) -> list[Asset]:
        if len(outputs) < 2 or self.total <= BATCH_BYTES:
            assets = write_outputs(value, outputs, self.folder, self.compute)
            self._store_assets(assets)
            return assets
        # One output after the other, each of which is published as partial results.
        assets = []
        for i, (output, name) in enumerate(zip(outputs, name_outputs(outputs), strict=True)):
            output_assets = write_outputs(None, [output], self.folder, self.compute, [name])
            written = [replace(asset, output=i) for asset in output_assets]
            self._store_assets(written)
            assets += written
            self.channel.send(RunUpdate(partial_assets=[describe_asset(asset) for asset in assets]))
            self.log.info("Wrote %s", ", ".join(asset.path.name for asset in written))
        return assets

    def _store_assets(self, assets: Sequence[Asset]) -> None:
        store = get_storage(self.config, patient=True)
        if store.find_local_path(self.key) != self.folder:
            for asset in assets:
                store.put(asset.path, f"{self.key}/{asset.path.name}", asset.media_type)

    def compute(self, *collections: Any) -> tuple[Any, ...]:
        """Compute on the cluster and report the progress."""
        size = sum(map(count_output_bytes, collections))
        if self._on_cluster and not self.began:
            cluster.wait_until_ready(self.config)
        self.began = True
        self.before = (
            cluster.read_counters(self.config, self.span) if self._on_cluster else cluster.Counters()
        )

        def report_chunks(done: int, chunks: int) -> None:
            self._send_progress(size, done / max(chunks, 1))

        values = cluster.compute(
            self.config,
            *collections,
            nbytes=self.read,
            progress=report_chunks,
            span=self.span,
            resources=self._find_resources() if self._on_cluster else None,
        )
        self.done += size
        self._send_progress(0, 0)
        return values

    def _find_resources(self) -> Mapping[str, float]:
        """The resources that each task takes; memory of other back-ends' options at most what there is."""
        resources = parse_resources(self.job.draft.extras)
        if not resources.is_adapted:
            return resources.amounts
        memory = min(resources.amounts[MEMORY], cluster.get_largest_amount(self.config, MEMORY))
        other_amounts = {name: amount for name, amount in resources.amounts.items() if name != MEMORY}
        return {**other_amounts, MEMORY: memory} if memory else other_amounts

    @property
    def span(self) -> str:
        """The name by which the scheduler counts tasks and seconds of this run."""
        return self.key

    @property
    def _on_cluster(self) -> bool:
        return not cluster.runs_here(self.config, self.read)

    def _send_progress(self, size: int, chunks: float) -> None:
        """Send progress and CPU so far; the current computation is measured by its tasks or its chunks."""
        now = cluster.read_counters(self.config, self.span) if self._on_cluster else cluster.Counters()
        tasks = now.tasks - self.before.tasks
        part = max(chunks, (now.done - self.before.done) / tasks if tasks > 0 else 0)
        percent = 100 * (self.done + size * min(part, 1)) / max(self.total, 1)
        self.channel.send(RunUpdate(progress=min(percent, MOST_PROGRESS), cluster_cpu_s=now.cpu_s))


def count_output_bytes(value: Any) -> int:
    """Return the size of a dask collection once it is computed; 0 for other values and unknown sizes."""
    size = getattr(value, "nbytes", 0) if dask.is_dask_collection(value) else 0
    # Any attribute of a delayed object is another delayed object.
    return int(size) if isinstance(size, int | float) and size == size else 0


def explain_failure(error: Exception, *, counts: bool, memory_bytes: int) -> RunFailed:
    if is_memory_failure(error):
        lift_memory_limit()
        explained: OpenEOError = memory_exceeded(memory_bytes)
    else:
        explained = error if isinstance(error, OpenEOError) else explain_read_failure(error) or Internal()
    if isinstance(explained, Internal):
        log.error("a job failed", exc_info=error)
    body = explained.to_dict()
    path = {"path": [{"node_id": explained.node}]} if explained.node else {}
    entry = Entry("error", body["message"], db.now(), {"code": explained.code, **path})
    is_cluster_lost = isinstance(explained, InfrastructureBusy)
    is_storage_unreachable = (
        isinstance(explained, StorageFailure) and not explained.is_permanent and not is_disk_full(error)
    )
    return RunFailed(entry, is_cluster_lost or is_storage_unreachable, counts, _describe_causes(error))


def _describe_causes(error: Exception) -> str:
    """Describe the errors from the one that ended the run down to its first cause, each on one line."""
    text = " <- ".join(f"{type(e).__name__}: {str(e)[:LONGEST_CAUSE]}" for e in walk_causes(error))
    return mask_password("".join(c if c.isprintable() else " " for c in text))
