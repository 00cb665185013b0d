"""Who runs jobs and their parts: an executor takes the next one that is due, whatever computes it.

`distributed` computes on the dask cluster of the service, `threads` on threads of the process of each job or
part, without any cluster: it scales with the number of workers. `prefect` plans jobs and leaves their parts
to flow runs of Prefect (`prefect_executor`, imported only if it is asked for).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import threading
from abc import ABC, abstractmethod
from importlib.util import find_spec
from multiprocessing import forkserver
from typing import Final

from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.jobs.claims import Claim, PartClaim, claim_work
from odc_openeo.jobs.parts import send_part_heartbeat
from odc_openeo.telemetry.log_records import log_ids
from odc_openeo.worker.heartbeats import Heartbeats
from odc_openeo.worker.part_supervisor import PartProcess, PartSupervision
from odc_openeo.worker.supervisor import Supervision
from odc_openeo.worker.upkeep import Upkeep

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.4
BUSY_SECONDS: Final = 1.0
PRELOAD: Final = (
    "odc_openeo.worker.run",
    "odc_openeo.worker.part_run",
    "odc_openeo.worker.supervisor",
    "odc_openeo.worker.part_supervisor",
)
"""Modules that the processes of jobs need, imported once by the server that they are forked from."""


class ExecutorUnavailable(RuntimeError):
    """An executor cannot be had here: a package or a setting is missing, as the message says."""


class ClaimRunner:
    """Runs jobs and parts that were claimed, one after the other."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.context = multiprocessing.get_context("forkserver")
        # Heavy modules are imported only once: the process of a job then starts in milliseconds.
        self.context.set_forkserver_preload(list(PRELOAD))
        self.part_process = PartProcess(config, self.context)

    def start_forkserver(self) -> None:
        """Begin to import what jobs need now, in the background, rather than when the first one waits."""
        forkserver.ensure_running()

    def release(self) -> None:
        """Let go of what is kept between parts of one job."""
        self.part_process.stop()

    def run_claim(self, claim: Claim, stop: threading.Event) -> None:
        """Run a job or a part that was claimed, and record its outcome."""
        config = self.config
        with log_ids(job=claim.job.id, user=claim.job.user):
            if isinstance(claim, PartClaim):
                with Heartbeats(config, claim, send_part_heartbeat) as beats:
                    PartSupervision(config, claim, self.context, beats, holder=self.part_process).run(stop)
            else:
                with Heartbeats(config, claim) as beats:
                    Supervision(config, claim, self.context, beats).run(stop)


class Executor(ClaimRunner, ABC):
    """Takes the next job or part that is due, and runs it."""

    name: str

    @abstractmethod
    def run_next(self, stop: threading.Event) -> bool:
        """Run what is due next until it ends or ``stop`` is set; False if nothing is due."""


class DistributedExecutor(Executor):
    """Computes on the dask cluster of the service; without one, on threads."""

    name = "distributed"

    def run_next(self, stop: threading.Event) -> bool:
        """Run the next job or part."""
        claim = claim_work(self.config, self.worker)
        if claim is None:
            return False
        self.run_claim(claim, stop)
        return True


class ThreadsExecutor(DistributedExecutor):
    """Computes on threads of the process of each job or part: no cluster at all."""

    name = "threads"

    def __init__(self, config: Config) -> None:
        super().__init__(config.model_copy(update={"dask_scheduler": None}))


EXECUTORS: Final[dict[str, type[Executor]]] = {
    executor.name: executor for executor in (DistributedExecutor, ThreadsExecutor)
}


def make_executor(config: Config, *, parts: bool) -> Executor:
    """Make the executor that the settings ask for; ``parts``: without a dask cluster.

    Raises:
        ExecutorUnavailable: it lacks a package or a setting.
    """
    if config.jobs == "prefect":
        return _make_prefect_executor(config.model_copy(update={"dask_scheduler": None}) if parts else config)
    return EXECUTORS["threads" if parts else "distributed"](config)


def _make_prefect_executor(config: Config) -> Executor:
    if find_spec("prefect") is None:
        raise ExecutorUnavailable("Prefect is not installed: pip install 'odc-openeo[prefect]'")
    from odc_openeo.worker.prefect_executor import PrefectExecutor

    return PrefectExecutor(config)


def run_worker(config: Config, stop: threading.Event, executor: Executor | None = None) -> None:
    """Run jobs and parts until ``stop`` is set; what is running then goes back to the queue."""
    executor = executor or DistributedExecutor(config)
    executor.start_forkserver()
    upkeep = Upkeep(config)
    log.info("worker %s is waiting for jobs (%s)", executor.worker, executor.name)
    unavailable = False
    try:
        while not stop.is_set():
            try:
                upkeep.do_due_tasks()
                has_run = executor.run_next(stop)
            except InfrastructureBusy as error:
                log.log(logging.DEBUG if unavailable else logging.WARNING, "%s", error)
                unavailable = True
                stop.wait(BUSY_SECONDS)
                continue
            unavailable = False
            if not has_run:
                executor.release()
                stop.wait(POLL_SECONDS)
    finally:
        executor.release()
