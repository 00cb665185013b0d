"""Breakdown of the time of small requests: `1 + 1`, and an NDVI image of 256 x 256 pixels, warm."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import graphs
from benchmarks.clients import Client
from benchmarks.measure import Processes, measure_cost, percentiles
from benchmarks.running import CACHE, Service, start_service
from odc_openeo import load
from odc_openeo.catalog import Catalog
from odc_openeo.compute import cluster
from odc_openeo.evaluation import synchronous

ROUNDS: Final = 60

preparing = import_module("odc_openeo.graph.prepare")
"""The module; its package has a function of the same name."""

STAGES: Final[dict[str, tuple[Any, str]]] = {
    "parse": (preparing, "parse_process"),
    "plan": (preparing, "plan_for_view"),
    "catalogue: product": (Catalog, "get_product"),
    "catalogue: search": (Catalog, "search_scenes"),
    "build the cube": (load, "load"),
    "evaluate, all of it": (preparing.PreparedProcess, "evaluate"),
    "compute pixels": (cluster, "compute"),
    "write, pixels included": (synchronous, "write_outputs"),
}
"""Functions whose time is listed; some are called by others."""


@contextmanager
def time_stages() -> Iterator[dict[str, list[float]]]:
    """Collect the milliseconds of each call of the stages."""
    taken: dict[str, list[float]] = defaultdict(list)
    originals = {name: getattr(owner, attribute) for name, (owner, attribute) in STAGES.items()}
    for name, (owner, attribute) in STAGES.items():
        setattr(owner, attribute, _wrap_timed(originals[name], taken[name]))
    try:
        yield taken
    finally:
        for name, (owner, attribute) in STAGES.items():
            setattr(owner, attribute, originals[name])


def _wrap_timed(function: Callable[..., Any], taken: list[float]) -> Callable[..., Any]:
    @wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken.append(1000 * (time.perf_counter() - start))

    return around


def over_http(running: Service, graph: dict[str, Any]) -> tuple[list[float], float]:
    """Measure seconds of consecutive warm requests, and the server's CPU seconds per request."""
    client = Client(running, graph)
    for _ in range(ROUNDS // 3):
        client.send_request()
    taken: list[float] = []
    server = Processes((), running.processes(here=False).other_pids)
    cost = measure_cost(lambda: taken.extend(client.send_request() for _ in range(ROUNDS)), server)
    return taken, cost.cpu_s / ROUNDS


def measure_breakdown(running: Service, graph: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Measure the median milliseconds of a runner's work for a request, and of its stages."""

    def ask() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            running.in_process(graph, Path(folder))
            return 1000 * (time.perf_counter() - start)

    for _ in range(ROUNDS // 6):
        ask()
    with time_stages() as taken:
        whole = statistics.median(ask() for _ in range(ROUNDS))
    return whole, {name: statistics.median(times) for name, times in taken.items() if times}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    options = parser.parse_args()
    console = Console(width=120)
    with start_service(options.cache, gunicorn_workers=1) as running:
        for title, graph in (("1 + 1", graphs.one_and_one()), ("NDVI, 256 x 256", graphs.ndvi_preview())):
            taken, cpu = over_http(running, graph)
            p50, p95, _ = percentiles(taken)
            whole, stages = measure_breakdown(running, graph)
            table = Table(title=title, title_justify="left")
            table.add_column("median of each")
            table.add_column("ms", justify="right")
            table.add_row("over HTTP: p50", f"{p50:.1f}")
            table.add_row("over HTTP: p95", f"{p95:.1f}")
            table.add_row("over HTTP: least", f"{1000 * min(taken):.1f}")
            table.add_row("CPU of the server", f"{1000 * cpu:.1f}")
            table.add_row("of this in the runner", f"{whole:.1f}")
            for name, milliseconds in stages.items():
                table.add_row(f"  {name}", f"{milliseconds:.2f}")
            console.print(table)


if __name__ == "__main__":
    main()
