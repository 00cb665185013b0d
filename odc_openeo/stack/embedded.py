"""The stack without Docker: PostgreSQL from a wheel, a local dask cluster, sample scenes, and gunicorn.

One process, the launcher, owns all parts. When a part ends, the launcher stops all others; when the launcher
is killed, the kernel sends the parts their stop signals.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn

import psutil
from distributed.worker_memory import parse_memory_limit
from pydantic import SecretStr

from odc_openeo import __version__, db
from odc_openeo.compute.cluster import WORKER_ENVIRONMENT
from odc_openeo.config import (
    DEMO_USER,
    PREFIX,
    Config,
    child_environment,
    odc_database_environment,
    odc_settings,
)
from odc_openeo.db import migrate
from odc_openeo.errors import OpenEOError
from odc_openeo.jobs.options import MEMORY, SLOTS
from odc_openeo.stack import postgres, subprocesses
from odc_openeo.stack.dask_worker import dask_worker_command
from odc_openeo.stack.gunicorn_command import gunicorn_command
from odc_openeo.stack.subprocesses import Child
from odc_openeo.users import accounts

log = logging.getLogger(__name__)

DATABASE = "datacube"
SCHEDULER = "dask scheduler"
STOP_SECONDS = 4.0
START_SECONDS = 120.0
COMPUTING_NICENESS = 5
Say = Callable[[str], None]


class StackError(RuntimeError):
    """The stack cannot start, or a part of it ended; the message says what to change."""


def free_port(host: str = "127.0.0.1") -> int:
    """Find a TCP port that is currently unused."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Stack:
    """All parts of the service on this machine. A context manager: leaving it stops everything."""

    def __init__(self, config: Config, *, samples: bool = True, say: Say = print) -> None:
        # Children must not compute the default again, as it depends on the home folder.
        self.config = _with_changes(config, data_dir=config.data_dir)
        self.samples = samples
        self.say = say
        self.parts: list[Child] = []
        self.logs = config.data_dir / "log"
        self._lock: IO[str] | None = None
        self._server: postgres.Postgres | None = None
        self._odc: dict[str, str] = {}

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self.config.root_url

    @property
    def odc_environment(self) -> dict[str, str]:
        """The variables with which the `datacube` command finds the index of the stack."""
        return dict(self._odc)

    def __enter__(self) -> Stack:
        try:
            self._start_parts()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_parts(self) -> None:
        _check_address(self.config)
        _make_folder(self.config.data_dir)
        self._lock = _lock_folder(self.config.data_dir)
        if self.config.dask_scheduler is None:
            self._start_dask()
        self._start_database()
        self._prepare_database()
        if self.samples:
            self._index_samples()
        if self.config.dask_scheduler is None:
            self._find_scheduler()
        self._start_http()
        self._start_job_workers()

    def _start_dask(self, port: str = "0") -> None:
        scheduler_file = self._scheduler_file()
        scheduler_file.unlink(missing_ok=True)
        environment = child_environment(None, **WORKER_ENVIRONMENT)
        dask = [sys.executable, "-m", "dask"]
        file = ["--scheduler-file", str(scheduler_file)]
        address = ["--host", "127.0.0.1", "--port", port]
        # Without the address, their HTTP servers would still be open to the network.
        no_page = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        self._start_part(SCHEDULER, [*dask, "scheduler", *address, *file, *no_page], environment)
        size = ["--nworkers", str(self.config.workers), "--nthreads", str(self.config.threads_per_worker)]
        memory = ["--memory-limit", self.config.worker_memory, "--resources", self._describe_resources()]
        folder = ["--local-directory", str(self.config.data_dir / "dask"), *no_page]
        # The workers have a lower priority than the processes that answer users.
        nice = ["nice", "-n", str(COMPUTING_NICENESS)]
        command = [*nice, *dask_worker_command(["--host", "127.0.0.1", *file, *size, *memory, *folder])]
        self._start_part("dask workers", command, environment)

    def _describe_resources(self) -> str:
        """Describe the resources that jobs can request: memory of a worker, and slots."""
        limit = parse_memory_limit(self.config.worker_memory, self.config.threads_per_worker, logger=log)
        return f"{MEMORY}={limit or psutil.virtual_memory().total},{SLOTS}=1"

    def _scheduler_file(self) -> Path:
        return self.config.data_dir / "dask-scheduler.json"

    def _find_scheduler(self) -> None:
        self._wait_for("the dask scheduler", self._scheduler_file().exists)
        address = json.loads(self._scheduler_file().read_text())["address"]
        self.config = _with_changes(self.config, dask_scheduler=address)

    def _start_database(self) -> None:
        if self.config.database_url is None:
            folder = self.config.data_dir / "postgresql"
            try:
                self._server = postgres.start_server(folder, self.logs / "postgresql.log")
            except postgres.PostgresError as error:
                raise StackError(str(error)) from error
            self.parts.append(self._server.child)
            url = self._server.create_database(DATABASE)
            self.config = _with_changes(self.config, database_url=SecretStr(url))
            self._odc = odc_database_environment(url)
        elif not odc_settings():
            url = db.get_database_url(self.config).render_as_string(hide_password=False)
            self._odc = odc_database_environment(url)

    def _prepare_database(self) -> None:
        command = [sys.executable, "-m", "datacube.scripts.cli_app", "system", "init"]
        environment = child_environment(None, **self._odc)
        # Open Data Cube's command takes seconds to import; migrate our own tables meanwhile.
        with self._once_per_state("index", version("datacube")) as needed:
            task = self._start_part("datacube system init", command, environment) if needed else None
            migrate.upgrade(self.config)
            self._prepare_users()
            db.dispose_engine(self.config)
            if task is not None:
                self._run_to_end(task)

    def _prepare_users(self) -> None:
        """Create the demo user where it is allowed, else explain how to create users if there are none."""
        if self.config.is_local_only and self.config.demo_user is not False:
            accounts.ensure_demo_user(self.config)
        elif self.config.basic_login and not accounts.has_users(self.config):
            reason = self.config.reason_for_access
            self.say(
                f"There are no users yet{f', and no user {DEMO_USER} because {reason}' if reason else ''}. "
                "Create one: `odc-openeo user add NAME`"
            )

    def _index_samples(self) -> None:
        command = [sys.executable, "-m", "odc_openeo.cli", "index", "samples"]
        with self._once_per_state("samples", __version__) as needed:
            if needed:
                self.say("Creating and indexing the sample scenes (only at the first start)")
                environment = child_environment(self.config, **self._odc)
                self._run_to_end(self._start_part("sample scenes", command, environment))

    @contextlib.contextmanager
    def _once_per_state(self, step: str, state: str) -> Iterator[bool]:
        """Yield whether a step is still to be done for this database; record it when the block succeeds.

        Asking the ``datacube`` command takes seconds, too long for every start.
        """
        note = self.config.data_dir / f"{step}.done"
        state = f"{state} {db.get_database_url(self.config)}"
        needed = not note.exists() or note.read_text() != state
        yield needed
        if needed:
            note.write_text(state)

    def _start_http(self) -> None:
        config = self.config
        self._start_part("HTTP server", gunicorn_command(config), child_environment(config, **self._odc))
        self._wait_for("GET /health", lambda: _is_healthy(config))

    def _start_job_workers(self) -> None:
        command = [sys.executable, "-m", "odc_openeo.cli", "worker"]
        environment = child_environment(self.config, **self._odc)
        for number in range(1, self.config.job_workers + 1):
            self._start_part(f"job worker {number}", command, environment)

    def _start_part(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Child:
        log = self.logs / f"{name.replace(' ', '-').lower()}.log"
        child = subprocesses.start_child(name, command, log, environment)
        self.parts.append(child)
        return child

    def _run_to_end(self, task: Child) -> None:
        """Wait for a one-shot command while watching the other parts."""
        while task.exit_status() is None:
            self._raise_if_ended(besides=task)
            time.sleep(0.05)
        self.parts.remove(task)
        if task.exit_status():
            raise StackError(_describe_end(task))

    def _wait_for(self, what: str, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not happened():
            self._raise_if_ended()
            if time.monotonic() > deadline:
                raise StackError(
                    f"{what} is not ready after {START_SECONDS:g} s; see the logs in {self.logs}"
                )
            time.sleep(0.05)

    def _raise_if_ended(self, besides: Child | None = None) -> None:
        for part in self.parts:
            if part is not besides and part.exit_status() is not None:
                raise StackError(_describe_end(part))

    def watch(self) -> NoReturn:
        """Watch all parts forever; StackError when one ends."""
        while True:
            self._raise_if_ended()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop all parts within 10 s, first those that need other parts to finish."""
        server = self._server
        scheduler = [part for part in self.parts if part.name == SCHEDULER]
        last = [*scheduler, *([server.child] if server is not None else [])]
        subprocesses.stop_children([part for part in reversed(self.parts) if part not in last], STOP_SECONDS)
        subprocesses.stop_children(scheduler, 1)
        if server is not None:
            server.stop(STOP_SECONDS)
        self.parts.clear()
        self._server = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _with_changes(config: Config, **changes: object) -> Config:
    return config.model_copy(update=changes)


def _describe_end(part: Child) -> str:
    output = part.last_output().strip()
    return f"{part.name} ended with status {part.exit_status()}; its log {part.log} ends with:\n{output}"


def _check_address(config: Config) -> None:
    if config.demo_user and not config.is_local_only:
        raise StackError(
            f"the user {DEMO_USER} is refused as {config.reason_for_access}: unset {PREFIX}DEMO_USER"
        )
    host = config.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, config.port))
        except OSError as error:
            raise StackError(
                f"cannot listen on {config.host}:{config.port} ({error.strerror}): choose another --port or "
                "--host, or stop the process that listens there"
            ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"cannot create the data folder {folder} ({error.strerror}): choose another --data-dir"
        ) from error


def _lock_folder(folder: Path) -> IO[str]:
    file = (folder / "launcher.pid").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StackError(
            f"{folder} is in use by another `odc-openeo up` (process {owner}): stop it, or choose "
            "another --data-dir"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _is_healthy(config: Config) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host.strip("[]"), config.host)
    # Requests to this machine must not go through a proxy from the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{config.port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; further signals do not interrupt the cleanup."""

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(stop_signal, signal.SIG_IGN)
        raise KeyboardInterrupt

    caught = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        caught.append(signal.SIGHUP)
    before = {stop_signal: signal.signal(stop_signal, raise_interrupt) for stop_signal in caught}
    try:
        yield
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


def run_stack(config: Config, *, samples: bool = True, say: Say = print) -> int:
    """Run the stack until a signal or the end of a part; return the exit status."""
    try:
        with stop_signals(), Stack(config, samples=samples, say=say) as stack:
            say(f"Ready: {stack.url} (stop with Ctrl-C)")
            stack.watch()
    except KeyboardInterrupt:
        say("Stopped")
    except (StackError, OpenEOError, OSError, ValueError) as error:
        say(f"Error: {error}")
        return 1
    return 0
