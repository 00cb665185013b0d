"""An index of Open Data Cube with millions of datasets, made in SQL in a PostgreSQL of its own.

The datasets are EO3 documents: copies of an indexed one, spread over the globe and over 25 years, and
registered over years. Tables and indexes are in the end those that Open Data Cube makes; only the way there
is shorter.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from odc.geo.geobox import GeoBox
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, text

from benchmarks.running import Service, empty_service
from benchmarks.scenes import Scenes
from odc_openeo.config import child_environment
from odc_openeo.indexing.index import index_datasets, index_products
from odc_openeo.stack import postgres

BATCH: Final = 100_000
DRIVERS: Final = ("postgres", "postgis")
SETTINGS: Final = (
    "shared_buffers=2GB",
    "effective_cache_size=6GB",
    "work_mem=32MB",
    "maintenance_work_mem=1GB",
    "max_wal_size=2GB",
    "checkpoint_timeout=30min",
    "random_page_cost=1.1",
    "jit=off",
    "max_locks_per_transaction=2048",
    "default_toast_compression=lz4",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
)
"""Those that docs/sizing.md advises, and such as spare the writing of what nobody needs after a crash."""

GRID: Final = GeoBox.from_bbox((0, 45, 0.5, 45.5), "EPSG:4326", shape=(128, 128), tight=True)
ONE: Final = Scenes("scale_00000", GRID, 1, {"B04": "uint16"}, lambda n, band, shape: np.ones(shape))

# A dataset's number `i` tells its product (the second one has half of all), its place and its time.
LEFT: Final = "-179.75 + 0.5 * (i * 7919 % 718)"
BOTTOM: Final = "-60.25 + 0.5 * (i * 104729 % 240)"
MOMENT: Final = "timestamp '2000-01-01' + (i * 15485863 % 13150000) * interval '1 minute'"
ADDED: Final = "timestamptz '2020-01-01' + i * interval '10 seconds'"


COPIED: Final = """
    format(CAST(:document AS text), n.id, p.name, i, w, w + 0.5, s, s + 0.5, i % 101,
      to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::jsonb
"""
"""The document of a copy: PostgreSQL reads text much faster than it puts documents together."""

ID, NAME, NUMBER, WEST, EAST, SOUTH, NORTH, CLOUDS, DATETIME = (f"%{place}$s" for place in range(1, 10))
PLACE: Final = "CASE WHEN i % 2 = 0 THEN 1 ELSE i / 2 % :products END"
NUMBERS_SQL: Final = f"""
    SELECT gen_random_uuid() AS id, i, {PLACE} AS place,
      ({LEFT})::float8 AS w, ({BOTTOM})::float8 AS s, {MOMENT} AS moment,
      {ADDED} AS added FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint), :step) i
"""
COPIES: Final = {
    "postgres": f"""
        WITH n AS ({NUMBERS_SQL}), new AS (
          INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata, added, updated)
          SELECT n.id, d.metadata_type_ref, p.number, {COPIED}, n.added, n.added
          FROM n JOIN products p USING (place), template d
          WHERE CAST(:only AS bigint) IS NULL OR place = :only RETURNING id)
        INSERT INTO agdc.dataset_location (dataset_ref, uri_scheme, uri_body)
        SELECT new.id, l.uri_scheme, l.uri_body FROM new, (SELECT * FROM agdc.dataset_location LIMIT 1) l
    """,
    # The search fields are rows of other tables, which Open Data Cube fills from the document.
    "postgis": f"""
        WITH n AS ({NUMBERS_SQL}), new AS (
          INSERT INTO odc.dataset
            (id, metadata_type_ref, product_ref, metadata, added, updated, uri_scheme, uri_body)
          SELECT n.id, d.metadata_type_ref, p.number, {COPIED}, n.added, n.added, d.uri_scheme, d.uri_body
          FROM n JOIN products p USING (place), template d
          WHERE CAST(:only AS bigint) IS NULL OR place = :only RETURNING id),
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
        "CREATE TEMP TABLE template AS SELECT * FROM agdc.dataset ORDER BY added DESC LIMIT 1",
        "CREATE TEMP TABLE products AS "
        "SELECT id AS number, name, row_number() OVER (ORDER BY id) - 1 AS place FROM agdc.dataset_type",
        "CREATE TEMP TABLE owned AS SELECT place, c.oid AS number FROM products p JOIN pg_class c "
        "ON starts_with(c.relname, 'dix_' || p.name || '_')",
        "ANALYZE owned",
    ),
    "postgis": (
        "CREATE TEMP TABLE template AS SELECT * FROM odc.dataset ORDER BY added DESC LIMIT 1",
        "CREATE TEMP TABLE products AS "
        "SELECT id AS number, name, row_number() OVER (ORDER BY id) - 1 AS place FROM odc.product",
        "CREATE TEMP TABLE strings AS "
        "SELECT search_key, search_val FROM odc.dataset_search_string "
        "WHERE dataset_ref = (SELECT id FROM template)",
    ),
}
TABLES: Final = {
    "postgres": ("agdc.dataset_location", "agdc.dataset_source", "agdc.dataset"),
    "postgis": (
        "odc.dataset_search_datetime",
        "odc.dataset_search_num",
        "odc.dataset_search_string",
        "odc.dataset",
    ),
}
"""The tables that grow, those that refer to others first."""

