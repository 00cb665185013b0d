"""Map tiles: how long one takes when it is made and when it is kept, and how many come in a second.

Two services over 12 dates of 2048 x 2048 pixels: true colours of the latest date, and the median of NDVI
without clouds over all dates. Cold tiles are all different; those kept are asked for again.
"""

from __future__ import annotations

import http.client
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import morecantile
import numpy as np
import openeo
from rich.console import Console
from rich.table import Table

from benchmarks import scenes
from benchmarks.composite import index
from odc_openeo.config import Config
from odc_openeo.embedded import Stack, free_port

ZOOM = 14
CLIENTS = (1, 8, 32)
COLD = {1: 30, 8: 40, 32: 40}
KEPT_S = 5.0
WARM_UP = 6


def true_colours(connection: openeo.Connection) -> openeo.DataCube:
    """The latest date."""
    return connection.load_collection(scenes.PRODUCT, bands=["B04", "B03", "B02"])


def clear_ndvi(connection: openeo.Connection) -> openeo.DataCube:
    """The median over time of what no cloud covers."""
    cube = connection.load_collection(scenes.PRODUCT, bands=["B04", "B08", "SCL"])
    red, nir, scl = cube.band("B04"), cube.band("B08"), cube.band("SCL")
    ndvi = ((nir - red) / (nir + red)).mask(scl == 9)
    return ndvi.reduce_dimension(dimension="t", reducer="median")


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
    """Tiles that lie wholly in the scenes, in an order of chance that is the same every time."""
    west, south, east, north = scenes.GRID.extent.to_crs("EPSG:4326").boundingbox.bbox
    found = morecantile.tms.get("WebMercatorQuad").tiles(west, south, east, north, [ZOOM - 1, ZOOM, ZOOM + 1])
    names = [f"{t.z}/{t.x}/{t.y}" for t in found]
    random.Random(1).shuffle(names)
    return names


def cold(url: str, names: Iterator[str], clients: int) -> tuple[list[float], float]:
    """Seconds of each of some tiles that nobody has asked for, and tiles a second."""
    wanted = list(itertools.islice(names, COLD[clients]))
    local = threading.local()

    def get(name: str) -> float:
        if not hasattr(local, "client"):
            local.client = Client(url)
        return float(local.client.get(name))

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        taken = list(pool.map(get, wanted))
    return taken, len(wanted) / (time.perf_counter() - start)


def kept(url: str, names: list[str], clients: int) -> tuple[list[float], float]:
    """The same of tiles that were made before, for some seconds."""
    until = time.perf_counter() + KEPT_S

    def ask(number: int) -> list[float]:
        client, taken = Client(url), []
        for name in itertools.cycle(names[number:] + names[:number]):
            if time.perf_counter() > until:
                return taken
            taken.append(client.get(name))
        return taken

    with ThreadPoolExecutor(clients) as pool:
        taken = [seconds for found in pool.map(ask, range(clients)) for seconds in found]
    return taken, len(taken) / KEPT_S


def row(table: Table, what: str, clients: int, measured: tuple[list[float], float]) -> None:
    """Add a line."""
    taken, rate = measured
    p50, p95 = np.percentile(taken, (50, 95)) * 1000
    table.add_row(what, str(clients), f"{p50:.1f}", f"{p95:.1f}", f"{rate:.0f}")


def measure(table: Table, title: str, url: str, processes: int) -> None:
    """All lines of a service."""
    names = iter(places())
    cold(url, itertools.islice(names, WARM_UP), 1)
    for clients in CLIENTS:
        row(table, f"{title}, made", clients, cold(url, names, clients))
    again = places()[:20]
    for _ in range(3 * processes):
        cold(url, iter(again), 1)
    for clients in CLIENTS:
        row(table, f"{title}, kept", clients, kept(url, again, clients))


def main() -> None:
    """Measure and print."""
    table = Table("256 x 256 tiles", "clients", "p50 ms", "p95 ms", "tiles/s")
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        documents = scenes.make(folder / "scenes")
        config = Config(data_dir=folder / "data", port=free_port(), threads_per_worker=1)
        with Stack(config, samples=False, say=lambda text: None) as stack:
            index(stack, scenes.product(folder), documents)
            connection = openeo.connect(stack.url).authenticate_basic("demo", "demo")
            for title, make, limits in (
                ("true colours", true_colours, [1000, 4000]),
                ("median NDVI of 12 dates", clear_ndvi, [0, 1]),
            ):
                settings = {"range": limits, "public": True}
                service = connection.create_service(
                    make(connection).flat_graph(), "XYZ", configuration=settings
                )
                url = service.describe_service()["url"].partition("/{z}")[0]
                measure(table, title, url, config.gunicorn_workers)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
