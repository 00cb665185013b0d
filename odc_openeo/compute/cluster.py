"""The dask cluster: one client per process, computations with limits, errors if no worker is available."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
import distributed
from distributed import Client, Future
from distributed.client import ClosedClientError, FutureCancelledError, FuturesCancelledError
from distributed.comm import CommClosedError

from odc_openeo.compute.dask_internals import get_event_loop
from odc_openeo.config import Config
from odc_openeo.errors import InfrastructureBusy, ProcessGraphComplexity, RequestTimeout, WorkerTooSmall

WORKER_ENVIRONMENT = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "VSI_CACHE": "TRUE",
    "GDAL_NUM_THREADS": "1",
    "GDAL_CACHEMAX": "256",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
}
"""The environment of workers: for fast reading of COGs, as dask already runs chunks in parallel, and for low
CPU usage when idle: dask samples threads a hundred times per second and its event loops fifty times.
"""

WORKER_MARK = "odc_openeo"
"""The metric that identifies workers started with ``odc-openeo dask-worker``; its value is their version."""

UDF_METRIC = "odc_openeo_udf_calls"
"""The metric of these workers with the number of calls of user code by outcome."""

CONNECT_SECONDS = 5
TICK_SECONDS = 0.5

CONNECTION_ERRORS = (ClosedClientError, CommClosedError, OSError, TimeoutError)
"""Raised by requests to a scheduler that is gone, and by a client that another thread has closed."""

LOST = (ClosedClientError, CommClosedError, FutureCancelledError, FuturesCancelledError, ConnectionError)
"""Raised by a computation whose scheduler or client is lost."""

EVENT_SECONDS = 5
"""Seconds between two looks at what tasks have sent."""

Progress = Callable[[int, int], None]
"""Called with (finished chunks, all chunks)."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Receiver = Callable[[str, Any], None]
"""Called with a topic and an event: a value that a task has sent."""

_receivers: dict[str, Receiver] = {}
_clients: dict[tuple[int, str], Client] = {}
_lock = threading.Lock()


class Cancelled(Exception):
    """The computation was cancelled by its owner."""


def connect(config: Config) -> Client | None:
    """Return the client of this process for the configured scheduler, None if none is configured.

    It is made at the first call, and again after the scheduler was lost. Raises InfrastructureBusy if the
    scheduler does not answer.
    """
    return None if config.dask_scheduler is None else _open_client(config.dask_scheduler)


def _open_client(address: str) -> Client:
    key = (os.getpid(), address)
    with _lock:
        client = _clients.get(key)
        if client is None or client.status not in ("running", "newly-created"):
            _forget_client(key)
            client = _clients[key] = _new_client(address)
            _warn_of_plain_workers(client)
    return client


def _warn_of_plain_workers(client: Client) -> None:
    count = count_plain_workers(client)
    if count:
        log.warning("%s", describe_plain_workers(count))


def is_dask_worker() -> bool:
    """Whether this thread runs a task of a dask worker in its own process."""
    try:
        worker = distributed.get_worker()
    except ValueError:
        return False
    return worker.nanny is not None


def send_event(topic: str, event: Any) -> None:
    """Send a value (numbers, strings, lists, mappings) from a task to the process that computes it."""
    try:
        distributed.get_worker().log_event(topic, event)
    except ValueError:
        log.debug("an event of topic %s was sent outside of a worker", topic)


def receive_events(topic: str, receiver: Receiver) -> None:
    """Pass what tasks send under a topic to a receiver, while this process computes on the cluster."""
    _receivers[topic] = receiver


def stop_receiving(topic: str) -> None:
    """Forget the receiver of a topic."""
    _receivers.pop(topic, None)


def _pass_on_events(client: Client) -> None:
    for topic, receiver in list(_receivers.items()):
        # Nested, so that it is pickled by value: the scheduler need not have this package.
        def take_events(dask_scheduler: Any, topic: str = topic) -> list[Any]:
            events = [event for _, event in dask_scheduler.get_events(topic)]
            dask_scheduler._broker.truncate(topic)
            return events

        with _closed_client_named(client):
            events = client.run_on_scheduler(take_events)
        for event in events:
            receiver(topic, event)