REFERRING: Final = """
    SELECT DISTINCT conrelid::regclass::text FROM pg_constraint
    WHERE contype = 'f' AND confrelid = CAST(:dataset AS regclass)
"""
SET_READY: Final = """
    UPDATE pg_index SET indisready = :ready
    WHERE indexrelid IN (SELECT number FROM owned WHERE place = :place OR CAST(:place AS bigint) IS NULL)
"""
"""Whether inserted rows are also inserted into the indexes of a product (null: of all products).

PostgreSQL asks each of the 1,500 indexes about each row; the answer is known where all rows are of a product.
"""


def write_template(document: dict[str, Any]) -> str:
    """Write the document of an indexed dataset as that of a copy, with places for the values of `COPIED`."""

    def list_corners(x: str, y: str) -> dict[str, dict[str, str]]:
        places = {"ul": (WEST, NORTH), "ur": (EAST, NORTH), "lr": (EAST, SOUTH), "ll": (WEST, SOUTH)}
        return {corner: {x: east, y: north} for corner, (east, north) in places.items()}

    ring = [[WEST, SOUTH], [EAST, SOUTH], [EAST, NORTH], [WEST, NORTH], [WEST, SOUTH]]
    copied = {
        **document,
        "id": ID,
        "label": f"{NAME}-{NUMBER}",
        "product": {"name": NAME},
        "extent": {
            "lon": {"begin": WEST, "end": EAST},
            "lat": {"begin": SOUTH, "end": NORTH},
            "coord": list_corners("lon", "lat"),
        },
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "grids": {
            "default": {
                "shape": [128, 128],
                "transform": [0.5 / 128, 0, WEST, 0, -0.5 / 128, NORTH, 0, 0, 1],
            }
        },
        "grid_spatial": {
            "projection": {
                **document["grid_spatial"]["projection"],
                "geo_ref_points": list_corners("x", "y"),
            }
        },
        "properties": {**document["properties"], "eo:cloud_cover": CLOUDS, "datetime": DATETIME},
    }
    # Numbers are not strings.
    return re.sub(r'"(%[4-8]\$s)"', r"\1", json.dumps(copied))


