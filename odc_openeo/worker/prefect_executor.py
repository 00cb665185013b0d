"""Jobs in parts as flow runs of Prefect: the worker runs whole jobs and plans, flow runs take the parts.

The book in PostgreSQL stays the truth. A thread compares it with the flow runs of this service: a run of
a job without a flow run gets one, one that was canceled in Prefect cancels its job, one whose job has ended
is ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed, State

from odc_openeo.config import Config
from odc_openeo.jobs.claims import claim_work
from odc_openeo.jobs.split_runs import SplitRun, cancel_run, find_job_status, list_split_runs
from odc_openeo.worker.executors import Executor, ExecutorUnavailable

log = logging.getLogger(__name__)

FLOW: Final = "odc-openeo"
ENTRYPOINT: Final = "odc_openeo.worker.prefect_flow.run_job_parts"
"""Where machines of the work pool, on which this package is installed, find the flow."""
FOLLOW_SECONDS: Final = 1.0
LONGEST_PAUSE: Final = 60.0
SHORTEST_SILENCE: Final = 30.0
PENDING_FACTOR: Final = 5
"""Starting the process or container of a flow run may take so many times longer than its first part."""
PAGE: Final = 200
ACTIVE: Final = (
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
)
CANCELED: Final = "The flow run of the job was canceled in Prefect: the job is canceled"


class PrefectExecutor(Executor):
    """Runs whole jobs, plans those in parts, and follows the flow runs that run their parts."""

    name = "prefect"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not get_current_settings().api.url:
            # Prefect would start a server of its own, which no work pool knows.
            raise ExecutorUnavailable("set PREFECT_API_URL to the address of your Prefect server")
        self.flow_runs = FlowRunFollower(config)
        self.thread: threading.Thread | None = None

    def run_next(self, stop: threading.Event) -> bool:
        """Run the next job, which ends soon if it is split."""
        if self.thread is None:
            follow = self.flow_runs.follow_until_stopped
            self.thread = threading.Thread(target=follow, args=(stop,), name="flow runs", daemon=True)
            self.thread.start()
        claim = claim_work(self.config, self.worker, parts=False)
        if claim is None:
            return False
        self.run_claim(claim, stop)
        return True


class FlowRunFollower:
    """Keeps the flow runs of a service and its jobs in parts in step.

    Any number of workers may do so: flow runs are submitted with a key made of the run of the job and the
    number of flow runs that it had before.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.deployment: UUID | None = None
        self.silent_since: dict[UUID, float] = {}

    def follow_until_stopped(self, stop: threading.Event) -> None:
        """Compare book and flow runs, again and again, whatever fails."""
        # One line for each request.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        failed = False
        while not stop.wait(FOLLOW_SECONDS):
            try:
                with get_client(sync_client=True) as client:
                    self.compare_runs(client)
                    failed = False
                    while not stop.wait(FOLLOW_SECONDS):
                        self.compare_runs(client)
            except Exception as error:
                # The pool or the deployment may have been removed.
                self.deployment = None
                level = logging.DEBUG if failed else logging.WARNING
                log.log(level, "Prefect: %s: %s", type(error).__name__, error)
                failed = True

    def compare_runs(self, client: SyncPrefectClient) -> None:
        """Submit what is missing in Prefect, and end what is over on either side."""
        if self.deployment is None:
            self.deployment = self._register_flow(client)
        open_runs: dict[UUID | None, SplitRun] = {run.run: run for run in list_split_runs(self.config)}
        is_active = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*ACTIVE]))
        active = list(self._list_flow_runs(client, is_active))
        self.silent_since = {f.id: self.silent_since[f.id] for f in active if f.id in self.silent_since}
        for flow_run in active:
            run = open_runs.get(parse_run(flow_run))
            if run is None:
                self._end_obsolete(client, flow_run)
            elif flow_run.state_type == StateType.CANCELLING:
                self._cancel_job(run)
            elif flow_run.state_type in (StateType.RUNNING, StateType.PENDING):
                self._check_life(client, flow_run, run)
        followed = {parse_run(flow_run) for flow_run in active}
        for run in open_runs.values():
            if run.run not in followed:
                self._submit_again(client, run)

    def _register_flow(self, client: SyncPrefectClient) -> UUID:
        """Make the work pool unless there is one, and the deployment, which has the name of the pool."""
        pool = self.config.prefect_pool
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            log.info("Prefect: making the work pool %s, of processes", pool)
            try:
                client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            except ObjectAlreadyExists:
                log.debug("another worker has made it")
        flow_id = client.create_flow_from_name(FLOW)
        return client.create_deployment(
            flow_id,
            pool,
            work_pool_name=pool,
            entrypoint=ENTRYPOINT,
            description="The parts of one run of a batch job. Submitted by the job workers of the service.",
        )

    def _list_flow_runs(
        self, client: SyncPrefectClient, state: FlowRunFilterState | None = None, tag: str | None = None
    ) -> Iterator[FlowRun]:
        assert self.deployment is not None
        which = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[self.deployment]),
            state=state,
            tags=None if tag is None else FlowRunFilterTags(all_=[tag]),
        )
        offset = 0
        while page := client.read_flow_runs(flow_run_filter=which, limit=PAGE, offset=offset):
            yield from page
            offset += len(page)
            if len(page) < PAGE:
                return

    def _end_obsolete(self, client: SyncPrefectClient, flow_run: FlowRun) -> None:
        """End the flow run of a job that has ended; one at work notices by itself, unless it is dead."""
        if flow_run.state_type == StateType.SCHEDULED or self._is_silent(flow_run, 1):
            set_state(client, flow_run, Cancelled(message="This run of the job is no longer wanted"))

    def _check_life(self, client: SyncPrefectClient, flow_run: FlowRun, run: SplitRun) -> None:
        """Give a flow run up that takes no part for long; Prefect does not see machines that are lost."""
        if not run.is_quiet:
            self.silent_since.pop(flow_run.id, None)
        elif self._is_silent(flow_run, PENDING_FACTOR if flow_run.state_type == StateType.PENDING else 1):
            log.warning("job %s: its flow run %s is given up: it takes no part", run.job, flow_run.id)
            set_state(client, flow_run, Crashed(message="The flow run has taken no part for long"))

    def _is_silent(self, flow_run: FlowRun, factor: float) -> bool:
        """Return whether this has been asked for so long about the flow run."""
        since = self.silent_since.setdefault(flow_run.id, time.monotonic())
        return time.monotonic() - since > factor * max(self.config.job_lost_after_s, SHORTEST_SILENCE)

    def _cancel_job(self, run: SplitRun) -> None:
        if cancel_run(self.config, run.job, run.run, CANCELED):
            log.warning("job %s: %s", run.job, CANCELED)

    def _submit_again(self, client: SyncPrefectClient, run: SplitRun) -> None:
        """Submit a flow run for a run of a job that has no active one, unless one was canceled."""
        tag = make_tag(run.run)
        earlier = list(self._list_flow_runs(client, tag=tag))
        if any(flow_run.state_type == StateType.CANCELLED for flow_run in earlier):
            self._cancel_job(run)
            return
        if any(flow_run.state_type in ACTIVE for flow_run in earlier) or not is_pause_over(earlier):
            return
        if find_job_status(self.config, run.job, run.run) != "running":
            return
        assert self.deployment is not None
        flow_run = client.create_flow_run_from_deployment(
            self.deployment,
            parameters={"job_id": str(run.job), "run_id": str(run.run)},
            name=f"job {run.job}",
            tags=[tag],
            idempotency_key=f"{run.job}:{run.run}:{len(earlier)}",
        )
        log.info("job %s: its parts are run by flow run %s", run.job, flow_run.id)


def is_pause_over(earlier: list[FlowRun]) -> bool:
    """Return whether another flow run may follow those that failed: later each time."""
    ends = [flow_run.end_time for flow_run in earlier if flow_run.end_time is not None]
    if not ends:
        return True
    return (datetime.now(UTC) - max(ends)).total_seconds() > min(2.0 ** len(earlier), LONGEST_PAUSE)


def make_tag(run: UUID) -> str:
    """Make the tag by which the flow runs of a run of a job are found."""
    return f"run:{run}"


def parse_run(flow_run: FlowRun) -> UUID | None:
    """Return the run of a job in the parameters, None if anything else is there."""
    try:
        return UUID(str(flow_run.parameters.get("run_id")))
    except ValueError:
        return None


def set_state(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any]) -> None:
    """Set the state of a flow run whatever Prefect thinks of it."""
    client.set_flow_run_state(flow_run.id, state, force=True)
