"""Fixtures shared by all tests: real PostgreSQL, real index, real stack; nothing is mocked.

Each pytest-xdist worker has its own PostgreSQL server; databases are copies of a template, so a fresh one
costs some 50 ms. The workers share one running stack and one folder of sample scenes.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg2
import pytest
import requests
from argon2 import PasswordHasher
from filelock import FileLock
from hypothesis import HealthCheck, settings

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.stack import postgres
from odc_openeo.stack.embedded import DATABASE, free_port
from odc_openeo.users import accounts
from tests.support.index_drivers import (
    DRIVERS,
    FAST,
    find_postgis_binaries,
    get_test_driver,
    index_environment,
    init_test_index,
    use_driver,
)
from tests.support.scheduling import GroupScheduling
from tests.support.shared_stack import keep_status, share, stop_process
from tests.support.waiting import PATIENCE

# The same examples each time, on busy machines too; `--hypothesis-profile=explore` draws others.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("suite", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("suite")

COMMAND = [sys.executable, "-m", "odc_openeo.cli"]
STACK_FIXTURES = {"running_stack", "stack", "stack_environment"}
SOAK_FOLDERS = {"chaos", "fuzz"}
FEW_CHILDREN = 4
most_children = FEW_CHILDREN
"""Processes that tests may leave before garbage is collected, which ends those that nobody uses."""
SMALL_STACK = {"ODC_OPENEO_WORKERS": "1", "ODC_OPENEO_JOB_WORKERS": "1"}
"""Each further process of a stack takes seconds of CPU time to start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that selects the index driver."""
    text = "index driver of Open Data Cube that the tests use; postgis needs a PostgreSQL with PostGIS"
    parser.addoption("--index-driver", choices=DRIVERS, default="postgres", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Use the index driver that was selected; keep compiled modules, whatever the environment says."""
    # A test run starts hundreds of interpreters.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    use_driver(config.getoption("--index-driver"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Keep the tests of a file together: fixtures of modules may not be made in two processes."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its cost."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("compose"):
            continue
        if fixtures & STACK_FIXTURES:
            item.add_marker(pytest.mark.stack)
        elif SOAK_FOLDERS & set(item.path.parts):
            item.add_marker(pytest.mark.soak)
        elif fixtures & {"postgres_server", "samples", "site"}:
            item.add_marker(pytest.mark.integration)
        else:
            item.add_marker(pytest.mark.unit)