def count_plain_workers(client: Client) -> int:
    """Count the connected workers that were not started with ``odc-openeo dask-worker``."""
    workers = _list_workers(client)
    return sum(WORKER_MARK not in worker["metrics"] for worker in workers)


def _list_workers(client: Client) -> list[dict[str, Any]]:
    """The workers as the scheduler describes them."""
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def describe_plain_workers(count: int) -> str:
    """Describe the problem with such workers and its solution."""
    return (
        f"{count} dask workers were not started by `odc-openeo dask-worker`: they may lack the settings of "
        "GDAL and threads for fast and safe reading. Start workers with that command; its options are those "
        "of `dask worker`"
    )


def _new_client(address: str) -> Client:
    dask.config.set(
        {
            "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
            # Fifty times a second by default, in every process that answers requests.
            "distributed.admin.tick.interval": "500ms",
        }
    )
    try:
        return Client(
            address,
            timeout=CONNECT_SECONDS,
            set_as_default=False,
            name="odc-openeo",
            loop=get_event_loop(),
            # On one machine every worker can be reached directly, which saves the detour by the scheduler.
            direct_to_workers=urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1"),
        )
    except (OSError, TimeoutError, CommClosedError) as error:
        raise _no_scheduler() from error


def _no_scheduler() -> InfrastructureBusy:
    return InfrastructureBusy(
        "The dask scheduler of the service does not answer. Try again in a minute; operators: "
        "run `odc-openeo doctor` to find the cause."
    )


def _no_worker(seconds: float) -> InfrastructureBusy:
    return InfrastructureBusy(
        f"No dask worker is running (waited {seconds:g} s). Try again in a minute; operators: "
        "start workers with `odc-openeo dask-worker`, or check their logs."
    )


def _forget_client(key: tuple[int, str]) -> None:
    lost = _clients.pop(key, None)
    if lost is not None:
        # In the background: closing waits for a scheduler that may have ended.
        threading.Thread(target=_close_quietly, args=[lost], daemon=True).start()


def _close_quietly(client: Client) -> None:
    with contextlib.suppress(Exception):
        client.close(timeout=1)


def close(config: Config) -> None:
    """Close the client of this process."""
    with _lock:
        client = _clients.pop((os.getpid(), config.dask_scheduler or ""), None)
    if client is not None:
        client.close(timeout=2)


def runs_here(config: Config, nbytes: int | None) -> bool:
    """Whether a computation that reads about ``nbytes`` should run on threads of this process."""
    return config.dask_scheduler is None or (nbytes is not None and nbytes <= config.local_max_bytes)


def compute(
    config: Config,
    *collections: Any,
    nbytes: int | None = None,
    timeout: float | None = None,
    cancelled: threading.Event | None = None,
    progress: Progress | None = None,
    span: str | None = None,
    resources: Mapping[str, float] | None = None,
) -> tuple[Any, ...]:
    """Compute dask collections (xarray objects, arrays, delayed …) together, in the order given.

    ``nbytes`` is the estimated volume read: small computations run on threads at once, all others on the
    cluster, where ``timeout`` in seconds, ``cancelled`` and ``progress`` apply. With the name of a ``span``
    the scheduler counts tasks and seconds, see `read_counters`. Each task takes the ``resources`` of its
    worker while it runs. Errors of tasks are raised unchanged.

    Raises:
        RequestTimeout, Cancelled: the computation was stopped.
        InfrastructureBusy: the scheduler or all workers were lost.
        WorkerTooSmall: no worker has the resources.
    """
    client = None if runs_here(config, nbytes) else connect(config)
    if client is None:
        return dask.compute(*collections, scheduler="threads")
    with _lost_scheduler(client, config.dask_scheduler), client.as_current():
        wait_for_worker(client, config.worker_wait_s)
        _check_resources(client, resources or {})
        # Persisting keeps the chunks separate: they are joined here, never as one big array in a worker.
        lazy = [value for value in collections if dask.is_dask_collection(value)]
        with distributed.span(span) if span else contextlib.nullcontext():
            persisted = client.persist(lazy, resources=dict(resources) if resources else None)
        futures = distributed.futures_of(persisted)
        try:
            values = _gather_values(config, client, futures, timeout, cancelled, progress)
            done = iter([_assemble_collection(collection, values) for collection in persisted])
            return tuple(next(done) if dask.is_dask_collection(value) else value for value in collections)
        except BaseException:
            with contextlib.suppress(*CONNECTION_ERRORS):
                client.cancel(futures)
            raise
        finally:
            with contextlib.suppress(*CONNECTION_ERRORS):
                _pass_on_events(client)
            # Workers hold the values until then; the garbage collection of reference cycles may take long.
            for future in futures:
                future.release()


