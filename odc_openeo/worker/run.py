"""One run of one job, in a process of its own: evaluate, compute, write, tell the supervisor.

The process talks to nobody but the catalogue, the cluster and, by a pipe, its supervisor. It may be killed at
any time: what it writes counts only when the supervisor has recorded it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import dask
from dask.array import PerformanceWarning

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo import cluster, db, load
from odc_openeo.config import Config, allowed_gdal_drivers
from odc_openeo.errors import InfrastructureBusy, Internal, OpenEOError, StorageFailure
from odc_openeo.formats import Asset, Output, write_outputs
from odc_openeo.formats.blocks import BATCH_BYTES
from odc_openeo.formats.storing import is_full, storing
from odc_openeo.formats.thumbnail import thumbnail
from odc_openeo.gdal_drivers import secure_gdal
from odc_openeo.graph import Limits, evaluate
from odc_openeo.graph.estimate import read_bytes
from odc_openeo.jobs import LEVELS, Entry, Job
from odc_openeo.jobs.options import resources
from odc_openeo.jobs.records import entry_of
from odc_openeo.memory_failures import is_memory_failure
from odc_openeo.process import Environment
from odc_openeo.runners.memory import lift_memory_limit, limit_memory, memory_exceeded
from odc_openeo.storage import storage
from odc_openeo.stored import Library
from odc_openeo.worker.describe import RecordingCatalog, describe, details
from odc_openeo.worker.exporting import carry_out

log = logging.getLogger(__name__)

MOST_PROGRESS: Final = 99.0
"""Only a finished job is at 100."""

TELLING: Final = ("odc_openeo.cluster", "odc_openeo.load", "odc_openeo.processes", "rasterio")
"""Loggers whose warnings are for the owner of a job."""

NOT_FOR_USERS: Final = (
    DeprecationWarning,
    PendingDeprecationWarning,
    FutureWarning,
    ImportWarning,
    ResourceWarning,
    RuntimeWarning,
    PerformanceWarning,
)
"""Warnings for developers, and those of numpy on NaN, which is no-data here."""


@dataclass(frozen=True)
class News:
    """What a run tells its supervisor: any of these."""

    entry: Entry | None = None
    progress: float | None = None
    cluster_cpu_s: float | None = None
    part: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Done:
    """The run has written all its files."""

    assets: Sequence[dict[str, Any]]
    details: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The run ended with an error; ``transient`` says that another try may help.

    ``counts``: it had begun to compute, so that this was one of the tries that a job has.
    """

    entry: Entry
    transient: bool
    counts: bool = True


@dataclass
class Channel:
    """The pipe to the supervisor, for all threads of the run."""

    pipe: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: News | Done | Failed) -> None:
        """Tell the supervisor."""
        with self.lock:
            self.pipe.send(message)


class Handler(logging.Handler):
    """Sends log records to the owner of the job, with the node that they come from."""

    def __init__(self, channel: Channel, level: str) -> None:
        super().__init__(LEVELS[level])
        self.channel = channel
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what libraries say again and again only once."""
        if not record.name.startswith("odc_openeo.run"):
            text = record.getMessage()
            if text in self.said:
                return
            self.said.add(text)
        self.channel.send(News(entry=entry_of(record)))


def run(config: Config, job: Job, key: str, folder: Path, pipe: Connection) -> None:
    """Run a job; its files go below ``key`` in the storage, by way of ``folder`` unless that is the place."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    secure_gdal(allowed_gdal_drivers())
    limit_memory(config.job_memory)
    channel = Channel(pipe)
    this = Run(config, job, key, folder, channel, _log_to(channel, job))
    try:
        channel.send(this.result())
    except Exception as error:
        channel.send(_failure(error, counts=this.began, memory_bytes=config.job_memory))
    finally:
        pipe.close()
        # Threads of dask's client would only delay the end.
        os._exit(0)