def pytest_collectstart() -> None:
    """Collect no garbage as long as tests are collected: what is imported for them stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep garbage collections short: they need not walk over all modules and collected tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_logfinish() -> None:
    """End the runners of applications that are gone, which hold 100 MB each until garbage is collected."""
    global most_children
    if len(multiprocessing.active_children()) > most_children:
        gc.collect()
        most_children = 2 * len(multiprocessing.active_children()) + FEW_CHILDREN


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this test run that all workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """The developer's own Open Data Cube and settings do not reach the tests.

    But for the drivers of GDAL: they are those of the whole process, from its start.
    """
    before = dict(os.environ)
    for name in _list_settings().keys() - {"ODC_OPENEO_GDAL_DRIVERS"}:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _same_environment(_clean_environment: None) -> Iterator[None]:
    """No test leaves settings behind: commands called in this process set those of Open Data Cube."""
    before = _list_settings()
    yield
    for name in _list_settings().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _list_settings() -> dict[str, str]:
    prefixes = ("ODC_", "DATACUBE_", "PG")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


SERVICE_HASHER: Final = accounts._hasher
"""What hashes passwords outside of tests; see `_quick_hashes`."""


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """Hashing the password of each test's user would take as long as the rest of many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(scope="session", autouse=True)
def _forkserver(_clean_environment: None) -> None:
    """What runners and jobs are forked from has everything imported, whichever test needs it first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["odc_openeo.evaluation.preload", "odc_openeo.worker.run"])
    forkserver.ensure_running()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A session's folder outside pytest's own, which PostgreSQL's user could not enter when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(short_folder: Path) -> Iterator[postgres.Postgres]:
    """A PostgreSQL server of this worker."""
    programs = find_postgis_binaries() if get_test_driver() == "postgis" else None
    server = postgres.start_server(
        short_folder / "server" / "pg", short_folder / "postgresql.log", FAST, programs
    )
    yield server
    server.stop(5)


@pytest.fixture(scope="session")
def postgis_server(short_folder: Path) -> Iterator[postgres.Postgres]:
    """A PostgreSQL server with PostGIS of this worker."""
    folder = short_folder / "postgis"
    programs = find_postgis_binaries()
    server = postgres.start_server(folder / "pg", short_folder / "postgis.log", FAST, programs)
    yield server
    server.stop(5)


@pytest.fixture(scope="session")
def _templates(postgres_server: postgres.Postgres) -> dict[str, str]:
    """Names of databases to copy: `ours` has our tables, `odc` those of Open Data Cube too."""
    ours = postgres_server.create_database("template_ours")
    config = Config(database_url=ours)
    migrate.upgrade(config)
    db.dispose_engine(config)
    odc = postgres_server.create_database("template_odc", template="template_ours")
    init_test_index(odc)
    return {"ours": "template_ours", "odc": "template_odc"}


CopyDatabase = Callable[[str], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def copy_database(postgres_server: postgres.Postgres) -> Iterator[CopyDatabase]:
    """Makes a database like a template and yields its URL; the database is dropped in the end.

    The statements go through one connection, and files are copied as they are: a fifth of the CPU time of
    `psql` and of a copy that is logged.
    """
    server = postgres_server
    address = {"host": str(server.socket_dir), "user": postgres.DATABASE_USER, "dbname": "postgres"}
    with closing(psycopg2.connect(**address)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        @contextmanager
        def copy(template: str) -> Iterator[str]:
            name = f"test_{uuid4().hex}"
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
            yield server.url(name)
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

        yield copy


@pytest.fixture
def empty_database(copy_database: CopyDatabase) -> Iterator[str]:
    """URL of a new database without any table."""
    with copy_database("template0") as url:
        yield url


@pytest.fixture
def database(copy_database: CopyDatabase, _templates: dict[str, str]) -> Iterator[str]:
    """URL of a new database with our tables."""
    with copy_database(_templates["ours"]) as url:
        yield url


@pytest.fixture
def odc_database(
    copy_database: CopyDatabase, _templates: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of a new database with our tables and an empty index, which is Open Data Cube's default one."""
    with copy_database(_templates["odc"]) as url:
        for name, value in index_environment(url).items():
            monkeypatch.setenv(name, value)
        yield url


@pytest.fixture
def config(database: str, tmp_path: Path) -> Iterator[Config]:
    """A configuration with our tables; no cluster."""
    config = Config(database_url=database, data_dir=tmp_path / "data")
    yield config
    db.dispose_engine(config)


@pytest.fixture
def odc_config(odc_database: str, tmp_path: Path) -> Iterator[Config]:
    """A configuration with our tables and an empty index; no cluster."""
    config = Config(database_url=odc_database, data_dir=tmp_path / "data")
    yield config
    db.dispose_engine(config)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample scenes, made once for all workers."""
    from odc_openeo.indexing.samples import make_samples

    shared = shared_folder(tmp_path_factory)
    with FileLock(shared / "samples.lock"):
        make_samples(shared / "samples")
    return shared / "samples"


@dataclass(frozen=True)
class RunningStack:
    """An `odc-openeo up` in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    output: Path

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Send the signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()


def start_stack(
    data_dir: Path,
    *options: str,
    ready_within: float = 180,
    status: Path | None = None,
    **variables: str,
) -> RunningStack:
    """Start a small `odc-openeo up` and wait until it says that it is ready (or has ended)."""
    port = free_port()
    output = data_dir.parent / f"{data_dir.name}-{port}.out"
    command = [*COMMAND, "up", "--data-dir", str(data_dir), "--port", str(port), *options]
    if status is not None:
        command = keep_status(command, status)
    with output.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **SMALL_STACK, **variables},
        )
    stack = RunningStack(process, f"http://127.0.0.1:{port}", data_dir, output)
    deadline = time.monotonic() + ready_within
    while "Ready:" not in stack.said() and process.poll() is None:
        if time.monotonic() > deadline:
            stack.stop()
            raise AssertionError(f"the stack was not ready in {ready_within} s: {stack.said()}")
        time.sleep(0.05)
    return stack