def _wait_while_there_are_workers(client: Client, future: Future, wait_s: float) -> None:
    last_worker = time.monotonic()
    with client.as_current():
        while not future.done():
            with contextlib.suppress(TimeoutError):
                distributed.wait(future, timeout=TICK_SECONDS)
            leave_cancelled_task()
            now = time.monotonic()
            last_worker = now if client.nthreads() else last_worker
            if now - last_worker > wait_s:
                raise _no_worker(wait_s)


@contextlib.contextmanager
def _closed_client_named(client: Client) -> Iterator[None]:
    """Name the cause where a client that another thread has closed fails: it has no scheduler any more."""
    try:
        yield
    except AttributeError as error:
        if client.scheduler is not None:
            raise
        raise ClosedClientError("the client of the dask scheduler was closed") from error


@contextlib.contextmanager
def _lost_scheduler(client: Client, address: str | None) -> Iterator[None]:
    try:
        with _closed_client_named(client):
            yield
    except LOST as error:
        with _lock:
            _forget_client((os.getpid(), address or ""))
        raise _no_scheduler() from error
    except distributed.scheduler.KilledWorker as error:
        raise ProcessGraphComplexity(
            reason="the workers ran out of memory. Choose a smaller extent, a shorter time or fewer bands."
        ) from error


def wait_until_ready(config: Config) -> None:
    """Wait until scheduler and a worker are available; InfrastructureBusy if that takes too long."""
    client = connect(config)
    if client is not None:
        with _lost_scheduler(client, config.dask_scheduler):
            wait_for_worker(client, config.worker_wait_s)


def wait_for_worker(client: Client, seconds: float) -> None:
    """Wait until a worker is available; InfrastructureBusy after ``seconds``."""
    if client.nthreads():
        return
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise _no_worker(seconds) from error


class WorkersKilled(Exception):
    """The workers that ran a function were killed, one after the other."""


def run_on_worker(address: str, wait_s: float, function: Callable[..., T], *arguments: Any) -> T:
    """Run a function on one worker of the cluster with a scheduler at ``address``; return what it returns.

    Tasks of another cluster may call it: arguments and result go by way of the scheduler, never directly.
    ``wait_s`` is how long to wait for a worker. A lost worker is replaced by another one. It is given up when
    the task that calls it is cancelled.

    Raises:
        InfrastructureBusy: the scheduler does not answer, or there is no worker.
        WorkersKilled: the workers that ran it were killed.
    """
    client = _open_client(address)
    with _lost_scheduler(client, address):
        wait_for_worker(client, wait_s)
        # The warning is for developers who should scatter their data, which tasks of another cluster cannot.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            future = client.submit(function, *arguments, pure=False)
        try:
            _wait_while_there_are_workers(client, future, wait_s)
            result: T = future.result()
            return result
        except distributed.scheduler.KilledWorker as error:
            raise WorkersKilled from error
        finally:
            with contextlib.suppress(*CONNECTION_ERRORS):
                future.cancel()


