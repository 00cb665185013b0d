"""`/collections` and `/collections/{id}` with few and with many datasets in the index.

The datasets are copies of one, inserted directly into the tables of the index, each with a different time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import requests
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.measure import percentiles
from benchmarks.running import Service, empty_service, index_documents
from benchmarks.scenes import Scenes
from odc_openeo import db

PRODUCTS: Final = 500
FEW, SOME, MANY = 1_000, 100_000, 1_000_000
ROUNDS: Final = 1000
GRID: Final = GeoBox.from_bbox((680000, 5100000, 681280, 5101280), "EPSG:32632", shape=(128, 128), tight=True)
ONE: Final = Scenes("bench_00000", GRID, 1, {"B04": "uint16"}, lambda n, band, shape: np.ones(shape))

COPY_PRODUCTS: Final = text(
    "INSERT INTO agdc.dataset_type (name, metadata, metadata_type_ref, definition) "
    "SELECT n.name, jsonb_set(metadata, '{product,name}', to_jsonb(n.name)), metadata_type_ref, "
    "jsonb_set(jsonb_set(definition, '{name}', to_jsonb(n.name)), "
    "'{metadata,product,name}', to_jsonb(n.name)) "
    "FROM agdc.dataset_type, (SELECT 'bench_' || lpad(i::text, 5, '0') AS name "
    "FROM generate_series(1, :products - 1) i) n WHERE dataset_type.name = 'bench_00000'"
)
COPY_DATASETS: Final = text(
    "INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata) "
    "SELECT gen_random_uuid(), d.metadata_type_ref, p.id, jsonb_set(d.metadata, '{properties,datetime}', "
    "to_jsonb(to_char(timestamp '2000-01-01' + i * interval '7 minutes', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))) "
    "FROM (SELECT * FROM agdc.dataset LIMIT 1) d, generate_series(:first, :last) i "
    "JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM agdc.dataset_type) p "
    "ON p.place = i % :products"
)


def fill_index(running: Service, products: int) -> None:
    """Index one product and one dataset with the `datacube` command, and copy the product."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        documents = ONE.write_scenes(Path(name))
        index_documents(running.stack, [ONE.write_definition(Path(name))], documents)
    with db.get_engine(running.stack.config).begin() as connection:
        connection.execute(COPY_PRODUCTS, {"products": products})


def grow_index(running: Service, products: int, before: int, after: int) -> float:
    """Copy the dataset until there are ``after``; return the seconds it took."""
    start = time.perf_counter()
    with db.get_engine(running.stack.config).begin() as connection:
        numbers = {"first": before, "last": after - 1, "products": products}
        connection.execute(COPY_DATASETS, numbers)
    with db.get_engine(running.stack.config).connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        # PostgreSQL does this by itself eventually, but it must not happen during the measurement.
        alone.execute(text("VACUUM ANALYZE agdc.dataset"))
        alone.execute(text("CHECKPOINT"))
    return time.perf_counter() - start


def time_requests(running: Service, path: str, rounds: int) -> list[float]:
    """Measure the seconds of consecutive requests."""
    session = requests.Session()
    session.trust_env = False
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.get(running.address + path).raise_for_status()
        taken.append(time.perf_counter() - start)
    return taken


def measure_pages(running: Service, table: Table, datasets: int) -> dict[str, float]:
    """Add the rows of a state of the index; return the p95 of each path."""
    (first,) = time_requests(running, "/collections", 1)
    table.add_row(f"{datasets:,}", "/collections, the first after the change", f"{1000 * first:.1f}", "", "")
    # Each process of the server loads the collection for itself.
    time_requests(running, "/collections/bench_00007", 20)
    timings = {}
    for path, rounds in (("/collections", ROUNDS // 20), ("/collections/bench_00007", ROUNDS)):
        cuts = percentiles(time_requests(running, path, rounds))
        table.add_row(f"{datasets:,}", path, *(f"{cut:.1f}" for cut in cuts))
        timings[path] = cuts[1]
    return timings


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=PRODUCTS)
    parser.add_argument("--datasets", type=int, help=f"in the index at the end; default {SOME:,}")
    parser.add_argument("--full", action="store_true", help=f"{MANY:,} datasets")
    options = parser.parse_args()
    many: int = options.datasets or (MANY if options.full else SOME)
    console = Console(width=120)
    table = Table(title=f"{options.products} products", title_justify="left")
    for name in ("datasets", "request", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="left" if name == "request" else "right")
    with empty_service() as running:
        fill_index(running, options.products)
        states: list[dict[str, float]] = []
        seconds: list[float] = []
        for before, after in ((1, FEW), (FEW, many)):
            seconds.append(grow_index(running, options.products, before, after))
            states.append(measure_pages(running, table, after))
    console.print(table)
    _print_ratios(states, many, seconds[-1], console)


def _print_ratios(states: Sequence[dict[str, Any]], many: int, seconds: float, console: Console) -> None:
    for path, few in states[0].items():
        console.print(f"{path}: p95 with {many:,} / with {FEW:,} datasets: {states[1][path] / few:.2f}")
    console.print(f"(copying them took {seconds:.0f} s)")


if __name__ == "__main__":
    main()
