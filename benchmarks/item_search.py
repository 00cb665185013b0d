"""Pages of STAC Items out of one product with few and with many datasets.

The datasets are copies of one, inserted directly into the tables of the index, each with a different time and
at one of a hundred places.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import requests
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.catalogue import time_requests
from benchmarks.measure import percentiles
from benchmarks.running import Service, empty_service_with_driver
from benchmarks.scenes import Scenes
from odc_openeo import db
from odc_openeo.config import child_environment
from odc_openeo.indexing.index import index_datasets, index_products

FEW, SOME, MANY = 1_000, 100_000, 1_000_000
ROUNDS: Final = 30
GRID: Final = GeoBox.from_bbox((0, 45, 0.5, 45.5), "EPSG:4326", shape=(128, 128), tight=True)
ONE: Final = Scenes("bench_items", GRID, 1, {"B04": "uint16"}, lambda n, band, shape: np.ones(shape))

DOCUMENT: Final = (
    "jsonb_set(jsonb_set(jsonb_set(jsonb_set(metadata - 'geometry', "
    "'{grids,default,transform,2}', to_jsonb(0.5 * (i % 100))), "
    "'{extent,lon}', jsonb_build_object('begin', 0.5 * (i % 100), 'end', 0.5 * (i % 100) + 0.5)), "
    "'{properties,datetime}', to_jsonb(to_char(timestamp '2000-01-01' + i * interval '12 minutes', "
    "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))), '{properties,eo:cloud_cover}', to_jsonb(i % 101))"
)
COPIES: Final = {
    "postgres": (
        "INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata) "
        f"SELECT gen_random_uuid(), metadata_type_ref, dataset_type_ref, {DOCUMENT} "
        "FROM (SELECT * FROM agdc.dataset LIMIT 1) d, generate_series(:first, :last) i",
    ),
    # The search fields are rows of other tables, which Open Data Cube fills from the document.
    "postgis": (
        "INSERT INTO odc.dataset (id, metadata_type_ref, product_ref, metadata, uri_scheme, uri_body) "
        f"SELECT gen_random_uuid(), metadata_type_ref, product_ref, {DOCUMENT}, uri_scheme, uri_body "
        "FROM (SELECT * FROM odc.dataset LIMIT 1) d, generate_series(:first, :last) i",
        "INSERT INTO odc.dataset_search_datetime SELECT id, 'time', tstzrange(moment, moment, '[]') "
        "FROM odc.dataset, "
        "LATERAL (SELECT (metadata #>> '{properties,datetime}')::timestamptz AS moment) m "
        "ON CONFLICT DO NOTHING",
        "INSERT INTO odc.dataset_search_num SELECT id, axis, "
        "numrange((metadata #>> ARRAY['extent', axis, 'begin'])::numeric, "
        "(metadata #>> ARRAY['extent', axis, 'end'])::numeric, '[]') "
        "FROM odc.dataset, unnest(ARRAY['lon', 'lat']) AS axis ON CONFLICT DO NOTHING",
        "INSERT INTO odc.dataset_search_num SELECT id, 'cloud_cover', numrange(cover, cover, '[]') "
        "FROM odc.dataset, "
        "LATERAL (SELECT (metadata #>> '{properties,eo:cloud_cover}')::numeric AS cover) c "
        "WHERE cover IS NOT NULL ON CONFLICT DO NOTHING",
        "INSERT INTO odc.dataset_search_string SELECT d.id, s.search_key, s.search_val FROM odc.dataset d, "
        "(SELECT search_key, search_val FROM odc.dataset_search_string WHERE dataset_ref = "
        "(SELECT dataset_ref FROM odc.dataset_search_string LIMIT 1)) s ON CONFLICT DO NOTHING",
    ),
}

SEARCHES: Final = {
    "newest 10": "/search?limit=10",
    "one place": "/search?limit=10&bbox=20.1,45.1,20.2,45.2",
    "one place, one week of 2000": "/search?limit=10&bbox=20.1,45.1,20.2,45.2&datetime=2000-01-03/2000-01-09",
    "clear": "/search?limit=10&filter=eo:cloud_cover%3C5",
    "inside or clear": "/search?limit=10"
    "&filter=S_INTERSECTS(geometry,POINT(20.1%2045.1))%20OR%20eo:cloud_cover%3C5",
    "oldest first": "/search?limit=10&sortby=datetime",
    "by cloud cover": "/search?limit=10&sortby=eo:cloud_cover",
    "items of the collection": "/collections/bench_items/items?limit=10",
    "collections": "/collections",
    "the collection": "/collections/bench_items",
}
PAGES: Final = 20
"""Pages that are turned to measure a later one."""


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
    numbers = {"first": before, "last": after - 1}
    with engine.begin() as connection:
        for place, statement in enumerate(COPIES[running.stack.config.index_driver]):
            connection.execute(text(statement), numbers if place == 0 else {})
    with engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        # PostgreSQL does this by itself eventually, but it must not happen during the measurement.
        for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
            alone.execute(text(statement))


def find_later_page(running: Service) -> str:
    """Follow the links of a search to its page number `PAGES`; return its path."""
    url = f"{running.address}/search?limit=10"
    for _ in range(PAGES - 1):
        links = requests.get(url, timeout=60).json()["links"]
        url = next(link["href"] for link in links if link["rel"] == "next")
    return url.removeprefix(running.address)


def measure_state(running: Service, rounds: int) -> dict[str, Sequence[float]]:
    """Measure all requests; the percentiles of each in milliseconds."""
    paths = {**SEARCHES, f"page {PAGES} of the newest": find_later_page(running)}
    time_requests(running, SEARCHES["newest 10"], 20)
    return {name: percentiles(time_requests(running, path, rounds)) for name, path in paths.items()}


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, help=f"in the index at the end; default {SOME:,}")
    parser.add_argument("--full", action="store_true", help=f"{MANY:,} datasets")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--index-driver", choices=list(COPIES), default="postgres")
    options = parser.parse_args()
    many: int = options.datasets or (MANY if options.full else SOME)
    title = f"Pages of 10 items of one product, index driver {options.index_driver}"
    table = Table(title=title, title_justify="left")
    for name in ("request", f"p50 ms, {FEW:,}", "p95 ms", f"p50 ms, {many:,}", "p95 ms", "p50 ratio"):
        table.add_column(name, justify="left" if name == "request" else "right")
    states = []
    with empty_service_with_driver(options.index_driver) as running:
        fill_index(running)
        for before, after in ((1, FEW), (FEW, many)):
            grow_index(running, before, after)
            states.append(measure_state(running, options.rounds))
    for name in states[0]:
        few, lots = states[0][name], states[1][name]
        figures = (few[0], few[1], lots[0], lots[1])
        table.add_row(name, *(f"{value:.1f}" for value in figures), f"{lots[0] / few[0]:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
