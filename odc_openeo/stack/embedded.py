"""The stack without Docker: PostgreSQL from a wheel, a local dask cluster, sample scenes, and gunicorn.

One process, the launcher, owns all parts. When a part ends, the launcher stops all others; when the launcher
is killed, the kernel sends the parts their stop signals.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
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
from typing import IO, Final, NoReturn

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
    odc_variables,
)
from odc_openeo.db.schema_check import upgrade_schema
from odc_openeo.errors import OpenEOError
from odc_openeo.indexing.datacube_command import build_datacube_command
from odc_openeo.jobs.options import MEMORY, SLOTS
from odc_openeo.stack import postgres, subprocesses
from odc_openeo.stack.dask_worker import dask_worker_command
from odc_openeo.stack.gunicorn_command import gunicorn_command
from odc_openeo.stack.index_setup import check_embedded_server, find_init_command
from odc_openeo.stack.running_stack import FolderInUse, RunningStack, lock_folder, remove_note, write_note
from odc_openeo.stack.subprocesses import Child
from odc_openeo.storage.buckets import read_bucket_rules
from odc_openeo.storage.metrics_folder import make_metrics_folder
from odc_openeo.udf.caches import CACHE_PREFIX
from odc_openeo.udf.folders import remove_folder
from odc_openeo.users import accounts

log = logging.getLogger(__name__)

DATABASE = "datacube"
SCHEDULER = "dask scheduler"
LONGEST_TEMPORARY_FOLDER: Final = 70
"""Python's sockets of subprocesses are in the folder for temporary files, and paths of sockets are short."""

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
    """All parts of the service on this machine. A context manager: leaving it stops everything.

    With ``own_index``, the settings of Open Data Cube say which index it serves, if there are any; else it
    has one in the PostgreSQL that it brings.
    """

    def __init__(
        self, config: Config, *, samples: bool = True, own_index: bool = False, say: Say = print
    ) -> None:
        # Children must not compute the default again, as it depends on the home folder.
        self.config = _with_changes(config, data_dir=config.data_dir)
        self.samples = samples
        self.own_index = own_index
        self.say = say
        self.parts: list[Child] = []
        self.logs = config.data_dir / "log"
        self._lock: IO[str] | None = None
        self._server: postgres.Postgres | None = None
        self._odc: dict[str, str] = {}
        self._temporary: dict[str, str] = {}
        self._metrics: dict[str, str] = {}

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
        _check_settings(self.config)
        _make_folder(self.config.data_dir)
        self._lock = _lock_folder(self.config.data_dir)
        remove_note(self.config.data_dir)
        self._temporary = _choose_temporary_folder(self.config.data_dir)
        self._metrics = make_metrics_folder(self.config)
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
        self._write_note()

    def _write_note(self) -> None:
        config = self.config
        url = db.get_database_url(config).render_as_string(hide_password=False)
        odc = self._odc or odc_variables()
        write_note(config.data_dir, RunningStack(self.url, url, config.dask_scheduler, odc))

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
        has_index = _names_index(self.config)
        if self.config.database_url is None:
            folder = self.config.data_dir / "postgresql"
            try:
                self._server = postgres.start_server(folder, self.logs / "postgresql.log")
            except postgres.PostgresError as error:
                raise StackError(str(error)) from error
            self.parts.append(self._server.child)
            url = self._server.create_database(DATABASE)
            self.config = _with_changes(self.config, database_url=SecretStr(url))
            has_index = has_index and self.own_index
        if not has_index:
            url = db.get_database_url(self.config).render_as_string(hide_password=False)
            self._odc = odc_database_environment(url, self.config.index_driver)

    def _prepare_database(self) -> None:
        try:
            upgrade_schema(self.config)
            with self._once_per_state("index", f"{version('datacube')} {self.config.index_driver}") as needed:
                arguments = find_init_command(self.config, own=bool(self._odc)) if needed else None
                task = None if arguments is None else self._start_init(arguments)
                # Open Data Cube's command takes seconds to import; prepare the users meanwhile.
                self._prepare_users()
                db.dispose_engine(self.config)
                if task is not None:
                    self._run_to_end(task)
        except ValueError as error:
            raise StackError(str(error)) from error

    def _start_init(self, arguments: Sequence[str]) -> Child:
        command = build_datacube_command(arguments)
        return self._start_part("datacube system init", command, child_environment(None, **self._odc))

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
        # Without passwords.
        index = "" if self._odc else f" {self.config.odc_environment} {odc_settings()}"
        state = f"{state} {db.get_database_url(self.config)}{index}"
        needed = not note.exists() or note.read_text() != state
        yield needed
        if needed:
            note.write_text(state)

    def _start_http(self) -> None:
        config = self.config
        environment = child_environment(config, **self._odc, **self._metrics)
        self._start_part("HTTP server", gunicorn_command(config), environment)
        self._wait_for("GET /health", lambda: _is_healthy(config))

    def _start_job_workers(self) -> None:
        command = [sys.executable, "-m", "odc_openeo.cli", "worker"]
        environment = child_environment(self.config, **self._odc, **self._metrics)
        for number in range(1, self.config.job_workers + 1):
            self._start_part(f"job worker {number}", command, environment)

    def _start_part(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Child:
        log = self.logs / f"{name.replace(' ', '-').lower()}.log"
        child = subprocesses.start_child(name, command, log, {**environment, **self._temporary})
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
            remove_note(self.config.data_dir)
            self._lock.close()
            self._lock = None


def _names_index(config: Config) -> bool:
    return bool(odc_settings()) or config.odc_environment is not None


def _with_changes(config: Config, **changes: object) -> Config:
    return config.model_copy(update=changes)


def _describe_end(part: Child) -> str:
    output = part.last_output().strip()
    return f"{part.name} ended with status {part.exit_status()}; its log {part.log} ends with:\n{output}"


def _check_settings(config: Config) -> None:
    try:
        check_embedded_server(config)
        read_bucket_rules(config.buckets)
    except ValueError as error:
        raise StackError(str(error)) from error


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


def _choose_temporary_folder(data_dir: Path) -> dict[str, str]:
    """Choose the folder for temporary files of all parts: in the data folder if it can be there.

    Started by root, user code runs as another user, who must be able to reach it. What parts that were killed
    have left there is removed.
    """
    folder = data_dir / "tmp"
    is_open = os.geteuid() != 0 or postgres.is_open_to_all(data_dir)
    if len(os.fsencode(folder)) > LONGEST_TEMPORARY_FOLDER or not is_open:
        return {}
    folder.mkdir(mode=0o711, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif not entry.name.startswith(CACHE_PREFIX):
            remove_folder(entry)
    return {"TMPDIR": str(folder)}


def _lock_folder(folder: Path) -> IO[str]:
    try:
        return lock_folder(folder)
    except FolderInUse as error:
        raise StackError(str(error)) from error


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


def _describe_next_steps(config: Config) -> str:
    """Describe how to add a user and data, in another terminal."""
    is_default = config.data_dir == Config.model_fields["data_dir"].get_default(call_default_factory=True)
    option = "" if is_default else f" --data-dir {shlex.quote(str(config.data_dir))}"
    return (
        f"Add a user: odc-openeo user{option} add NAME\n"
        f'Add data:   eval "$(odc-openeo env{option})", then use `datacube` or `odc-openeo index stac`'
    )


def run_stack(config: Config, *, samples: bool = True, say: Say = print) -> int:
    """Run the stack until a signal or the end of a part; return the exit status."""
    try:
        with stop_signals(), Stack(config, samples=samples, own_index=True, say=say) as stack:
            say(f"Ready: {stack.url} (stop with Ctrl-C)")
            say(_describe_next_steps(config))
            stack.watch()
    except KeyboardInterrupt:
        say("Stopped")
    except (StackError, OpenEOError, OSError, ValueError) as error:
        say(f"Error: {error}")
        return 1
    return 0
