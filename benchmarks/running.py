"""The service with the scenes of the benchmarks indexed, and its processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import openeo
import psutil
import requests
from dask.distributed import Client
from openeo.rest import DEFAULT_DOWNLOAD_CHUNK_SIZE
from pydantic import SecretStr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from benchmarks import scenes
from benchmarks.measure import Processes
from odc_openeo import db
from odc_openeo.compute import cluster
from odc_openeo.config import Config, child_environment, use_odc_database
from odc_openeo.evaluation import synchronous
from odc_openeo.indexing.index import index_datasets, index_products
from odc_openeo.stack import postgres
from odc_openeo.stack.embedded import Stack, free_port
from odc_openeo.users import accounts

CACHE = (
    Path("/var/cache" if os.geteuid() == 0 else os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "odc-openeo-benchmarks"
)
"""The scenes and the stack with its index. PostgreSQL must be able to enter it, which root's home forbids."""


@dataclass
class Service:
    """A running stack, used over HTTP or in this process."""

    stack: Stack
    cache: Path

    @cached_property
    def session(self) -> requests.Session:
        """A signed-in session that keeps its connection."""
        connection = openeo.connect(self.stack.url).authenticate_basic("demo", "demo")
        new_session = requests.Session()
        new_session.headers["Authorization"] = f"Bearer {connection.auth.bearer}"
        return new_session

    @property
    def address(self) -> str:
        """The base URL of the API."""
        return f"{self.stack.url}/openeo/1.3"

    @cached_property
    def config(self) -> Config:
        """The configuration with which this process can do the work of runners."""
        use_odc_database(db.get_database_url(self.stack.config).render_as_string(hide_password=False))
        return self.stack.config

    @cached_property
    def user(self) -> UUID:
        """The id of the demo user."""
        return next(user.id for user in accounts.list_users(self.stack.config) if user.name == "demo")

    def over_http(self, graph: dict[str, Any], target: Path) -> None:
        """Compute by ``POST /result``; the response becomes the file ``result`` in the folder ``target``."""
        body = {"process": {"process_graph": graph}}
        with self.session.post(f"{self.address}/result", json=body, stream=True) as answer:
            if answer.status_code != 200:
                raise RuntimeError(answer.text)
            with (target / "result").open("wb") as file:
                for piece in answer.iter_content(DEFAULT_DOWNLOAD_CHUNK_SIZE):
                    file.write(piece)

    def in_process(self, graph: dict[str, Any], target: Path) -> None:
        """Compute with the same functions, without HTTP."""
        synchronous.compute_result(self.config, {"process_graph": graph}, str(self.user), target)

    def processes(self, *, here: bool) -> Processes:
        """The workers; the scheduler; and the HTTP server or, with ``here``, this process."""
        named = {part.name: psutil.Process(part.process.pid) for part in self.stack.parts}
        workers = [
            p.pid for p in _process_tree(named["dask workers"]) if "spawn_main" in " ".join(p.cmdline())
        ]
        server = [os.getpid()] if here else [p.pid for p in _process_tree(named["HTTP server"])]
        return Processes(workers, [named["dask scheduler"].pid, *server])


def _process_tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


@contextmanager
def start_service(cache: Path = CACHE, **settings: Any) -> Iterator[Service]:
    """Start the stack with two single-threaded workers and the scenes indexed; stop it at the end.

    Its state is kept in the cache folder, so that the scenes are indexed only once.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _make_stack(cache / "stack", **settings) as stack:
        _index_scenes(stack, cache)
        yield from _use_stack(stack, cache)


@contextmanager
def empty_service(folder: Path | None = None, **settings: Any) -> Iterator[Service]:
    """Start the stack with an empty index, in a temporary folder or in one that is kept."""
    if folder is not None:
        with _make_stack(folder, **settings) as stack:
            yield from _use_stack(stack, folder)
        return
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with _make_stack(folder, **settings) as stack:
            yield from _use_stack(stack, folder)


@contextmanager
def empty_service_with_driver(driver: str, **settings: Any) -> Iterator[Service]:
    """Start the stack with an empty index of a driver; ``postgis`` takes Debian's PostgreSQL with PostGIS."""
    if driver == "postgres":
        with empty_service(**settings) as running:
            yield running
        return
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise SystemExit("the index driver postgis needs Debian's package postgresql-15-postgis-3")
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = postgres.start_server(folder / "server" / "pg", folder / "postgresql.log", (), programs)
        try:
            url = SecretStr(server.create_database("datacube"))
            with empty_service(database_url=url, index_driver="postgis", **settings) as running:
                yield running
        finally:
            server.stop(5)


def _make_stack(folder: Path, **settings: Any) -> Stack:
    # Without the cache, which would answer all requests but the first.
    sizes = {
        "cache_max_bytes": 0,
        "workers": 2,
        "threads_per_worker": 1,
        "job_workers": 0,
        "sync_max_bytes": 2**40,
    }
    config = Config(data_dir=folder, port=free_port(), **{**sizes, **settings})
    return Stack(config, samples=False, say=lambda text: None)


def _use_stack(stack: Stack, cache: Path) -> Iterator[Service]:
    yield Service(stack, cache)
    cluster.close(stack.config)
    db.dispose_engine(stack.config)


def _index_scenes(stack: Stack, cache: Path) -> None:
    note = stack.config.data_dir / "scenes.done"
    scene_documents = list(scenes.make_all(cache))
    if note.exists() and note.read_text() == scenes.VERSION:
        return
    definitions = [scene_set.write_definition(cache) for scene_set, _ in scene_documents]
    index_documents(
        stack, definitions, [document for _, documents in scene_documents for document in documents]
    )
    note.write_text(scenes.VERSION)


def index_documents(stack: Stack, definitions: list[Path], documents: list[Path]) -> None:
    """Index products and scenes with the `datacube` command."""
    environment = child_environment(stack.config, **stack.odc_environment)
    index_products(definitions, environment)
    index_datasets(documents, environment)


@contextmanager
def hand_client(running: Service) -> Iterator[Client]:
    """Connect a client to the same cluster, as the default for dask computations by hand."""
    with Client(running.stack.config.dask_scheduler) as client:
        yield client
