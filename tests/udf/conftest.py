"""User-defined functions are run by evaluating process graphs on small cubes."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo.config import Config
from odc_openeo.cube import is_cube
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.support.graphs import value
from tests.support.sandbox import SANDBOX

USER = "5f1f4f1e-6a3c-4f0e-9c7b-1f2d3c4b5a69"

Run = Callable[..., Any]


class ListHandler(logging.Handler):
    """Keeps the records of a log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Each thread starts an interpreter of its own, which takes a second."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def records(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """What the run of a test logs."""
    logger, handler = _get_logger(request), ListHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.records
    logger.removeHandler(handler)


def _get_logger(request: pytest.FixtureRequest) -> logging.Logger:
    return logging.getLogger(f"odc_openeo.run.{request.node.name}")


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """The configuration of a service that runs user code."""
    if not SANDBOX.is_usable:
        pytest.skip(f"no user code runs here: {SANDBOX.reason}")
    with make_shared_folder() as folder:
        yield Config(data_dir=Path(tmp_path_factory.mktemp("data")), udf_cache_dir=folder / "cache")


@contextlib.contextmanager
def make_shared_folder() -> Iterator[Path]:
    """Make a folder that every user may enter: user code may run as another one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def environment(config: Config, request: pytest.FixtureRequest) -> Environment:
    """The environment of a run of a user."""
    return Environment(
        catalog=SimpleNamespace(config=config), user=USER, log=_get_logger(request), exports=[]
    )


@pytest.fixture
def run(environment: Environment) -> Run:
    """Evaluate a process on a cube, which it refers to as ``cube``; other cubes may be arguments, too."""
    return make_run(environment)


def make_run(environment: Environment) -> Run:
    """Make the function that evaluates a process in an environment."""

    def run_node(cube: Any, process_id: str, /, **arguments: Any) -> Any:
        cubes = {name: given for name, given in arguments.items() if is_cube(given)}
        named = {name: value(name) if name in cubes else given for name, given in arguments.items()}
        nodes = {"it": {"process_id": process_id, "arguments": named, "result": True}}
        return evaluate({"process_graph": nodes}, environment, {"cube": cube, **cubes})

    return run_node


def udf(code: str, data: str = "data", **more: Any) -> Mapping[str, Any]:
    """Build a child process, or the arguments of a node, that runs user code."""
    node = {"process_id": "run_udf", "arguments": udf_arguments(code, value(data), **more), "result": True}
    return {"process_graph": {"udf": node}}


def udf_arguments(code: str, data: Any, **more: Any) -> dict[str, Any]:
    """Build the arguments of `run_udf`."""
    return {"data": data, "udf": code, "runtime": "Python", **more}
