"""Metrics of what is there now: jobs by status, the queue, the cluster, the parts of the service."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from odc_openeo import __version__
from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.jobs import queue
from odc_openeo.monitoring.recorder import PREFIX
from odc_openeo.stack.readiness import NOT_CONFIGURED, OK, Readiness
from odc_openeo.udf.folders import count_work_folders

FRESH_SECONDS: Final = 5.0
"""How long the state counts that costs queries."""

STATUSES: Final = ("created", "queued", "running", "canceled", "finished", "error")
log = logging.getLogger(__name__)


class ServiceState:
    """Looks at the database and the cluster, at most every few seconds; what does not answer is left out."""

    def __init__(self, config: Config, readiness: Readiness) -> None:
        self._config = config
        self._readiness = readiness
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._time = -FRESH_SECONDS

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        with self._lock:
            if time.monotonic() - self._time >= FRESH_SECONDS:
                self._metrics = list(self._look())
                self._time = time.monotonic()
        yield from self._metrics

    def _look(self) -> Iterator[Metric]:
        yield _make_gauge("info", "The version of the service.", ("version",), {(__version__,): 1})
        states = self._readiness.read_states()
        parts: dict[tuple[str, ...], float] = {
            (name,): float(state == OK) for name, state in states.items() if state != NOT_CONFIGURED
        }
        yield _make_gauge("part_up", "Whether a part of the service is usable.", ("part",), parts)
        text = "Processes of user code on this machine."
        yield _make_gauge("udf_processes", text, (), {(): count_work_folders()})
        if states.get("database") == OK:
            yield from self._try(self._describe_jobs)
        if states.get("dask") == OK:
            yield from self._try(self._describe_cluster)

    def _try(self, describe: Callable[[], Iterable[Metric]]) -> list[Metric]:
        try:
            return list(describe())
        except (OpenEOError, OSError, TimeoutError) as error:
            log.warning("metrics are incomplete: %s", error)
            return []

    def _describe_jobs(self) -> Iterator[Metric]:
        state = queue.read_queue_state(self._config)
        counts: dict[tuple[str, ...], float] = {(status,): state.counts.get(status, 0) for status in STATUSES}
        yield _make_gauge("jobs", "Batch jobs by status.", ("status",), counts)
        text = "Time that the job which has waited longest is due."
        yield _make_gauge("job_queue_age_seconds", text, (), {(): state.age_s})
        yield _make_gauge("job_workers_busy", "Workers that run a job.", (), {(): state.workers})

    def _describe_cluster(self) -> Iterator[Metric]:
        state = cluster.read_state(self._config)
        for name, text, value in (
            ("dask_workers", "Dask workers.", state.workers),
            ("dask_threads", "Threads of the dask workers.", state.threads),
            ("dask_memory_bytes", "Memory that the dask workers use.", state.memory),
            ("dask_memory_limit_bytes", "Memory limits of the dask workers together.", state.memory_limit),
            ("dask_tasks_executing", "Tasks that the dask workers execute.", state.executing),
        ):
            yield _make_gauge(name, text, (), {(): value})
        calls = CounterMetricFamily(
            f"{PREFIX}dask_udf_calls",
            "Calls of user-defined functions by the dask workers that run now.",
            labels=("outcome",),
        )
        for outcome, count in state.udf_calls.items():
            calls.add_metric((outcome,), count)
        yield calls


def _make_gauge(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        gauge.add_metric(label_values, value)
    return gauge