def leave_cancelled_task() -> None:
    """Leave the task that this thread runs if dask has cancelled it; nothing happens outside of tasks.

    Dask itself lets cancelled tasks run to their end. The exception is not an error of the task: if the same
    task is needed again meanwhile, it is begun again.

    Raises:
        Reschedule: the task is cancelled.
    """
    try:
        worker = distributed.get_worker()
    except ValueError:
        return
    key = worker.active_threads.get(threading.get_ident())
    task = None if key is None else worker.state.tasks.get(key)
    if key is not None and (task is None or task.state == "cancelled"):
        raise distributed.Reschedule


def _check_resources(client: Client, amounts: Mapping[str, float]) -> None:
    """Raise WorkerTooSmall if no worker has the resources: dask would wait for one silently."""
    if not amounts:
        return
    for name, amount in amounts.items():
        most = _find_largest(client, name)
        if most < amount:
            raise WorkerTooSmall(resource=name, wanted=f"{amount:g}", most=f"{most:g}")


def _find_largest(client: Client, resource: str) -> float:
    workers = _list_workers(client)
    return float(max((worker["resources"].get(resource, 0) for worker in workers), default=0))


@dataclass(frozen=True)
class ClusterState:
    """Number of workers and threads, bytes of memory, tasks that run, calls of user code by outcome."""

    workers: int
    threads: int
    memory: int
    memory_limit: int
    executing: int
    udf_calls: Mapping[str, float]


def read_state(config: Config) -> ClusterState:
    """Return the state of the cluster; of nothing without one. InfrastructureBusy if it does not answer."""
    client = connect(config)
    if client is None:
        return ClusterState(0, 0, 0, 0, 0, {})
    with _lost_scheduler(client, config.dask_scheduler):
        workers = _list_workers(client)
    metrics = [worker["metrics"] for worker in workers]
    calls: Counter[str] = Counter()
    for metric in metrics:
        calls.update(metric.get(UDF_METRIC) or {})
    return ClusterState(
        workers=len(workers),
        threads=sum(worker["nthreads"] for worker in workers),
        memory=sum(metric.get("memory", 0) for metric in metrics),
        memory_limit=sum(worker.get("memory_limit") or 0 for worker in workers),
        executing=sum(metric.get("task_counts", {}).get("executing", 0) for metric in metrics),
        udf_calls=calls,
    )


def find_smallest_worker(config: Config) -> tuple[int, int] | None:
    """Return memory limit in bytes and threads of the worker with the least memory; None if none has a limit.

    Raises:
        InfrastructureBusy: the scheduler does not answer.
    """
    client = connect(config)
    if client is None:
        return None
    with _lost_scheduler(client, config.dask_scheduler):
        workers = _list_workers(client)
    limits = [(worker["memory_limit"], worker["nthreads"]) for worker in workers if worker["memory_limit"]]
    return min(limits, default=None)


def get_largest_amount(config: Config, resource: str) -> float:
    """Return the largest amount of a resource that a worker declares; 0 without workers that do.

    Raises:
        InfrastructureBusy: the scheduler does not answer.
    """
    client = connect(config)
    if client is None:
        return 0
    with _lost_scheduler(client, config.dask_scheduler):
        return _find_largest(client, resource)


