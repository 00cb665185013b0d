"""The metrics that are counted: written by several processes into files of one folder, or kept in this one.

Files are those of the multiprocess mode of prometheus-client. The launcher of the processes makes the folder
and names it in their environment.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from odc_openeo.config import find_metrics_folder
from odc_openeo.storage.scratch_folders import describe_process, is_abandoned
from odc_openeo.telemetry.counts import Count, set_sink

PREFIX: Final = "odc_openeo_"
BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
"""Upper bounds of durations in seconds."""


@dataclass(frozen=True)
class MetricDefinition:
    """A metric that is counted; ``mode``: how the gauges of several processes combine."""

    kind: type[Counter] | type[Gauge] | type[Histogram]
    text: str
    labels: tuple[str, ...] = ()
    mode: str = "livesum"


DEFINITIONS: Final[Mapping[str, MetricDefinition]] = {
    "requests": MetricDefinition(Counter, "HTTP requests.", ("method", "endpoint", "status")),
    "request_duration_seconds": MetricDefinition(
        Histogram, "Time until an HTTP response was ready.", ("method", "endpoint")
    ),
    "errors": MetricDefinition(Counter, "Errors in HTTP responses by openEO error code.", ("code",)),
    "runs": MetricDefinition(Counter, "Runs of process graphs, tiles and validations.", ("lane", "outcome")),
    "run_duration_seconds": MetricDefinition(Histogram, "Duration of these runs.", ("lane",)),
    "runs_active": MetricDefinition(Gauge, "Runs in progress.", ("lane",)),
    "job_runs": MetricDefinition(Counter, "Runs of batch jobs by outcome.", ("outcome",)),
    "job_cpu_seconds": MetricDefinition(Counter, "CPU time of finished and failed runs of batch jobs."),
    "cache_requests": MetricDefinition(Counter, "Lookups in caches.", ("cache", "outcome")),
    "cache_bytes": MetricDefinition(Gauge, "Size of caches in bytes.", ("cache",), "livesum"),
    "result_cache_bytes": MetricDefinition(Gauge, "Size of the cache of results on disk.", (), "mostrecent"),
    "udf_calls": MetricDefinition(Counter, "Calls of user-defined functions by outcome.", ("outcome",)),
    "udf_processes_started": MetricDefinition(Counter, "Processes of user code that were started."),
    "udf_processes_killed": MetricDefinition(
        Counter, "Processes of user code that were killed after a fault."
    ),
}
"""By name without prefix. Each is set by `odc_openeo.telemetry.counts`."""


class Recorder:
    """The metrics of this process; `collect` has those of all processes that share a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            values.ValueClass = MultiProcessValue(_identify_process)
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for name, definition in DEFINITIONS.items():
            options: dict[Any, dict[str, Any]] = {
                Gauge: {"multiprocess_mode": definition.mode},
                Histogram: {"buckets": BUCKETS},
            }
            self._metrics[name] = definition.kind(
                PREFIX + name,
                definition.text,
                definition.labels,
                registry=self._registry,
                **options.get(definition.kind, {}),
            )
        self._all = CollectorRegistry() if folder is not None else self._registry
        if folder is not None:
            MultiProcessCollector(self._all, path=str(folder))

    def record(self, count: Count) -> None:
        """Record a count. What cannot be written, say on a full disk, is lost."""
        metric = self._metrics[count.name]
        with contextlib.suppress(OSError):
            child = metric.labels(**dict(count.labels)) if count.labels else metric
            if count.kind == "observe":
                child.observe(count.value)
            elif count.kind == "set":
                child.set(count.value)
            else:
                child.inc(count.value)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all processes."""
        if self.folder is not None:
            remove_gauges_of_ended_processes(self.folder)
        texts = {PREFIX + name: definition.text for name, definition in DEFINITIONS.items()}
        for metric in self._all.collect():
            metric.documentation = texts.get(metric.name, metric.documentation)
            yield metric


@cache
def _describe_process(pid: int) -> str:
    return describe_process()


def _identify_process() -> str:
    # Ids are used again: the name also has the start of the process.
    return _describe_process(os.getpid())


_recorders: dict[int, Recorder] = {}
_lock = threading.Lock()


def start_recording() -> Recorder:
    """Record the counts of this process, from the first call on; return its recorder."""
    with _lock:
        if os.getpid() not in _recorders:
            _recorders[os.getpid()] = Recorder(find_metrics_folder())
            set_sink(_recorders[os.getpid()].record)
        return _recorders[os.getpid()]


def remove_gauges_of_ended_processes(folder: Path) -> None:
    """Remove what ended processes have left that counts only while they live, such as runs in progress."""
    for file in _list_live_gauges(folder):
        process = Path(file.name.split("_", 2)[2].removesuffix(".db"))
        if is_abandoned(process):
            file.unlink(missing_ok=True)


def _list_live_gauges(folder: Path) -> Iterable[Path]:
    return list(folder.glob("gauge_live*_*.db"))
