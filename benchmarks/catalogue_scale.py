"""The catalogue with a thousand and with many datasets of 500 products, by both index drivers.

The datasets are EO3 documents made in SQL: copies of an indexed one, spread over the globe and over 25 years,
and registered over years. The PostgreSQL is one of its own, with settings for a catalogue of this size.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import requests
from odc.geo.geobox import GeoBox
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine, text

from benchmarks.measure import percentiles
from benchmarks.running import Service, empty_service
from benchmarks.scenes import Scenes
from odc_openeo import db
from odc_openeo.config import child_environment
from odc_openeo.indexing.index import index_datasets, index_products
from odc_openeo.stack import postgres

PRODUCTS: Final = 500
FEW, MANY = 1_000, 200_000
ROUNDS: Final = 60
BATCH: Final = 50_000
DRIVERS: Final = ("postgres", "postgis")
SETTINGS: Final = (
    "shared_buffers=2GB",
    "effective_cache_size=6GB",
    "work_mem=32MB",
    "maintenance_work_mem=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    "random_page_cost=1.1",
    "synchronous_commit=off",
    "jit=off",
    "max_locks_per_transaction=2048",
)
"""Those that docs/sizing.md advises, but for the commits: nobody needs this server after a crash."""

GRID: Final = GeoBox.from_bbox((0, 45, 0.5, 45.5), "EPSG:4326", shape=(128, 128), tight=True)
ONE: Final = Scenes("scale_00000", GRID, 1, {"B04": "uint16"}, lambda n, band, shape: np.ones(shape))

# A dataset's number `i` tells its product (the second one has half of all), its place and its time.
LEFT: Final = "-179.75 + 0.5 * (i * 7919 % 718)"
BOTTOM: Final = "-60.25 + 0.5 * (i * 104729 % 240)"
MOMENT: Final = "timestamp '2000-01-01' + (i * 15485863 % 13150000) * interval '1 minute'"
ADDED: Final = "timestamptz '2020-01-01' + i * interval '10 seconds'"


def _write_corners(x: str, y: str) -> str:
    """Write the object of the four corners of a cell, whose coordinates have these names."""
    corners = {"ul": ("w", "s + 0.5"), "ur": ("w + 0.5", "s + 0.5"), "lr": ("w + 0.5", "s"), "ll": ("w", "s")}
    members = [f"'{c}', jsonb_build_object('{x}', {a}, '{y}', {b})" for c, (a, b) in corners.items()]
    return f"jsonb_build_object({', '.join(members)})"


DOCUMENT: Final = f"""
    d.metadata || jsonb_build_object(
      'id', n.id, 'label', p.name || '-' || i,
      'product', jsonb_build_object('name', p.name),
      'extent', jsonb_build_object(
        'lon', jsonb_build_object('begin', w, 'end', w + 0.5),
        'lat', jsonb_build_object('begin', s, 'end', s + 0.5), 'coord', {_write_corners("lon", "lat")}),
      'geometry', jsonb_build_object('type', 'Polygon', 'coordinates', jsonb_build_array(jsonb_build_array(
        jsonb_build_array(w, s), jsonb_build_array(w + 0.5, s), jsonb_build_array(w + 0.5, s + 0.5),
        jsonb_build_array(w, s + 0.5), jsonb_build_array(w, s)))),
      'grids', jsonb_build_object('default', jsonb_build_object(
        'shape', jsonb_build_array(128, 128),
        'transform', jsonb_build_array(0.5 / 128, 0, w, 0, -0.5 / 128, s + 0.5, 0, 0, 1))),
      'grid_spatial', jsonb_build_object('projection', (d.metadata #> '{{grid_spatial,projection}}')
        || jsonb_build_object('geo_ref_points', {_write_corners("x", "y")})),
      'properties', (d.metadata -> 'properties') || jsonb_build_object(
        'eo:cloud_cover', i % 101, 'datetime', to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
"""
NUMBERS_SQL: Final = f"""
    SELECT gen_random_uuid() AS id, i, CASE WHEN i % 2 = 0 THEN 1 ELSE i / 2 END AS place,
      ({LEFT})::float8 AS w, ({BOTTOM})::float8 AS s, {MOMENT} AS moment,
      {ADDED} AS added FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) i
"""
COPIES: Final = {
    "postgres": f"""
        WITH n AS ({NUMBERS_SQL}), new AS (
          INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata, added, updated)
          SELECT n.id, d.metadata_type_ref, p.number, {DOCUMENT}, n.added, n.added
          FROM n JOIN products p ON p.place = n.place % :products, template d RETURNING id)
        INSERT INTO agdc.dataset_location (dataset_ref, uri_scheme, uri_body)
        SELECT new.id, l.uri_scheme, l.uri_body FROM new, (SELECT * FROM agdc.dataset_location LIMIT 1) l
    """,
    # The search fields are rows of other tables, which Open Data Cube fills from the document.
    "postgis": f"""
        WITH n AS ({NUMBERS_SQL}), new AS (
          INSERT INTO odc.dataset
            (id, metadata_type_ref, product_ref, metadata, added, updated, uri_scheme, uri_body)
          SELECT n.id, d.metadata_type_ref, p.number, {DOCUMENT}, n.added, n.added, d.uri_scheme, d.uri_body
          FROM n JOIN products p ON p.place = n.place % :products, template d RETURNING id),
        times AS (INSERT INTO odc.dataset_search_datetime
          SELECT new.id, 'time', tstzrange(moment AT TIME ZONE 'UTC', moment AT TIME ZONE 'UTC', '[]')
          FROM new JOIN n USING (id)),
        numbers AS (INSERT INTO odc.dataset_search_num
          SELECT new.id, k.name, numrange(k.low::numeric, k.high::numeric, '[]')
          FROM new JOIN n USING (id), LATERAL (VALUES
            ('lon', w, w + 0.5), ('lat', s, s + 0.5), ('cloud_cover', i % 101, i % 101)) k(name, low, high))
        INSERT INTO odc.dataset_search_string SELECT new.id, t.search_key, t.search_val FROM new, strings t
    """,
}
COPIED_PRODUCTS: Final = """
    SELECT n.name, jsonb_set(metadata, '{product,name}', to_jsonb(n.name)), metadata_type_ref,
      jsonb_set(jsonb_set(definition, '{name}', to_jsonb(n.name)),
        '{metadata,product,name}', to_jsonb(n.name))
"""
NEW_NAMES: Final = (
    "(SELECT 'scale_' || lpad(i::text, 5, '0') AS name FROM generate_series(1, :products - 1) i) n"
)
PRODUCT_COPIES: Final = {
    "postgres": (
        f"INSERT INTO agdc.dataset_type (name, metadata, metadata_type_ref, definition) {COPIED_PRODUCTS} "
        f"FROM agdc.dataset_type, {NEW_NAMES} WHERE dataset_type.name = 'scale_00000'",
        # Open Data Cube makes these for each product.
        """
        DO $$ DECLARE statement text; BEGIN FOR statement IN
          SELECT regexp_replace(replace(d.indexdef, 'scale_00000', p.name),
            'dataset_type_ref = [0-9]+', 'dataset_type_ref = ' || p.id)
          FROM pg_indexes d, agdc.dataset_type p
          WHERE d.indexname LIKE 'dix_scale_00000%' AND p.name <> 'scale_00000'
        LOOP EXECUTE statement; END LOOP; END $$
        """,
    ),
    "postgis": (
        f"INSERT INTO odc.product (name, metadata, metadata_type_ref, definition) {COPIED_PRODUCTS} "
        f"FROM odc.product, {NEW_NAMES} WHERE product.name = 'scale_00000'",
    ),
}
PREPARATION: Final = {
    "postgres": (
        "CREATE TEMP TABLE IF NOT EXISTS template AS SELECT * FROM agdc.dataset LIMIT 1",
        "CREATE TEMP TABLE IF NOT EXISTS products AS "
        "SELECT id AS number, name, row_number() OVER (ORDER BY id) - 1 AS place FROM agdc.dataset_type",
    ),
    "postgis": (
        "CREATE TEMP TABLE IF NOT EXISTS template AS SELECT * FROM odc.dataset LIMIT 1",
        "CREATE TEMP TABLE IF NOT EXISTS products AS "
        "SELECT id AS number, name, row_number() OVER (ORDER BY id) - 1 AS place FROM odc.product",
        "CREATE TEMP TABLE IF NOT EXISTS strings AS "
        "SELECT search_key, search_val FROM odc.dataset_search_string "
        "WHERE dataset_ref = (SELECT id FROM template)",
    ),
}

LATER: Final = 50
"""The page of a search that is reached by its links."""

BOX: Final = "bbox=-30,-20,0,20"


@dataclass
class State:
    """The figures of one size of the catalogue: p50 and p95 in milliseconds by request."""

    datasets: int
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


@contextmanager
def start_catalogue(driver: str) -> Iterator[tuple[Service, Engine]]:
    """Start a PostgreSQL for the catalogue, and the service with an empty index on it."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise SystemExit("this benchmark needs Debian's package postgresql-15-postgis-3")
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = postgres.start_server(
            folder / "server" / "pg", folder / "postgresql.log", SETTINGS, programs
        )
        try:
            url = server.create_database("datacube")
            with empty_service(database_url=SecretStr(url), index_driver=driver) as running:
                engine = create_engine(url)
                yield running, engine
                engine.dispose()
        finally:
            server.stop(5)


def fill_index(running: Service, engine: Engine, products: int) -> None:
    """Index one product and one dataset by `datacube`, and copy the product with its indexes."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        environment = child_environment(running.stack.config, **running.stack.odc_environment)
        index_products([ONE.write_definition(Path(name))], environment)
        documents = ONE.write_scenes(running.stack.config.data_dir / "scenes")
        index_datasets(documents, environment)
    with engine.begin() as connection:
        for statement in PRODUCT_COPIES[running.stack.config.index_driver]:
            connection.execute(text(statement), {"products": products})


def grow_index(engine: Engine, driver: str, products: int, before: int, after: int) -> float:
    """Make datasets until there are ``after``; return the seconds it took."""
    start = time.perf_counter()
    with engine.connect() as connection:
        for statement in PREPARATION[driver]:
            connection.execute(text(statement))
        connection.commit()
        for first in range(before, after, BATCH):
            numbers = {"first": first, "last": min(first + BATCH, after) - 1, "products": products}
            connection.execute(text(COPIES[driver]), numbers)
            connection.commit()
            print(f"{numbers['last'] + 1:,} datasets after {time.perf_counter() - start:.0f} s", flush=True)
    with engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        # PostgreSQL does this by itself eventually, but it must not happen during the measurement.
        for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
            alone.execute(text(statement))
    return time.perf_counter() - start


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
    """Print the table of figures with the ratio of each request."""
    few, many = states
    table = Table(title=f"{PRODUCTS} products, index driver {driver}", title_justify="left")
    for name in (
        "request",
        f"p50 ms, {few.datasets:,}",
        "p95 ms",
        f"p50 ms, {many.datasets:,}",
        "p95 ms",
        "p95 ratio",
    ):
        table.add_column(name, justify="left" if name == "request" else "right")
    for name, (p50, p95) in few.figures.items():
        later = many.figures[name]
        table.add_row(
            name, f"{p50:.1f}", f"{p95:.1f}", f"{later[0]:.1f}", f"{later[1]:.1f}", f"{later[1] / p95:.2f}"
        )
    console.print(table)
    for state in states:
        console.print(
            f"{state.datasets:,} datasets: " + ", ".join(f"{k} {v:.1f}" for k, v in state.notes.items())
        )


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--datasets", type=int, default=MANY, help=f"at the end; default {MANY:,}, try 10_000_000"
    )
    parser.add_argument("--products", type=int, default=PRODUCTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--index-driver", choices=DRIVERS, default="postgres")
    options = parser.parse_args()
    states = []
    with start_catalogue(options.index_driver) as (running, engine):
        fill_index(running, engine, options.products)
        for before, after in ((1, FEW), (FEW, options.datasets)):
            seconds = grow_index(engine, options.index_driver, options.products, before, after)
            states.append(measure_state(running, options.products, after, options.rounds))
            states[-1].notes["making the datasets, s"] = seconds
    print_states(states, options.index_driver, Console(width=120))


if __name__ == "__main__":
    main()