@contextmanager
def start_catalogue(driver: str, keep: Path | None) -> Iterator[tuple[Service, Engine]]:
    """Start a PostgreSQL for the catalogue, and the service on it; in the folder ``keep``, if any."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise SystemExit("this benchmark needs Debian's package postgresql-15-postgis-3")
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = keep or Path(name)
        (folder / "stack").mkdir(parents=True, exist_ok=True)
        for entered in (folder, folder / "stack"):
            entered.chmod(0o711)
        server = postgres.start_server(
            folder / "server" / "pg", folder / "postgresql.log", SETTINGS, programs
        )
        try:
            url = server.create_database("datacube")
            settings = {"database_url": SecretStr(url), "index_driver": driver}
            with empty_service(folder / "stack", **settings) as running:
                engine = create_engine(url)
                yield running, engine
                engine.dispose()
        finally:
            server.stop(60)


def fill_index(running: Service, engine: Engine, products: int) -> None:
    """Index one product and one dataset by `datacube`, and copy the product with its indexes."""
    driver = running.stack.config.index_driver
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        environment = child_environment(running.stack.config, **running.stack.odc_environment)
        index_products([ONE.write_definition(Path(name))], environment)
        documents = ONE.write_scenes(running.stack.config.data_dir / "scenes")
        index_datasets(documents, environment)
    with engine.begin() as connection:
        # A table can only be such where those that refer to it are.
        referring = connection.execute(text(REFERRING), {"dataset": TABLES[driver][-1]}).scalars()
        for table in dict.fromkeys([*referring, *TABLES[driver]]):
            connection.execute(text(f"ALTER TABLE {table} SET UNLOGGED"))
        for statement in PRODUCT_COPIES[driver]:
            connection.execute(text(statement), {"products": products})


def count_datasets(engine: Engine, driver: str) -> int:
    """Count the datasets that are in the index."""
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {TABLES[driver][-1]}")).scalar_one())


def grow_index(engine: Engine, driver: str, products: int, before: int, after: int) -> float:
    """Make datasets until there are ``after``; return the seconds it took."""
    start = time.perf_counter()
    with _connect(engine, driver) as one, _connect(engine, driver) as other:
        insert = _insert_by_product if driver == "postgres" else _insert_without_indexes
        insert((one, other), products, before, after)
    done = count_datasets(engine, driver)
    if done != after:
        raise RuntimeError(f"{done:,} instead of {after:,} datasets")
    with engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        # PostgreSQL does this by itself eventually, but it must not happen during the measurement.
        for table in ("pg_catalog.pg_index", *TABLES[driver]):
            alone.execute(text(f"VACUUM (ANALYZE, INDEX_CLEANUP OFF) {table}"))
        alone.execute(text("CHECKPOINT"))
    return time.perf_counter() - start


@contextmanager
def _connect(engine: Engine, driver: str) -> Iterator[Connection]:
    """Connect to insert datasets.

    Foreign keys are not checked: what is inserted refers to what is inserted.
    """
    with engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for statement in PREPARATION[driver]:
            connection.execute(text(statement))
        connection.commit()
        yield connection
        connection.invalidate()


def _read_template(connection: Connection) -> str:
    return write_template(connection.execute(text("SELECT metadata FROM template")).scalar_one())


def _insert_by_product(
    connections: tuple[Connection, Connection], products: int, before: int, after: int
) -> None:
    """Insert the datasets of one product after the other, each with none but its own indexes.

    One connection fills the product that has half of all, the other one fills the rest.
    """

    def fill_products(connection: Connection, places: Iterable[int]) -> None:
        for place in places:
            _set_ready(connection, True, place)
            for first, last, step in _list_numbers(place, products, before, after):
                numbers = {"first": first, "last": last, "step": step, "products": products, "only": place}
                connection.execute(text(COPIES["postgres"]), {**numbers, "document": template})
                connection.commit()
            _set_ready(connection, False, place)
            if place < 3 or place % 100 == 0:
                print(f"{place + 1} of {products} products are filled", flush=True)

    template = _read_template(connections[0])
    _set_ready(connections[0], False, None)
    _run_both(fill_products, connections, ([1], [place for place in range(products) if place != 1]))
    _set_ready(connections[0], True, None)


def _set_ready(connection: Connection, ready: bool, place: int | None) -> None:
    connection.execute(text(SET_READY), {"ready": ready, "place": place})
    connection.commit()


def _run_both(
    work: Callable[[Connection, Any], None], connections: tuple[Connection, Connection], shares: Iterable[Any]
) -> None:
    """Do both shares of a piece of work at once, each by its own connection."""
    with ThreadPoolExecutor(len(connections)) as pool:
        list(pool.map(work, connections, shares))


def _list_numbers(place: int, products: int, before: int, after: int) -> Iterator[tuple[int, int, int]]:
    """Iterate over the first and last number and the step of batches of datasets of a product."""
    if place == 1:
        for first in range(before, after, 2 * BATCH):
            even = first + first % 2
            yield even, min(first + 2 * BATCH, after) - 1, 2
    cycle = 2 * products
    first = before + (2 * place + 1 - before) % cycle
    for begin in range(first, after, cycle * BATCH):
        yield begin, min(begin + cycle * BATCH, after) - 1, cycle


def _insert_without_indexes(
    connections: tuple[Connection, Connection], products: int, before: int, after: int
) -> None:
    """Insert the datasets of all products in turn; the indexes are made anew at the end."""

    def insert_batches(connection: Connection, firsts: Iterable[int]) -> None:
        for first in firsts:
            numbers = {"first": first, "last": min(first + BATCH, after) - 1, "step": 1, "only": None}
            others = {"products": products, "document": template}
            connection.execute(text(COPIES["postgis"]), {**numbers, **others})
            connection.commit()
            if first // BATCH % 10 == 0:
                print(f"{numbers['last'] + 1:,} datasets", flush=True)

    def make_indexes(connection: Connection, statements: Iterable[str]) -> None:
        for statement in statements:
            connection.execute(text(statement))
            connection.commit()

    template = _read_template(connections[0])
    definitions = _drop_indexes(connections[0])
    batches = range(before, after, BATCH)
    _run_both(insert_batches, connections, (batches[::2], batches[1::2]))
    # Those that take longest come first; each connection takes the next one that is left.
    left = iter(sorted(definitions, key=lambda definition: "USING gist" not in definition))
    _run_both(make_indexes, connections, (left, left))


def _drop_indexes(connection: Connection) -> list[str]:
    """Drop the indexes of the tables that grow, but for primary keys; return how to make them."""
    rows: list[Any] = list(
        connection.execute(
            text(
                """
                SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
                FROM pg_index WHERE indrelid = ANY(CAST(:tables AS regclass[])) AND NOT indisprimary
                """
            ),
            {"tables": list(TABLES["postgis"])},
        )
    )
    for row in rows:
        connection.execute(text(f"DROP INDEX {row.name}"))
    connection.commit()
    return [row.definition for row in rows]
