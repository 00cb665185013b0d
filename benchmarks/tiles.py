"""Map tiles: how long one takes when it is made and when it is kept, and how many come in a second.

Two services over 16 dates of 2048 x 2048 pixels: true colours of the latest date, and the median of NDVI
without clouds over all dates. Tiles that are made are all different; those kept are asked for again.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import morecantile
from rich.console import Console
from rich.table import Table

from benchmarks.graphs import CLOUDS, Graph, child, node, parameter, reducer, ref
from benchmarks.measure import percentiles
from benchmarks.running import CACHE, Service, service
from benchmarks.scenes import BOX

ZOOMS: Final = (13, 14, 15)
CLIENTS: Final = (1, 8, 32)
MADE: Final = {1: 20, 8: 32, 32: 32}
"""Tiles that are made, by the number of clients."""
KEPT: Final = 20


def true_colours() -> Graph:
    """The latest date."""
    load = node("load_collection", id=BOX.product, spatial_extent=None, temporal_extent=None)
    load["arguments"]["bands"] = ["B04", "B03", "B02"]
    return {"load": {**load, "result": True}}


def clear_ndvi() -> Graph:
    """The median over time of what no cloud covers."""
    load = node("load_collection", id=BOX.product, spatial_extent=None, temporal_extent=None)
    load["arguments"]["bands"] = ["B04", "B08", "SCL"]
    x = parameter("x")
    cloudy = child(
        **{f"c{value}": node("eq", x=x, y=value) for value in CLOUDS},
        last=node("any", data=[ref(f"c{value}") for value in CLOUDS]),
    )
    return {
        "load": load,
        "ndvi": node("ndvi", data=ref("load"), nir="B08", red="B04"),
        "scl": node("filter_bands", data=ref("load"), bands=["SCL"]),
        "flat": node("drop_dimension", data=ref("scl"), name="bands"),
        "clouds": node("apply", data=ref("flat"), process=cloudy),
        "clear": node("mask", data=ref("ndvi"), mask=ref("clouds")),
        "median": {
            **node("reduce_dimension", data=ref("clear"), dimension="t", reducer=reducer("median")),
            "result": True,
        },
    }


SERVICES: Final[dict[str, tuple[Any, list[float]]]] = {
    "true colours of the latest date": (true_colours, [1000, 4000]),
    "median NDVI of 16 dates": (clear_ndvi, [0, 1]),
}


class Client:
    """One connection that is kept open, as browsers do."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = parts.path
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)

    def get(self, place: str) -> float:
        """Seconds until a tile is there."""
        start = time.perf_counter()
        self._connection.request("GET", f"{self._base}/{place}.png")
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return time.perf_counter() - start


def places() -> list[str]:
    """Tiles over the scenes, in an order of chance that is the same every time."""
    west, south, east, north = BOX.grid.extent.to_crs("EPSG:4326").boundingbox.bbox
    found = morecantile.tms.get("WebMercatorQuad").tiles(west, south, east, north, list(ZOOMS))
    names = [f"{t.z}/{t.x}/{t.y}" for t in found]
    random.Random(1).shuffle(names)
    return names


def made(url: str, names: Iterator[str], clients: int) -> tuple[float, list[float]]:
    """Tiles a second, and the seconds of each, of tiles that nobody has asked for."""
    wanted = list(itertools.islice(names, MADE[clients]))
    local = threading.local()

    def get(name: str) -> float:
        if not hasattr(local, "client"):
            local.client = Client(url)
        return float(local.client.get(name))

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        taken = list(pool.map(get, wanted))
    return len(wanted) / (time.perf_counter() - start), taken


def kept(url: str, names: list[str], clients: int, seconds: float) -> tuple[float, list[float]]:
    """The same of tiles that were made before, for some seconds."""
    until = time.perf_counter() + seconds

    def ask(number: int) -> list[float]:
        client, taken, at = Client(url), [], number % len(names)
        for name in itertools.cycle(names[at:] + names[:at]):
            taken.append(client.get(name))
            if time.perf_counter() > until:
                break
        return taken

    with ThreadPoolExecutor(clients) as pool:
        taken = [each for found in pool.map(ask, range(clients)) for each in found]
    return len(taken) / seconds, taken


def published(running: Service, make: Any, limits: list[float]) -> str:
    """The address of a new service's tiles."""
    body = {"type": "XYZ", "process": {"process_graph": make()}}
    settings = {"range": limits, "public": True}
    answer = running.session.post(f"{running.address}/services", json={**body, "configuration": settings})
    answer.raise_for_status()
    id_ = answer.headers["OpenEO-Identifier"]
    url = running.session.get(f"{running.address}/services/{id_}").json()["url"]
    return str(url.partition("/{z}")[0])


def measure(title: str, url: str, processes: int, seconds: float) -> Table:
    """The table of a service."""
    table = Table(title=title, title_justify="left")
    for name in ("256 x 256 tiles", "clients", "p50 ms", "p95 ms", "tiles/s"):
        table.add_column(name, justify="right")
    names = iter(places())
    list(map(Client(url).get, itertools.islice(names, 2 * processes)))
    for clients in CLIENTS:
        rate, taken = made(url, names, clients)
        table.add_row("made", str(clients), *(f"{p:.1f}" for p in percentiles(taken)[:2]), f"{rate:.0f}")
    again = places()[:KEPT]
    for _ in range(3 * processes):
        list(map(Client(url).get, again))
    for clients in CLIENTS:
        rate, taken = kept(url, again, clients, seconds)
        table.add_row("kept", str(clients), *(f"{p:.1f}" for p in percentiles(taken)[:2]), f"{rate:.0f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="for each number of clients")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    asked = parser.parse_args()
    console = Console(width=100)
    with service(asked.cache) as running:
        for title, (make, limits) in SERVICES.items():
            url = published(running, make, limits)
            console.print(measure(title, url, running.stack.config.gunicorn_workers, asked.seconds))


if __name__ == "__main__":
    main()
