"""The flow of a job in parts in Prefect: a task for each part, which takes that part from the book.

The book in PostgreSQL decides what is left to do and whether it is still wanted; Prefect decides where and
when, and shows it. The parameters are two UUIDs: no text of users gets to Prefect, and none comes from there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled, Completed, Crashed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.jobs.claims import claim_part
from odc_openeo.jobs.split_runs import UNFINISHED, find_job_status, find_part_status, list_unfinished_parts
from odc_openeo.worker.executors import ClaimRunner

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
END_SECONDS: Final = 20.0
"""Until a process whose parent has ended ends by force."""
MOST_THREADS: Final = 64


class FlowWork:
    """The work on one run of a job in this process; each of its slots runs one part at a time."""

    def __init__(self, config: Config, job: UUID, run: UUID) -> None:
        self.config, self.job, self.run = config, job, run
        self.stop, self.is_released = threading.Event(), threading.Event()
        self.permits = threading.BoundedSemaphore(config.prefect_parts)
        self.slots: SimpleQueue[ClaimRunner] = SimpleQueue()
        for _ in range(config.prefect_parts):
            self.slots.put(ClaimRunner(config))

    @contextmanager
    def take_slot(self) -> Iterator[ClaimRunner]:
        """Take a slot, whose process is kept for the next part."""
        runner = self.slots.get()
        try:
            yield runner
        finally:
            self.slots.put(runner)

    def run_part(self, number: int) -> str | None:
        """Run a part, again if its error allows that, or wait for whoever runs it.

        Returns:
            ``done`` or ``failed``, None if the part is no longer wanted or this process ends.
        """
        with self.take_slot() as runner:
            while not self.stop.is_set():
                try:
                    status = find_part_status(self.config, self.job, self.run, number)
                    if status not in UNFINISHED:
                        return status
                    claim = claim_part(self.config, self.job, number, runner.worker)
                except InfrastructureBusy as error:
                    log.warning("job %s: %s", self.job, error)
                    claim = None
                if claim is None:
                    self.stop.wait(POLL_SECONDS)
                else:
                    runner.run_claim(claim, self.stop)
        return None

    def release(self) -> None:
        """End the processes of parts, once the parts that run now have been given back."""
        self.stop.set()
        runners = [self.slots.get() for _ in range(self.config.prefect_parts)]
        for runner in runners:
            runner.release()
            # Tasks that wait for a slot see that all is over.
            self.slots.put(runner)
        self.is_released.set()

    def end_with_parent(self, parent: int) -> None:
        """End this process soon after the worker of the pool that started it.

        A worker that is killed, or asked to stop twice, leaves its flow runs behind.
        """
        while os.getppid() == parent:
            if self.is_released.wait(POLL_SECONDS):
                return
        log.warning("job %s: the worker of the pool has ended, and so does its flow run", self.job)
        self.stop.set()
        # Parts are given back and Prefect hears of it, unless one of the two cannot be reached.
        time.sleep(END_SECONDS)
        os._exit(1)


@task(name="part", task_run_name="{label}", cache_policy=NO_CACHE, retries=0, persist_result=False)
def run_part(label: str, number: int, work: FlowWork) -> State[Any]:
    """Run one part of a job; ``label`` is the name of the task run."""
    status = work.run_part(number)
    if status == "done":
        return Completed(message="The part is done")
    if status == "failed":
        return Failed(message="The part has failed; the log of the job says why")
    return Cancelled(message="The part is no longer wanted")


@flow(name="odc-openeo", task_runner=ThreadPoolTaskRunner(max_workers=MOST_THREADS), persist_result=False)
def run_job_parts(job_id: UUID, run_id: UUID) -> State[Any]:
    """Run the parts of one run of a job that are not done yet, then its last part."""
    config = Config()
    work = FlowWork(config, job_id, run_id)
    threading.Thread(target=work.end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    try:
        unfinished = list_unfinished_parts(config, job_id, run_id)
        if unfinished is not None:
            submit_parts(work, [n for n in unfinished.numbers if n < unfinished.total], unfinished.total)
            submit_parts(work, [unfinished.total], unfinished.total)
    finally:
        work.release()
    return make_final_state(config, job_id, run_id)


def submit_parts(work: FlowWork, numbers: list[int], total: int) -> None:
    """Submit a task for each part, not many more than run at the same time, and wait for them."""
    futures: list[PrefectFuture[Any]] = []
    for number in numbers:
        work.permits.acquire()
        if work.stop.is_set() or find_job_status(work.config, work.job, work.run) != "running":
            work.permits.release()
            break
        label = "complete the results" if number == total else f"part {number + 1} of {total}"
        future = run_part.submit(label, number, work)
        future.add_done_callback(lambda _: work.permits.release())
        futures.append(future)
    wait(futures)


def make_final_state(config: Config, job: UUID, run: UUID) -> State[Any]:
    """Make the state in which the flow run ends from that of the job."""
    status = find_job_status(config, job, run)
    if status == "finished":
        return Completed(message="The job has finished")
    if status == "error":
        return Failed(message="The job has failed; its log says why")
    if status == "running":
        return Crashed(message="Parts of the job are left")
    return Cancelled(message="This run of the job is no longer wanted")
