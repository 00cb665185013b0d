"""One user sends many heavy requests at once and leaves: effect on other users, and leftovers."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import requests
from rich.console import Console
from rich.table import Table

from benchmarks import graphs
from benchmarks.measure import percentiles
from benchmarks.running import CACHE, Service, start_service
from benchmarks.tiles import Client, list_tile_paths, publish_service, true_colours
from odc_openeo.users import accounts

HEAVY: Final = 50
"""Number of requests that one user sends at once."""

QUIET_SHARE: Final = 0.1
"""Share of a core below which the service counts as idle."""

NEIGHBOUR: Final = "neighbour"


@dataclass
class Neighbour:
    """Another user, who lists collections, signs in and views a map."""

    running: Service
    tiles: Iterator[str]
    map_url: str
    session: requests.Session = field(default_factory=requests.Session)

    def visit(self, seconds: float) -> dict[str, list[float]]:
        """Send requests for some time; return the seconds of each, by kind."""
        client, address = Client(self.map_url), self.running.address
        kinds: dict[str, Callable[[], float]] = {
            "GET /collections": lambda: self._time_get(f"{address}/collections"),
            "GET /credentials/basic": lambda: self._time_get(
                f"{address}/credentials/basic", auth=(NEIGHBOUR, NEIGHBOUR)
            ),
            "map tile, not cached": lambda: client.get(next(self.tiles)),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for kind, request in kinds.items():
                taken[kind].append(request())
        return taken

    def _time_get(self, url: str, **options: Any) -> float:
        start = time.perf_counter()
        self.session.get(url, **options).raise_for_status()
        return time.perf_counter() - start


class Attack:
    """Heavy requests of one user, sent again as soon as they are answered, until the user leaves.

    In a separate process, so that the latencies of the neighbour are measured undisturbed.
    """

    def __init__(self, running: Service) -> None:
        context = multiprocessing.get_context("spawn")
        self._leaving, self._answers = context.Event(), context.SimpleQueue()
        header = str(running.session.headers["Authorization"])
        arguments = (f"{running.address}/result", header, self._leaving, self._answers)
        self._process = context.Process(target=send_heavy_requests, args=arguments)

    def start(self) -> None:
        """Send all requests."""
        self._process.start()

    def close_connections(self) -> Counter[str]:
        """Close all connections; return the number of responses by status."""
        self._leaving.set()
        answers: Counter[str] = self._answers.get()
        return answers


def heavy_body() -> dict[str, Any]:
    """A request that keeps two cores busy for some seconds."""
    return {"process": {"process_graph": graphs.masked_median()}}


def send_heavy_requests(url: str, authorization: str, leaving: Any, answers: Any) -> None:
    """Send requests over many connections at once until ``leaving`` is set; then close all of them."""
    counts: Counter[str] = Counter()
    senders = [_Sender(url, authorization, leaving, counts) for _ in range(HEAVY)]
    threads = [threading.Thread(target=sender.send_again_and_again, daemon=True) for sender in senders]
    for thread in threads:
        thread.start()
    leaving.wait()
    for sender in senders:
        sender.hang_up()
    answers.put(counts)


@dataclass
class _Sender:
    url: str
    authorization: str
    leaving: Any
    counts: Counter[str]
    connection: http.client.HTTPConnection | None = None

    def send_again_and_again(self) -> None:
        parts = urlsplit(self.url)
        body = json.dumps(heavy_body())
        headers = {"Authorization": self.authorization, "Content-Type": "application/json"}
        while not self.leaving.is_set():
            self.connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=300)
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.connection.request("POST", parts.path, body, headers)
                answer = self.connection.getresponse()
                answer.read()
                self.counts[str(answer.status)] += 1
                self.leaving.wait(float(answer.headers.get("Retry-After", 0)))
            self.connection.close()

    def hang_up(self) -> None:
        """Shut down the connection, even while it is being read."""
        if self.connection is not None and self.connection.sock is not None:
            with contextlib.suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)


def server_family(running: Service) -> list[psutil.Process]:
    """The processes that answer and run requests, and the dask workers."""
    return [psutil.Process(pid) for pid in running.processes(here=False).all_pids]


def memory_mb(running: Service) -> float:
    """Proportional memory of all these processes: shared pages count once."""
    return sum(process.memory_full_info().pss for process in server_family(running)) / 1e6


def wait_until_quiet(running: Service) -> float:
    """Wait until server, runners and dask workers are idle; return the seconds."""
    start, step = time.perf_counter(), 0.5
    while True:
        before = {p.pid: sum(p.cpu_times()[:2]) for p in server_family(running)}
        time.sleep(step)
        after = {p.pid: sum(p.cpu_times()[:2]) for p in server_family(running)}
        used = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items() if pid in before)
        if used < QUIET_SHARE * step:
            return time.perf_counter() - start - step


def make_table(idle: dict[str, list[float]], busy: dict[str, list[float]]) -> Table:
    """Make the table of the neighbour's latencies before and during the attack."""
    table = Table(title=f"Another user while one sends {HEAVY} heavy requests", title_justify="left")
    for name in ("request", "idle p50 ms", "idle p95 ms", "busy p50 ms", "busy p95 ms", "p95 ratio"):
        table.add_column(name, justify="right")
    for kind in idle:
        p50, p95, _ = percentiles(idle[kind])
        busy50, busy95, _ = percentiles(busy[kind])
        row = [f"{value:.1f}" for value in (p50, p95, busy50, busy95)]
        table.add_row(kind, *row, f"{busy95 / p95:.2f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each of the two phases")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    options = parser.parse_args()
    console = Console(width=120)
    with start_service(options.cache, tile_cache_bytes=0) as running:
        if all(user.name != NEIGHBOUR for user in accounts.list_users(running.stack.config)):
            accounts.create_user(running.stack.config, NEIGHBOUR, NEIGHBOUR)
        tiles = itertools.cycle(list_tile_paths())
        neighbour = Neighbour(running, tiles, publish_service(running, true_colours, [1000, 4000]))
        neighbour.visit(5)
        running.session.post(f"{running.address}/result", json=heavy_body()).raise_for_status()
        wait_until_quiet(running)
        memory = memory_mb(running)
        idle = neighbour.visit(options.seconds)
        attack = Attack(running)
        attack.start()
        time.sleep(2)
        busy = neighbour.visit(options.seconds)
        answers = attack.close_connections()
        quiet_s = wait_until_quiet(running)
        time.sleep(2)
        console.print(make_table(idle, busy))
        console.print(f"answers to the heavy requests: {dict(answers)}")
        console.print(f"all runs had ended {quiet_s:.1f} s after the clients left")
        console.print(f"memory before {memory:,.0f} MB, after {memory_mb(running):,.0f} MB")


if __name__ == "__main__":
    main()
