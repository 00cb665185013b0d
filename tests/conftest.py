"""Fixtures shared by all tests: real PostgreSQL, real index, real stack; nothing is mocked.

Each pytest-xdist worker has its own PostgreSQL server; databases are copies of a template, so a fresh one
costs some 50 ms. Tests that use the running stack all go to one worker, which starts one stack.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import forkserver
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from filelock import FileLock

from odc_openeo import db, migrations, postgres
from odc_openeo.config import Config, odc_database_environment
from odc_openeo.embedded import DATABASE, free_port

COMMAND = [sys.executable, "-m", "odc_openeo.cli"]
STACK_FIXTURES = {"running_stack", "stack", "stack_environment"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One stack for all who use it."""
    for item in items:
        if STACK_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """The developer's own Open Data Cube and settings do not reach the tests.

    But for the drivers of GDAL: they are those of the whole process, from its start.
    """
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("ODC_", "DATACUBE_", "PG")) and name != "ODC_OPENEO_GDAL_DRIVERS":
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


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
    settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
    server = postgres.start(short_folder / "server" / "pg", short_folder / "postgresql.log", settings)
    yield server
    server.stop(5)


@pytest.fixture(scope="session")
def _templates(postgres_server: postgres.Postgres) -> dict[str, str]:
    """Names of databases to copy: `ours` has our tables, `odc` those of Open Data Cube too."""
    ours = postgres_server.create_database("template_ours")
    config = Config(database_url=ours)
    migrations.upgrade(config)
    db.dispose(config)
    odc = postgres_server.create_database("template_odc", template="template_ours")
    subprocess.run(
        [sys.executable, "-m", "datacube.scripts.cli_app", "system", "init"],
        env={**os.environ, **odc_database_environment(odc)},
        check=True,
        capture_output=True,
    )
    return {"ours": "template_ours", "odc": "template_odc"}


def copy_database(server: postgres.Postgres, template: str) -> Iterator[str]:
    """The URL of a new database like the template; it is dropped in the end."""
    name = f"test_{uuid4().hex}"
    yield server.create_database(name, template)
    server.drop_database(name)


@pytest.fixture
def empty_database(postgres_server: postgres.Postgres) -> Iterator[str]:
    """URL of a new database without any table."""
    yield from copy_database(postgres_server, "template0")


@pytest.fixture
def database(postgres_server: postgres.Postgres, _templates: dict[str, str]) -> Iterator[str]:
    """URL of a new database with our tables."""
    yield from copy_database(postgres_server, _templates["ours"])


@pytest.fixture
def odc_database(
    postgres_server: postgres.Postgres, _templates: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of a new database with our tables and an empty index, which is Open Data Cube's default one."""
    for url in copy_database(postgres_server, _templates["odc"]):
        for name, value in odc_database_environment(url).items():
            monkeypatch.setenv(name, value)
        yield url


@pytest.fixture
def config(database: str, tmp_path: Path) -> Iterator[Config]:
    """A configuration with our tables; no cluster."""
    made = Config(database_url=database, data_dir=tmp_path / "data")
    yield made
    db.dispose(made)


@pytest.fixture
def odc_config(odc_database: str, tmp_path: Path) -> Iterator[Config]:
    """A configuration with our tables and an empty index; no cluster."""
    made = Config(database_url=odc_database, data_dir=tmp_path / "data")
    yield made
    db.dispose(made)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample scenes, made once for all workers."""
    from odc_openeo.indexing.samples import make_samples

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
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

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 15) -> int:
        """Send the signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()


def start_stack(data_dir: Path, *options: str, ready_within: float = 180, **variables: str) -> RunningStack:
    """Start `odc-openeo up` and wait until it says that it is ready (or has ended)."""
    port = free_port()
    output = data_dir.parent / f"{data_dir.name}-{port}.out"
    command = [*COMMAND, "up", "--data-dir", str(data_dir), "--port", str(port), *options]
    with output.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
        )
    stack = RunningStack(process, f"http://127.0.0.1:{port}", data_dir, output)
    deadline = time.monotonic() + ready_within
    while "Ready:" not in stack.said() and process.poll() is None:
        if time.monotonic() > deadline:
            stack.stop()
            raise AssertionError(f"the stack was not ready in {ready_within} s: {stack.said()}")
        time.sleep(0.05)
    return stack


def wait_until_answering(process: subprocess.Popen[bytes], port: int, seconds: float = 60) -> None:
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
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        content, start = path.read_bytes(), int(wanted[1])
        part = content[start : int(wanted[2]) + 1]
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


@pytest.fixture(scope="session")
def running_stack(short_folder: Path, samples: Path) -> Iterator[RunningStack]:
    """The whole embedded stack with the sample scenes."""
    data_dir = short_folder / "stack"
    data_dir.mkdir()
    (data_dir / "samples").symlink_to(samples)
    stack = start_stack(data_dir, ODC_OPENEO_OUTGOING_ALLOW="127.0.0.1")
    assert stack.process.poll() is None, stack.said()
    yield stack
    assert stack.stop() == 0, stack.said()


@pytest.fixture(scope="session")
def stack(running_stack: RunningStack) -> str:
    """Root URL of the whole embedded stack with the sample scenes; user demo, password demo."""
    return running_stack.url


@pytest.fixture(scope="session")
def stack_environment(running_stack: RunningStack) -> dict[str, str]:
    """Environment in which the `datacube` command works on the index of the stack."""
    socket = running_stack.data_dir / "postgresql" / "pgdata"
    url = f"postgresql+psycopg2://{postgres.DATABASE_USER}@/{DATABASE}?host={socket}"
    return {**os.environ, **odc_database_environment(url)}
