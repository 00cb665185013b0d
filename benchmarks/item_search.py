"""Pages of STAC Items out of one product with few and with many datasets.

The datasets are copies of one, inserted directly into the tables of the index, each with a different time and
at one of a hundred places.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.catalogue import time_requests
from benchmarks.measure import percentiles
from benchmarks.running import Service, empty_service
from benchmarks.scenes import Scenes
from odc_openeo import db
from odc_openeo.config import child_environment
from odc_openeo.indexing.index import index_datasets, index_products

FEW, SOME, MANY = 1_000, 100_000, 1_000_000
ROUNDS: Final = 30
GRID: Final = GeoBox.from_bbox((0, 45, 0.5, 45.5), "EPSG:4326", shape=(128, 128), tight=True)
ONE: Final = Scenes("bench_items", GRID, 1, {"B04": "uint16"}, lambda n, band, shape: np.ones(shape))

COPY: Final = text(
    "INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata) "
    "SELECT gen_random_uuid(), metadata_type_ref, dataset_type_ref, "
    "jsonb_set(jsonb_set(jsonb_set(jsonb_set(metadata - 'geometry', "
    "'{grids,default,transform,2}', to_jsonb(0.5 * (i % 100))), "
    "'{extent,lon}', jsonb_build_object('begin', 0.5 * (i % 100), 'end', 0.5 * (i % 100) + 0.5)), "
    "'{properties,datetime}', to_jsonb(to_char(timestamp '2000-01-01' + i * interval '12 minutes', "
    "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))), '{properties,eo:cloud_cover}', to_jsonb(i % 101)) "
    "FROM (SELECT * FROM agdc.dataset LIMIT 1) d, generate_series(:first, :last) i"
)

SEARCHES: Final = {
    "newest 10": "/search?limit=10",
    "one place": "/search?limit=10&bbox=20.1,45.1,20.2,45.2",
    "one place, one week of 2000": "/search?limit=10&bbox=20.1,45.1,20.2,45.2&datetime=2000-01-03/2000-01-09",
    "clear": "/search?limit=10&filter=eo:cloud_cover%3C5",
    "inside or clear": "/search?limit=10"
    "&filter=S_INTERSECTS(geometry,POINT(20.1%2045.1))%20OR%20eo:cloud_cover%3C5",
    "oldest first": "/search?limit=10&sortby=datetime",
    "by cloud cover": "/search?limit=10&sortby=eo:cloud_cover",
}


def fill_index(running: Service) -> None:
    """Index the product and one dataset with the `datacube` command."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        environment = child_environment(running.stack.config, **running.stack.odc_environment)
        documents = ONE.write_scenes(Path(name))
        index_products([ONE.write_definition(Path(name))], environment)
        index_datasets(documents, environment)


def grow_index(running: Service, before: int, after: int) -> None:
    """Copy the dataset until there are ``after``."""
    engine = db.get_engine(running.stack.config)
    with engine.begin() as connection:
        connection.execute(COPY, {"first": before, "last": after - 1})
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE agdc.dataset"))


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, help=f"in the index at the end; default {SOME:,}")
    parser.add_argument("--full", action="store_true", help=f"{MANY:,} datasets")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    many: int = options.datasets or (MANY if options.full else SOME)
    table = Table(title="Pages of 10 items of one product", title_justify="left")
    for name in ("search", f"p50 ms, {FEW:,}", "p95 ms", f"p50 ms, {many:,}", "p95 ms", "p50 ratio"):
        table.add_column(name, justify="left" if name == "search" else "right")
    states = []
    with empty_service() as running:
        fill_index(running)
        for before, after in ((1, FEW), (FEW, many)):
            grow_index(running, before, after)
            time_requests(running, SEARCHES["newest 10"], 20)
            states.append(
                {n: percentiles(time_requests(running, s, options.rounds)) for n, s in SEARCHES.items()}
            )
    for name in SEARCHES:
        few, lots = states[0][name], states[1][name]
        figures = (few[0], few[1], lots[0], lots[1])
        table.add_row(name, *(f"{value:.1f}" for value in figures), f"{lots[0] / few[0]:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
