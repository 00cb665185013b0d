"""Map tiles: latency of new and of cached tiles, and tiles per second.

Two services over 16 dates of 2048 x 2048 pixels: true colours of the latest date, and the median of NDVI
without clouds over all dates. New tiles are all different; cached ones are requested repeatedly.
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

from benchmarks.graphs import CLOUDS, Graph, make_child, make_node, make_parameter, make_reducer, make_ref
from benchmarks.measure import percentiles
from benchmarks.running import CACHE, Service, start_service
from benchmarks.scenes import BOX

ZOOMS: Final = (13, 14, 15)
CLIENTS: Final = (1, 8, 32)
NEW_TILES: Final = {1: 20, 8: 32, 32: 32}
"""Number of new tiles, by the number of clients."""
CACHED_TILES: Final = 20


def true_colours() -> Graph:
    """The latest date."""
    load = make_node("load_collection", id=BOX.product, spatial_extent=None, temporal_extent=None)
    load["arguments"]["bands"] = ["B04", "B03", "B02"]
    return {"load": {**load, "result": True}}


def clear_ndvi() -> Graph:
    """The median over time of pixels without clouds."""
    load = make_node("load_collection", id=BOX.product, spatial_extent=None, temporal_extent=None)
    load["arguments"]["bands"] = ["B04", "B08", "SCL"]
    x = make_parameter("x")
    cloudy = make_child(
        **{f"c{value}": make_node("eq", x=x, y=value) for value in CLOUDS},
        last=make_node("any", data=[make_ref(f"c{value}") for value in CLOUDS]),
    )
    return {
        "load": load,
        "ndvi": make_node("ndvi", data=make_ref("load"), nir="B08", red="B04"),
        "scl": make_node("filter_bands", data=make_ref("load"), bands=["SCL"]),
        "flat": make_node("drop_dimension", data=make_ref("scl"), name="bands"),
        "clouds": make_node("apply", data=make_ref("flat"), process=cloudy),
        "clear": make_node("mask", data=make_ref("ndvi"), mask=make_ref("clouds")),
        "median": {
            **make_node(
                "reduce_dimension", data=make_ref("clear"), dimension="t", reducer=make_reducer("median")
            ),
            "result": True,
        },
    }


SERVICES: Final[dict[str, tuple[Any, list[float]]]] = {
    "true colours of the latest date": (true_colours, [1000, 4000]),
    "median NDVI of 16 dates": (clear_ndvi, [0, 1]),
}


class Client:
    """A client that keeps one connection open, as browsers do."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = parts.path
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)

    def get(self, place: str) -> float:
        """Get a tile; return the seconds."""
        start = time.perf_counter()
        self._connection.request("GET", f"{self._base}/{place}.png")
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return time.perf_counter() - start


def list_tile_paths() -> list[str]:
    """List the tiles over the scenes, in a reproducible random order."""
    west, south, east, north = BOX.grid.extent.to_crs("EPSG:4326").boundingbox.bbox
    tiles = morecantile.tms.get("WebMercatorQuad").tiles(west, south, east, north, list(ZOOMS))
    names = [f"{t.z}/{t.x}/{t.y}" for t in tiles]
    random.Random(1).shuffle(names)
    return names


def measure_new_tiles(url: str, names: Iterator[str], clients: int) -> tuple[float, list[float]]:
    """Measure new tiles: tiles per second, and the seconds of each."""
    tile_paths = list(itertools.islice(names, NEW_TILES[clients]))
    local = threading.local()

    def get(name: str) -> float:
        if not hasattr(local, "client"):
            local.client = Client(url)
        return float(local.client.get(name))

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        taken = list(pool.map(get, tile_paths))
    return len(tile_paths) / (time.perf_counter() - start), taken


def measure_cached_tiles(
    url: str, names: list[str], clients: int, seconds: float
) -> tuple[float, list[float]]:
    """Measure cached tiles for some time: tiles per second, and the seconds of each."""
    until = time.perf_counter() + seconds

    def ask(number: int) -> list[float]:
        client, taken, at = Client(url), [], number % len(names)
        for name in itertools.cycle(names[at:] + names[:at]):
            taken.append(client.get(name))
            if time.perf_counter() > until:
                break
        return taken

    with ThreadPoolExecutor(clients) as pool:
        taken = [duration for durations in pool.map(ask, range(clients)) for duration in durations]
    return len(taken) / seconds, taken


def publish_service(running: Service, make: Any, limits: list[float]) -> str:
    """Create a service; return the URL of its tiles."""
    body = {"type": "XYZ", "process": {"process_graph": make()}}
    settings = {"range": limits, "public": True}
    answer = running.session.post(f"{running.address}/services", json={**body, "configuration": settings})
    answer.raise_for_status()
    id_ = answer.headers["OpenEO-Identifier"]
    url = running.session.get(f"{running.address}/services/{id_}").json()["url"]
    return str(url.partition("/{z}")[0])


def measure_service(title: str, url: str, processes: int, seconds: float) -> Table:
    """Measure a service; return its table."""
    table = Table(title=title, title_justify="left")
    for name in ("256 x 256 tiles", "clients", "p50 ms", "p95 ms", "tiles/s"):
        table.add_column(name, justify="right")
    names = iter(list_tile_paths())
    list(map(Client(url).get, itertools.islice(names, 2 * processes)))
    for clients in CLIENTS:
        rate, taken = measure_new_tiles(url, names, clients)
        table.add_row("new", str(clients), *(f"{p:.1f}" for p in percentiles(taken)[:2]), f"{rate:.0f}")
    again = list_tile_paths()[:CACHED_TILES]
    for _ in range(3 * processes):
        list(map(Client(url).get, again))
    for clients in CLIENTS:
        rate, taken = measure_cached_tiles(url, again, clients, seconds)
        table.add_row("cached", str(clients), *(f"{p:.1f}" for p in percentiles(taken)[:2]), f"{rate:.0f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="for each number of clients")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    options = parser.parse_args()
    console = Console(width=100)
    with start_service(options.cache) as running:
        for title, (make, limits) in SERVICES.items():
            url = publish_service(running, make, limits)
            console.print(measure_service(title, url, running.stack.config.gunicorn_workers, options.seconds))


if __name__ == "__main__":
    main()
