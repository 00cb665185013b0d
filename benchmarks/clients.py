"""Synchronous requests of 1, 4, 16 and 64 clients at once: requests a second and how long each waits."""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.table import Table

from benchmarks import graphs
from benchmarks.measure import percentiles
from benchmarks.running import CACHE, Service, service

CLIENTS: Final = (1, 4, 16, 64)
GRAPHS: Final = {"1 + 1": graphs.one_and_one, "NDVI picture of 256 x 256": graphs.ndvi_preview}


class Client:
    """One client with a connection of its own: asks again and again until the time is over."""

    def __init__(self, running: Service, graph: dict[str, Any]) -> None:
        self.session = requests.Session()
        self.session.headers.update(running.session.headers)
        self.session.trust_env = False
        self.address = f"{running.address}/result"
        self.body = {"process": {"process_graph": graph}}

    def ask(self) -> float:
        """Seconds of one request."""
        start = time.perf_counter()
        answer = self.session.post(self.address, json=self.body)
        answer.raise_for_status()
        return time.perf_counter() - start

    def until(self, end: float, started: threading.Barrier) -> list[float]:
        """Seconds of each request."""
        started.wait()
        taken = [self.ask()]
        while time.perf_counter() < end:
            taken.append(self.ask())
        return taken


def together(
    running: Service, graph: dict[str, Any], clients: int, seconds: float
) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each."""
    started = threading.Barrier(clients)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        waiting = [
            pool.submit(Client(running, graph).until, start + seconds, started) for _ in range(clients)
        ]
        taken = [each for future in waiting for each in future.result()]
    return len(taken) / (time.perf_counter() - start), taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    asked = parser.parse_args()
    console = Console(width=120)
    # One user is all clients here, and none is to be refused.
    with service(asked.cache, runs_per_user=4, gunicorn_threads=6 * max(CLIENTS)) as running:
        for title, make in GRAPHS.items():
            graph = make()
            together(running, graph, 8, asked.seconds / 3)
            table = Table(title=title, title_justify="left")
            for name in ("clients", "requests/s", "p50 ms", "p95 ms", "p99 ms"):
                table.add_column(name, justify="right")
            for clients in CLIENTS:
                rate, taken = together(running, graph, clients, asked.seconds)
                table.add_row(str(clients), f"{rate:.1f}", *(f"{p:.1f}" for p in percentiles(taken)))
            console.print(table)


if __name__ == "__main__":
    main()
