"""The catalogue with a thousand and with many datasets of 500 products, by both index drivers.

`made_catalogue` says how the datasets are made.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks.index_stac import measure_command
from benchmarks.made_catalogue import (
    DRIVERS,
    ONE,
    count_datasets,
    fill_index,
    grow_index,
    start_catalogue,
)
from benchmarks.measure import percentiles
from benchmarks.running import Service
from odc_openeo import db

PRODUCTS: Final = 500
FEW, MANY = 1_000, 200_000
ROUNDS: Final = 60

LATER: Final = 50
"""The page of a search that is reached by its links."""

BOX: Final = "bbox=-30,-20,0,20"


@dataclass
class State:
    """The figures of one size of the catalogue: p50 and p95 in milliseconds by request."""

    datasets: int
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


# --- Requests ------------------------------------------------------------------------------------


def list_requests(running: Service, products: int) -> dict[str, Callable[[], object]]:
    """Make the requests to measure, by name; each is for another product or place than the one before."""
    session = running.session
    session.trust_env = False

    def get(path: str) -> dict[str, Any]:
        answer = session.get(running.address + path, timeout=120)
        answer.raise_for_status()
        return dict(answer.json())

    places = itertools.cycle(range(products))

    def name_product() -> str:
        return f"scale_{next(places) * 7 % products:05}"

    month, cloudless = "datetime=2010-05-01T00:00:00Z/2010-05-31T00:00:00Z", "filter=eo:cloud_cover%3C5"
    id_ = get("/search?collections=scale_00001&limit=1")["features"][0]["id"]
    later = find_later_page(get, running.address)
    return {
        "collections": lambda: get("/collections"),
        "collections, a page of 20": lambda: get("/collections?limit=20"),
        "one collection": lambda: get(f"/collections/{name_product()}"),
        "box, month and collection": lambda: get(
            f"/search?collections={name_product()}&{BOX}&{month}&limit=10"
        ),
        "box and collection": lambda: get(f"/search?collections={name_product()}&{BOX}&limit=2"),
        "by id": lambda: get(f"/collections/scale_00001/items/{id_}"),
        "by property": lambda: get(f"/search?collections={name_product()}&{cloudless}&limit=1"),
        "first page of the largest collection": lambda: get("/search?collections=scale_00001&limit=5"),
        f"page {LATER} of the largest collection": lambda: get(later),
        "box in the largest collection": lambda: get(f"/search?collections=scale_00001&{BOX}&limit=5"),
        "first page, with the count": lambda: get(f"/search?collections={name_product()}&limit=1")[
            "numberMatched"
        ],
        "load of one scene": lambda: load_scene(running),
        "first page of all": lambda: get("/search?limit=10"),
    }


def find_later_page(get: Callable[[str], dict[str, Any]], address: str) -> str:
    """Follow the links of a search to its page `LATER`; return its path."""
    path = "/search?collections=scale_00001&limit=5"
    for _ in range(LATER - 1):
        links = get(path)["links"]
        path = next(link["href"] for link in links if link["rel"] == "next").removeprefix(address)
    return path


def load_scene(running: Service) -> None:
    """Load a small box of the scene whose files exist."""
    box = {"west": 0.1, "south": 45.1, "east": 0.2, "north": 45.2}
    load = {
        "process_id": "load_collection",
        "arguments": {
            "id": ONE.product,
            "spatial_extent": box,
            "temporal_extent": ["2022-05-04", "2022-05-05"],
        },
    }
    save = {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": "load"}, "format": "GTiff"},
        "result": True,
    }
    body = {"process": {"process_graph": {"load": load, "save": save}}}
    answer = running.session.post(f"{running.address}/result", json=body, timeout=120)
    if answer.status_code != 200:
        raise RuntimeError(answer.text)


def measure_state(running: Service, products: int, datasets: int, rounds: int) -> State:
    """Measure all requests with this many datasets in the index."""
    state = State(datasets)
    start = time.perf_counter()
    requests.get(f"{running.address}/collections", timeout=600).raise_for_status()
    state.notes["first request after the change, s"] = time.perf_counter() - start
    start = time.perf_counter()
    wait_for_summaries(running, datasets)
    state.notes["until all counts are right, s"] = time.perf_counter() - start
    for name, request in list_requests(running, products).items():
        for _ in range(6):
            request()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            request()
            times.append(time.perf_counter() - start)
        p50, p95, *_ = percentiles(times)
        state.figures[name] = p50, p95
        print(f"{datasets:,}: {name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms", flush=True)
    return state


def wait_for_summaries(running: Service, datasets: int) -> None:
    """Ask for the collections until all datasets are counted."""
    counts = text("SELECT sum(count) FROM openeo.collection_summaries")
    while True:
        requests.get(f"{running.address}/collections", timeout=600).raise_for_status()
        with db.get_engine(running.stack.config).connect() as connection:
            if connection.execute(counts).scalar() == datasets:
                return
        time.sleep(1)


def print_states(states: list[State], driver: str, console: Console) -> None:
    """Print the table of figures of all sizes, with the ratio of each to the first."""
    first = states[0]
    table = Table(title=f"{PRODUCTS} products, index driver {driver}", title_justify="left")
    table.add_column("p50 / p95 ms (ratio of p95)")
    for state in states:
        table.add_column(f"{state.datasets:,}", justify="right")
    for name, (_, p95) in first.figures.items():
        cells = [state.figures[name] for state in states]
        table.add_row(name, *[f"{low:.1f} / {high:.1f} ({high / p95:.2f})" for low, high in cells])
    console.print(table)
    for state in states:
        console.print(
            f"{state.datasets:,} datasets: " + ", ".join(f"{k} {v:.1f}" for k, v in state.notes.items())
        )


def grow_and_measure(running: Service, engine: Engine, options: argparse.Namespace) -> list[State]:
    """Measure the catalogue with each number of datasets, in growing order."""
    driver, states = options.index_driver, []
    before = count_datasets(engine, driver)
    if not before:
        fill_index(running, engine, options.products)
        before = 1
    for after in sorted({FEW, *options.datasets}):
        if after < before:
            continue
        seconds = grow_index(engine, driver, options.products, before, after) if after > before else 0
        print(f"{after:,} datasets, made in {seconds:.0f} s", flush=True)
        tuning = measure_command(running, "index", "tune") if options.tune else 0
        states.append(measure_state(running, options.products, after, options.rounds))
        states[-1].notes["making the datasets, s"] = seconds
        states[-1].notes["odc-openeo index tune, s"] = tuning
        states[-1].notes["load"] = os.getloadavg()[1]
        before = after
    return states


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--datasets",
        type=int,
        nargs="+",
        default=[MANY],
        help=f"numbers to measure with, after {FEW:,}; default {MANY:,}, try 10_000_000",
    )
    parser.add_argument("--products", type=int, default=PRODUCTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--index-driver", choices=DRIVERS, default="postgres")
    parser.add_argument("--tune", action="store_true", help="run `odc-openeo index tune` before (postgis)")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the index for the next time")
    options = parser.parse_args()
    with start_catalogue(options.index_driver, options.keep) as (running, engine):
        states = grow_and_measure(running, engine, options)
    print_states(states, options.index_driver, Console(width=160))


if __name__ == "__main__":
    main()