def _log_to(channel: Channel, job: Job) -> logging.Logger:
    """The logger of the run. Warnings of libraries that a user can do something about go to it, too."""
    handler = Handler(channel, job.draft.log_level)
    own = logging.getLogger(f"odc_openeo.run.{job.id}")
    own.setLevel(LEVELS[job.draft.log_level])
    libraries = logging.getLogger("odc_openeo.warnings")
    for logger in (own, libraries, *map(logging.getLogger, TELLING)):
        logger.addHandler(handler)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not issubclass(category, NOT_FOR_USERS):
            libraries.warning("%s: %s", category.__name__, message)

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show
    return own


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass
class Run:
    """The state of a run: bytes to be computed, bytes done."""

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

    def result(self) -> Done:
        """Evaluate the graph, write its outputs, describe them."""
        catalog = RecordingCatalog(self.config)
        library = Library(self.config, self.job.user)
        env = Environment(catalog=catalog, user=str(self.job.user), log=self.log, lookup=library, exports=[])
        limits = Limits.from_config(self.config)
        value = evaluate(self.job.draft.process, env, limits=limits)
        saved = [value, *(output.data for output in env.outputs)]
        self.read = read_bytes(saved)
        self.total = sum(nbytes(each) for each in ([o.data for o in env.outputs] or [value]))
        self.log.info("The process graph is evaluated; about %.1f MB are to be read", self.read / 1e6)
        with storing():
            self.folder.mkdir(parents=True, exist_ok=True)
        written = self._write(value, env.outputs)
        assets, told = [describe(asset) for asset in written], details(catalog, self.config)
        outputs = [
            [described for asset, described in zip(written, assets, strict=True) if asset.output == i]
            for i in range(len(env.outputs))
        ]
        carry_out(self.config, self.job, self.key, env.exports or (), outputs, told, self.log)
        return Done([*assets, *self._thumbnail(written)], told)

    def _thumbnail(self, written: Sequence[Asset]) -> list[dict[str, Any]]:
        picture = thumbnail(written, self.folder)
        if picture is None:
            return []
        self._store([picture])
        return [describe(picture)]

    def _write(self, value: Any, outputs: Sequence[Output]) -> list[Asset]:
        if len(outputs) < 2 or self.total <= BATCH_BYTES:
            assets = write_outputs(value, outputs, self.folder, self.compute)
            self._store(assets)
            return assets
        # One after the other: what is written shows as partial results.
        assets = []
        for i, output in enumerate(outputs, 1):
            found = write_outputs(None, [output], self.folder, self.compute, f"result_{i}")
            written = [replace(asset, output=i - 1) for asset in found]
            self._store(written)
            assets += written
            self.channel.send(News(part=[describe(asset) for asset in assets]))
            self.log.info("Wrote %s", ", ".join(asset.path.name for asset in written))
        return assets

    def _store(self, assets: Sequence[Asset]) -> None:
        store = storage(self.config)
        if store.local(self.key) != self.folder:
            for asset in assets:
                store.put(asset.path, f"{self.key}/{asset.path.name}")

    def compute(self, *collections: Any) -> tuple[Any, ...]:
        """Compute on the cluster, telling how far it is."""
        size = sum(nbytes(each) for each in collections)
        if self._on_cluster and not self.began:
            cluster.wait_until_ready(self.config)
        self.began = True
        self.before = cluster.counters(self.config, self.span) if self._on_cluster else cluster.Counters()

        def progress(done: int, chunks: int) -> None:
            self._tell(size, done / max(chunks, 1))

        values = cluster.compute(
            self.config,
            *collections,
            nbytes=self.read,
            progress=progress,
            span=self.span,
            resources=resources(self.job.draft.extras),
        )
        self.done += size
        self._tell(0, 0)
        return values

    @property
    def span(self) -> str:
        """What the scheduler counts tasks and seconds of this run by."""
        return self.key

    @property
    def _on_cluster(self) -> bool:
        return not cluster.runs_here(self.config, self.read)

    def _tell(self, size: int, chunks: float) -> None:
        """Progress and CPU so far; of the computation under way by its tasks, else by its chunks."""
        now = cluster.counters(self.config, self.span) if self._on_cluster else cluster.Counters()
        tasks = now.tasks - self.before.tasks
        part = max(chunks, (now.done - self.before.done) / tasks if tasks > 0 else 0)
        percent = 100 * (self.done + size * min(part, 1)) / max(self.total, 1)
        self.channel.send(News(progress=min(percent, MOST_PROGRESS), cluster_cpu_s=now.cpu_s))


def nbytes(value: Any) -> int:
    """The size of a dask collection when it is computed; 0 of all else, and of unknown sizes."""
    size = getattr(value, "nbytes", 0) if dask.is_dask_collection(value) else 0
    # Of a delayed object any attribute is another delayed object.
    return int(size) if isinstance(size, int | float) and size == size else 0


def _failure(error: Exception, *, counts: bool, memory_bytes: int) -> Failed:
    if is_memory_failure(error):
        lift_memory_limit()
        explained: OpenEOError = memory_exceeded(memory_bytes)
    else:
        explained = error if isinstance(error, OpenEOError) else load.explain(error) or Internal()
    if isinstance(explained, Internal):
        log.error("a job failed", exc_info=error)
    body = explained.to_dict()
    path = {"path": [{"node_id": explained.node}]} if explained.node else {}
    entry = Entry("error", body["message"], db.now(), {"code": explained.code, **path})
    lost = isinstance(explained, InfrastructureBusy)
    unreachable = isinstance(explained, StorageFailure) and not is_full(error)
    return Failed(entry, lost or unreachable, counts)
