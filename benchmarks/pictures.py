"""Small requests beside titiler-openeo: map tiles that are made anew, and pictures by ``POST /result``.

Each request shows another place. Both servers read the same files and take turns, so that other load on the
machine affects both. titiler-openeo searches in the STAC API of this service, which is not counted as its CPU
time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import requests
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table

from benchmarks import titiler
from benchmarks.graphs import (
    Graph,
    compute_ndvi,
    load_scenes,
    make_child,
    make_node,
    make_parameter,
    make_reducer,
    make_ref,
)
from benchmarks.measure import Cost, Processes, measure_cost
from benchmarks.running import CACHE, Service, empty_service, index_documents
from benchmarks.scenes import BOX
from benchmarks.tiles import list_tile_paths

ONE_DATE: Final = ["2022-05-04", "2022-05-05"]
TEN_DATES: Final = ["2022-05-01", "2022-06-20"]
TRUE_COLOURS: Final = ("B04", "B03", "B02")
NDVI: Final = ("B04", "B08")
OURS: Final = "odc-openeo"
OTHER: Final = "titiler-openeo"

Request = Callable[[], requests.Response]


def make_picture(bands: tuple[str, ...], dates: list[str], grid: GeoBox | None, *, sized: bool) -> Graph:
    """A graph that saves a PNG: true colours, or the NDVI (of several dates its median), as shades.

    With ``sized`` the load has the size of the picture, as titiler-openeo needs it; without a grid it is
    for map tiles.
    """
    load = load_scenes(BOX, *bands, dates=dates, grid=grid)
    arguments = load["arguments"]
    if grid is None:
        arguments["spatial_extent"] = None
    elif sized:
        arguments |= {"width": grid.shape.x, "height": grid.shape.y}
    graph: Graph = {"load": load}
    low, high, last = 1000, 4000, "load"
    if bands == NDVI:
        low, high, last = -1, 1, "ndvi"
        graph["ndvi"] = _compute_ndvi_by_index() if sized or grid is None else compute_ndvi("load")
    if dates == TEN_DATES:
        reducer = make_reducer("median")
        graph["median"] = make_node("reduce_dimension", data=make_ref(last), dimension="t", reducer=reducer)
        last = "median"
    limits = {"inputMin": low, "inputMax": high, "outputMin": 0, "outputMax": 255}
    shades = make_child(last=make_node("linear_scale_range", x=make_parameter("x"), **limits))
    graph["shades"] = make_node("apply", data=make_ref(last), process=shades)
    saved = make_node("save_result", data=make_ref("shades"), format="PNG")
    return {**graph, "save": {**saved, "result": True}}


def _compute_ndvi_by_index() -> dict[str, Any]:
    bands = {
        name: make_node("array_element", data=make_parameter("data"), index=index)
        for index, name in enumerate(("red", "nir"))
    }
    index = make_node("normalized_difference", x=make_ref("nir"), y=make_ref("red"))
    return make_node(
        "reduce_dimension", data=make_ref("load"), dimension="bands", reducer=make_child(**bands, last=index)
    )


def list_windows(side: int) -> Iterator[GeoBox]:
    """List parts of the grid of the scenes in a reproducible random order, without end."""
    places = random.Random(side)
    most = BOX.grid.shape.x - side
    while True:
        row, column = places.randint(0, most), places.randint(0, most)
        yield BOX.grid[row : row + side, column : column + side]


@dataclass
class Server:
    """A server, its processes, and how its tiles and pictures are requested."""

    name: str
    processes: Processes
    address: str
    session: requests.Session
    sized: bool
    tile_url: Callable[[str], str]
    costs: list[Cost] = field(default_factory=list)

    def publish_tiles(self, bands: tuple[str, ...]) -> str:
        """Create an XYZ service; return the URL of its tiles."""
        graph = make_picture(bands, ONE_DATE, None, sized=self.sized)
        configuration = {"scope": "public"} if self.sized else {"public": True}
        body = {"type": "XYZ", "process": {"process_graph": graph}, "configuration": configuration}
        answer = self.session.post(f"{self.address}/services", json=body)
        answer.raise_for_status()
        return self.tile_url(answer.headers["OpenEO-Identifier"])

    def list_tiles(self, bands: tuple[str, ...]) -> Iterator[Request]:
        """Requests of tiles, each of another place."""
        url = self.publish_tiles(bands)
        for path in list_tile_paths():
            yield lambda path=path: self.session.get(f"{url}/{path}")  # type: ignore[misc]

    def list_pictures(self, side: int, dates: list[str]) -> Iterator[Request]:
        """Requests of pictures, each of another place."""
        for grid in list_windows(side):
            graph = make_picture(NDVI, dates, grid, sized=self.sized)
            body = {"process": {"process_graph": graph}}
            yield lambda body=body: self.session.post(f"{self.address}/result", json=body)  # type: ignore[misc]

    def send_request(self, request: Request) -> None:
        """Send a request, of which the cost is kept."""

        def get_picture() -> None:
            response = request()
            if response.status_code != 200 or response.headers["Content-Type"] != "image/png":
                raise SystemExit(f"{self.name}: {response.status_code} {response.text[:500]}")

        self.costs.append(measure_cost(get_picture, self.processes))


ROWS: Final[dict[str, Callable[[Server], Iterator[Request]]]] = {
    "tile, true colours of one date": lambda server: server.list_tiles(TRUE_COLOURS),
    "tile, NDVI of one date": lambda server: server.list_tiles(NDVI),
    "PNG of 256 x 256, NDVI of one date": lambda server: server.list_pictures(256, ONE_DATE),
    "PNG of 1024 x 1024, median NDVI of ten dates": lambda server: server.list_pictures(1024, TEN_DATES),
}


def make_our_server(running: Service) -> Server:
    """This service."""
    session = running.session

    def find_tiles(id_: str) -> str:
        url = session.get(f"{running.address}/services/{id_}").json()["url"]
        return str(url.partition("/{z}")[0])

    processes = Processes((), running.processes(here=False).other_pids)
    return Server(OURS, processes, running.address, session, False, find_tiles)


@contextmanager
def start_other_server(cache: Path, running: Service) -> Iterator[Server]:
    """titiler-openeo on the STAC API of this service."""
    with titiler.start_titiler(cache, running.address) as server:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer basic//{titiler.USER}"
        processes = Processes((), server.processes.workers)

        def find_tiles(id_: str) -> str:
            return f"{server.url}/services/xyz/{id_}/tiles"

        yield Server(OTHER, processes, server.url, session, True, find_tiles)


def measure_row(
    servers: list[Server], list_requests: Callable[[Server], Iterator[Request]], rounds: int
) -> None:
    """Let the servers take turns; the first requests of each are a warm-up."""
    warm_up = max(4, rounds // 5)
    waiting = [list_requests(server) for server in servers]
    for server in servers:
        server.costs = []
    for requests_of_turn in itertools.islice(zip(*waiting, strict=True), warm_up + rounds):
        for server, request in zip(servers, requests_of_turn, strict=True):
            server.send_request(request)
    for server in servers:
        server.costs = server.costs[warm_up:]


def describe_row(title: str, servers: list[Server]) -> list[str]:
    """Describe the costs of the servers: medians of times, means of CPU times, which have coarse steps."""
    walls = [1000 * statistics.median(cost.wall_s for cost in server.costs) for server in servers]
    cpus = [1000 * statistics.fmean(cost.cpu_s for cost in server.costs) for server in servers]
    ratios = [f"{one[0] / one[1]:.2f}" if len(one) > 1 else "" for one in (walls, cpus)]
    return [
        title,
        *(f"{wall:.0f}" for wall in walls),
        ratios[0],
        *(f"{cpu:.0f}" for cpu in cpus),
        ratios[1],
        f"{os.getloadavg()[0]:.1f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the scenes")
    parser.add_argument("--without-titiler", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    definition, documents = BOX.write_definition(options.cache), BOX.write_scenes(options.cache)
    with empty_service(gunicorn_workers=1, tile_cache_bytes=0) as running:
        index_documents(running.stack, [definition], documents)
        servers = [make_our_server(running)]
        if options.without_titiler:
            print_table(servers, options.rounds)
            return
        with start_other_server(options.cache, running) as other:
            print_table([*servers, other], options.rounds)


def print_table(servers: list[Server], rounds: int) -> None:
    """Measure each row and print the table."""
    table = Table(title=f"Medians of {rounds} requests on {psutil.cpu_count()} cores", title_justify="left")
    names = [server.name for server in servers]
    table.add_column("")
    columns = [
        *(f"{name} ms" for name in names),
        "ratio",
        *(f"{name} CPU ms" for name in names),
        "ratio",
        "load",
    ]
    for name in columns:
        table.add_column(name, justify="right")
    for title, list_requests in ROWS.items():
        measure_row(servers, list_requests, rounds)
        table.add_row(*describe_row(title, servers))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