def _gather_values(
    config: Config,
    client: Client,
    futures: Sequence[Future],
    timeout: float | None,
    cancelled: threading.Event | None,
    progress: Progress | None,
) -> dict[Any, Any]:
    """Return the values by key. Finished ones are fetched at once, so that workers need not hold them."""
    start = last_worker = last_events = time.monotonic()
    workers: set[str] = set()
    values: dict[Any, Any] = {}
    waiting = {future.key: future for future in futures}
    total = len(waiting)
    while waiting:
        with contextlib.suppress(TimeoutError):
            distributed.wait(list(waiting.values()), timeout=TICK_SECONDS)
            break
        _raise_first_error(waiting.values())
        values |= _fetch_values(client, waiting)
        if progress is not None:
            progress(len(values), total)
        if cancelled is not None and cancelled.is_set():
            raise Cancelled
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            raise RequestTimeout(seconds=timeout)
        if now - last_events > EVENT_SECONDS:
            last_events = now
            _pass_on_events(client)
        before, workers = workers, set(client.nthreads())
        if before - workers:
            log.warning("A dask worker was lost; its results are computed again")
        last_worker = now if workers else last_worker
        if now - last_worker > config.worker_wait_s:
            raise _no_worker(config.worker_wait_s)
    _raise_first_error(waiting.values())
    values |= _fetch_values(client, waiting)
    if progress is not None:
        progress(total, total)
    return values


def _fetch_values(client: Client, waiting: dict[Any, Future]) -> dict[Any, Any]:
    """Fetch the values of finished futures; they are removed from ``waiting`` and released."""
    done = {key: future for key, future in waiting.items() if future.status == "finished"}
    values = dict(zip(done, client.gather(list(done.values())), strict=True))
    for key, future in done.items():
        del waiting[key]
        future.release()
    return values


def _raise_first_error(futures: Iterable[Future]) -> None:
    for future in futures:
        if future.status in ("error", "cancelled", "lost"):
            future.result()


def _assemble_collection(collection: Any, values: dict[Any, Any]) -> Any:
    finalize, extra = collection.__dask_postcompute__()
    return finalize(_nest_values(collection.__dask_keys__(), values), *extra)


def _nest_values(keys: Any, values: dict[Any, Any]) -> Any:
    if isinstance(keys, list):
        return [_nest_values(key, values) for key in keys]
    return values[keys]


@dataclass(frozen=True)
class Counters:
    """Counts of a span by the scheduler: tasks done, tasks so far, CPU seconds on the workers."""

    done: int = 0
    tasks: int = 0
    cpu_s: float = 0.0


def read_counters(config: Config, span: str) -> Counters:
    """Return the counts of a span so far; zeros if there is no scheduler, or it does not answer now."""

    # Nested, so that it is pickled by value: the scheduler need not have this package.
    def count_span(dask_scheduler: Any) -> tuple[int, int, float]:
        spans = dask_scheduler.extensions["spans"].spans_search_by_name.get((span,), ())
        done = tasks = 0
        seconds = 0.0
        for span_ in spans:
            states = span_.states
            tasks += sum(states.values())
            done += states["memory"] + states["released"] + states["forgotten"] - states["erred"]
            metrics = span_.cumulative_worker_metrics.items()
            seconds += sum(v for key, v in metrics if key[0] == "execute" and key[-2] == "thread-cpu")
        return done, tasks, seconds

    try:
        client = connect(config)
        return Counters(*client.run_on_scheduler(count_span)) if client is not None else Counters()
    except (InfrastructureBusy, OSError, CommClosedError, TimeoutError, KeyError):
        return Counters()


def answers(address: str, seconds: float) -> bool:
    """Return whether anything listens at the address of a scheduler, such as ``tcp://scheduler:8786``."""
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 8786), seconds):
            return True
    except (OSError, ValueError):
        return False


def check_cluster(config: Config) -> str:
    """Describe the cluster in a few words; InfrastructureBusy if it is unusable."""
    client = connect(config)
    if client is None:
        return "none configured: computing on threads of the runners"
    with _lost_scheduler(client, config.dask_scheduler):
        threads = client.nthreads()
    if not threads:
        raise _no_worker(config.worker_wait_s)
    return f"{config.dask_scheduler}: {len(threads)} workers, {sum(threads.values())} threads"


def find_warning(config: Config) -> str | None:
    """Return what to change about the workers of a usable cluster; None if there is nothing."""
    client = connect(config)
    count = 0 if client is None else count_plain_workers(client)
    return describe_plain_workers(count) if count else None
