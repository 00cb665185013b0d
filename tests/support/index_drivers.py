"""The index driver that the tests use, and a PostgreSQL with PostGIS for the driver ``postgis``.

``pytest --index-driver postgis`` runs the tests of catalogue, loading, STAC and clients on that driver.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from odc_openeo.config import odc_database_environment
from odc_openeo.indexing.datacube_command import build_datacube_command
from odc_openeo.indexing.index import init_command

DRIVERS = ("postgres", "postgis")
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
"""Settings of servers whose data nobody needs after a crash."""

SCHEMAS = {"postgres": "agdc", "postgis": "odc"}

_state = {"driver": "postgres"}


def use_driver(name: str) -> None:
    """Let all tests of this process use a driver."""
    _state["driver"] = name


def get_test_driver() -> str:
    """The driver of the tests."""
    return _state["driver"]


def get_schema() -> str:
    """The schema of the tables of the index."""
    return SCHEMAS[get_test_driver()]


def needs_postgres_driver(reason: str) -> pytest.MarkDecorator:
    """Skip a test about datasets that the driver ``postgis`` of Open Data Cube refuses."""
    return pytest.mark.skipif(get_test_driver() == "postgis", reason=f"Open Data Cube's postgis: {reason}")


def index_environment(url: str, driver: str | None = None) -> dict[str, str]:
    """The variables that make the database at ``url`` the default index, by the driver of the tests."""
    return odc_database_environment(url, driver or get_test_driver())


def init_test_index(url: str, driver: str | None = None) -> None:
    """`datacube system init`, with PostGIS without roles of the whole server: the tests share it."""
    command = build_datacube_command(init_command(driver or get_test_driver(), users=False))
    environment = {**os.environ, **index_environment(url, driver)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def find_postgis_binaries() -> Path:
    """The programs of a PostgreSQL with PostGIS; skips the test where there is none.

    ``ODC_TEST_POSTGIS_BINARIES`` names their folder, else that of Debian's packages is used.
    """
    named = os.environ.get("ODC_TEST_POSTGIS_BINARIES")
    if named:
        return Path(named)
    installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if _has_postgis(path)]
    if not installed:
        pytest.skip("needs a PostgreSQL with PostGIS, such as Debian's postgresql-15-postgis-3")
    return max(installed, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))


def _has_postgis(binaries: Path) -> bool:
    version = binaries.parent.name
    control = Path("/usr/share/postgresql") / version / "extension" / "postgis.control"
    return (binaries / "postgres").exists() and control.exists()


def copy_dataset(url: str, product_names: str, copies: int) -> None:
    """Copy the one dataset of an index, for each product whose name matches, an hour apart from 2000 on."""
    engine = create_engine(url)
    parameters = {"copies": copies, "names": product_names}
    with engine.begin() as connection:
        connection.execute(text(COPY[get_test_driver()]), parameters)
        if get_test_driver() == "postgis":
            for statement in COPY_SEARCH_FIELDS:
                connection.execute(text(statement))
        connection.execute(text("ANALYZE"))
    engine.dispose()


_DOCUMENT = """
    jsonb_set(d.metadata, '{properties,datetime}', to_jsonb(to_char(
      timestamp '2000-01-01' + make_interval(hours => n), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
"""
COPY = {
    "postgres": f"""
        INSERT INTO agdc.dataset (id, metadata_type_ref, dataset_type_ref, metadata)
        SELECT gen_random_uuid(), d.metadata_type_ref, p.id, {_DOCUMENT}
        FROM (SELECT * FROM agdc.dataset LIMIT 1) d, agdc.dataset_type p, generate_series(1, :copies) n
        WHERE p.name ~ :names
    """,
    "postgis": f"""
        INSERT INTO odc.dataset (id, metadata_type_ref, product_ref, metadata)
        SELECT gen_random_uuid(), d.metadata_type_ref, p.id, {_DOCUMENT}
        FROM (SELECT * FROM odc.dataset LIMIT 1) d, odc.product p, generate_series(1, :copies) n
        WHERE p.name ~ :names
    """,
}
COPY_SEARCH_FIELDS = (
    """
    INSERT INTO odc.dataset_search_datetime
    SELECT id, 'time', tstzrange(moment, moment, '[]')
    FROM odc.dataset, LATERAL (SELECT (metadata #>> '{properties,datetime}')::timestamptz AS moment) AS m
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO odc.dataset_search_num
    SELECT id, axis, numrange((metadata #>> ARRAY['extent', axis, 'begin'])::numeric,
      (metadata #>> ARRAY['extent', axis, 'end'])::numeric, '[]')
    FROM odc.dataset, unnest(ARRAY['lon', 'lat']) AS axis
    ON CONFLICT DO NOTHING
    """,
)