def wait_until_answering(process: subprocess.Popen[bytes], port: int, seconds: float = PATIENCE) -> None:
    """Wait until a web server that was started as a process answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/", timeout=5)
            return
        except (requests.ConnectionError, requests.Timeout):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


@dataclass(frozen=True)
class Site:
    """A web server on loopback for the files of a folder, whole and in parts."""

    root: str
    folder: Path


class SiteHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, whole and in parts."""

    def do_GET(self) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if requested is None or not path.is_file():
            super().do_GET()
            return
        content, start = path.read_bytes(), int(requested[1])
        part = content[start : int(requested[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A web server of a folder of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SiteHandler, directory=str(folder))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(f"http://127.0.0.1:{server.server_port}", folder)
        server.shutdown()


@dataclass(frozen=True)
class SharedStack:
    """The stack that all workers of a test run use."""

    url: str
    data_dir: Path
    index_url: str


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[SharedStack]:
    """The whole embedded stack with the sample scenes; tests may not change what others count."""
    shared = shared_folder(tmp_path_factory)
    status = shared / "stack"
    outputs: list[Path] = []
    servers: list[postgres.Postgres] = []

    def start() -> str:
        root = Path(tempfile.mkdtemp(prefix="odc-openeo-test-"))
        root.chmod(0o711)
        data_dir = root / "stack"
        data_dir.mkdir()
        (data_dir / "samples").symlink_to(samples)
        for suffix in ("pid", "status"):
            status.with_suffix(f".{suffix}").unlink(missing_ok=True)
        several = dict.fromkeys(SMALL_STACK, "2")
        variables = {"ODC_OPENEO_OUTGOING_ALLOW": "127.0.0.1", **several, **start_index_server(root)}
        # Adding a dataset takes the driver postgis a dozen statements.
        seconds = 180 if get_test_driver() == "postgres" else 600
        stack = start_stack(data_dir, status=status, ready_within=seconds, **variables)
        assert stack.process.poll() is None, stack.said()
        socket_dir = servers[0].socket_dir if servers else data_dir / "postgresql" / "pgdata"
        index_url = f"postgresql+psycopg2://{postgres.DATABASE_USER}@/{DATABASE}?host={socket_dir}"
        about = {"url": stack.url, "data_dir": str(data_dir), "output": str(stack.output)}
        return json.dumps({**about, "index_url": index_url})

    def start_index_server(root: Path) -> dict[str, str]:
        """The settings of a stack with an index of the driver of the tests."""
        if get_test_driver() == "postgres":
            return {}
        server = postgres.start_server(root / "pg", root / "postgis.log", FAST, find_postgis_binaries())
        servers.append(server)
        url = server.create_database(DATABASE)
        return {"ODC_OPENEO_DATABASE_URL": url, "ODC_OPENEO_INDEX_DRIVER": get_test_driver()}

    def stop() -> None:
        code = stop_process(status)
        for server in servers:
            server.stop(5)
        assert code == 0, outputs[0].read_text()
        shutil.rmtree(outputs[0].parent, ignore_errors=True)

    with share(shared, start, stop) as description:
        stack = json.loads(description)
        outputs.append(Path(stack["output"]))
        yield SharedStack(stack["url"], Path(stack["data_dir"]), stack["index_url"])


@pytest.fixture(scope="session")
def stack(running_stack: SharedStack) -> str:
    """Root URL of the whole embedded stack with the sample scenes; user demo, password demo."""
    return running_stack.url


@pytest.fixture(scope="session")
def stack_environment(running_stack: SharedStack) -> dict[str, str]:
    """Environment in which the `datacube` command works on the index of the stack."""
    return {**os.environ, **index_environment(running_stack.index_url)}
