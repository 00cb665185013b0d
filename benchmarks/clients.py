"""Synchronous requests of 1, 4, 16 and 64 concurrent clients: requests per second and latencies."""

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
from benchmarks.running import CACHE, Service, start_service

CLIENTS: Final = (1, 4, 16, 64)
GRAPHS: Final = {"1 + 1": graphs.one_and_one, "NDVI picture of 256 x 256": graphs.ndvi_preview}


class Client:
    """A client with its own connection, which sends requests until the time is over."""

    def __init__(self, running: Service, graph: dict[str, Any]) -> None:
        self.session = requests.Session()
        self.session.headers.update(running.session.headers)
        self.session.trust_env = False
        self.address = f"{running.address}/result"
        self.body = {"process": {"process_graph": graph}}

    def send_request(self) -> float:
        """Send one request; return its seconds."""
        start = time.perf_counter()
        response = self.session.post(self.address, json=self.body)
        response.raise_for_status()
        return time.perf_counter() - start

    def send_until(self, end: float, started: threading.Barrier) -> list[float]:
        """Send requests until ``end``; return the seconds of each."""
        started.wait()
        taken = [self.send_request()]
        while time.perf_counter() < end:
            taken.append(self.send_request())
        return taken


def run_together(
    running: Service, graph: dict[str, Any], clients: int, seconds: float
) -> tuple[float, list[float]]:
    """Run clients together; return requests per second, and the seconds of each request."""
    started = threading.Barrier(clients)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        waiting = [
            pool.submit(Client(running, graph).send_until, start + seconds, started) for _ in range(clients)
        ]
        taken = [seconds_taken for future in waiting for seconds_taken in future.result()]
    return len(taken) / (time.perf_counter() - start), taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    options = parser.parse_args()
    console = Console(width=120)
    # All clients belong to one user, and none may be refused.
    with start_service(options.cache, runs_per_user=4, gunicorn_threads=6 * max(CLIENTS)) as running:
        for title, make in GRAPHS.items():
            graph = make()
            run_together(running, graph, 8, options.seconds / 3)
            table = Table(title=title, title_justify="left")
            for name in ("clients", "requests/s", "p50 ms", "p95 ms", "p99 ms"):
                table.add_column(name, justify="right")
            for clients in CLIENTS:
                rate, taken = run_together(running, graph, clients, options.seconds)
                table.add_row(str(clients), f"{rate:.1f}", *(f"{p:.1f}" for p in percentiles(taken)))
            console.print(table)


if __name__ == "__main__":
    main()
