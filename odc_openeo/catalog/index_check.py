"""Checks of the index of Open Data Cube; a failure is one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, TimeoutError

from odc_openeo.catalog import search_index
from odc_openeo.catalog.odc_environment import OdcEnvironment, read_environment
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.db.connection_errors import explain_connection_error

SCHEMAS: Final = {"postgres": "agdc", "postgis": "odc"}
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "postgres": ("metadata_type", "dataset_type", "dataset", "dataset_location"),
    "postgis": (
        "alembic_version",
        "dataset",
        "dataset_search_datetime",
        "dataset_search_num",
        "dataset_search_string",
        "metadata_type",
        "product",
    ),
}
"""The tables that are read, by driver."""

TRACKED: Final[Mapping[str, tuple[str, ...]]] = {
    "postgres": ("metadata_type", "dataset_type", "dataset"),
    "postgis": ("metadata_type", "product", "dataset"),
}
"""Tables that say when a row was changed, since Open Data Cube 1.8.4."""

SELECT_TABLES: Final = text(
    """
    SELECT c.relname AS name, has_table_privilege(c.oid, 'SELECT') AS readable,
      has_schema_privilege(n.oid, 'USAGE') AS usable,
      EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'updated') AS tracked
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')
    """
)


class IndexUnusable(ValueError):
    """The index cannot be used as it is; the message is one line that says what to change."""


class MissingIndex(IndexUnusable):
    """The database has no index of the driver."""


@dataclass(frozen=True)
class _Tables:
    """The tables of one driver in the database: names, of these the readable ones and those with changes."""

    names: frozenset[str]
    readable: frozenset[str]
    tracked: frozenset[str]


def check_index(config: Config) -> str:
    """Describe the index in a few words.

    Raises:
        IndexUnusable: it cannot be reached, or its tables are missing, closed, too old or too new.
        IndexSettingsError: the settings of the environment are not valid.
    """
    environment = read_environment(config)
    try:
        engine = environment.create_engine()
        try:
            with engine.connect() as connection:
                products = _check_tables(connection, environment)
        finally:
            engine.dispose()
        environment.open_datacube().close()
    except ImportError as error:
        raise IndexUnusable(
            f"The index of Open Data Cube: {environment.get_setting('DB_IAM_AUTHENTICATION')} needs the "
            f"package {error.name}. Install it: pip install {error.name}."
        ) from error
    except (DBAPIError, TimeoutError) as error:
        reason = explain_connection_error(error, environment.url, environment.get_setting())
        raise IndexUnusable(f"The index of Open Data Cube: {reason}") from error
    except IndexUnusable:
        raise
    except Exception as error:  # Open Data Cube has no common class of errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise IndexUnusable(
            f"The index of Open Data Cube cannot be opened: {lines[0]} Run `datacube system check`."
        ) from error
    return f"Open Data Cube is reachable: driver {environment.driver}, {products} products"


def find_index_warning(config: Config) -> str | None:
    """Describe in one line what makes searches slow, None if nothing does."""
    environment = read_environment(config)
    if environment.driver != "postgis":
        return None
    engine = environment.create_engine()
    try:
        with engine.connect() as connection:
            count = search_index.count_roughly(connection)
            if count < search_index.MANY or search_index.has_index(connection):
                return None
    finally:
        engine.dispose()
    return f"searches of about {count:,} datasets are slow: run `odc-openeo index tune`"


def _check_tables(connection: Connection, environment: OdcEnvironment) -> int:
    """Check the tables of the driver; return the number of products."""
    driver, database = environment.driver, environment.url.database
    tables = _read_tables(connection, driver)
    if "dataset" not in tables.names:
        raise MissingIndex(_describe_missing(connection, environment))
    missing = [name for name in TABLES[driver] if name not in tables.names]
    if missing or not tables.tracked.issuperset(TRACKED[driver]):
        raise IndexUnusable(
            f"The index in database '{database}' has tables of an older Open Data Cube. "
            "Run `datacube -v system init`."
        )
    closed = [name for name in TABLES[driver] if name not in tables.readable]
    if closed:
        raise IndexUnusable(_describe_closed(environment, closed))
    if driver == "postgis":
        _check_revision(connection, str(database))
    schema, table = SCHEMAS[driver], TRACKED[driver][1]
    return int(connection.execute(text(f"SELECT count(*) FROM {schema}.{table}")).scalar_one())


def _read_tables(connection: Connection, driver: str) -> _Tables:
    rows: list[Any] = list(connection.execute(SELECT_TABLES, {"schema": SCHEMAS[driver]}))
    return _Tables(
        frozenset(row.name for row in rows),
        frozenset(row.name for row in rows if row.readable and row.usable),
        frozenset(row.name for row in rows if row.tracked),
    )


def _describe_missing(connection: Connection, environment: OdcEnvironment) -> str:
    driver, database = environment.driver, environment.url.database
    (other,) = SCHEMAS.keys() - {driver}
    if "dataset" in _read_tables(connection, other).names:
        return (
            f"The database '{database}' has an index of the driver {other}, not of {driver}. "
            f"Set {environment.get_setting('INDEX_DRIVER')}={other}, or run `datacube system init`."
        )
    return (
        f"The database '{database}' has no index of Open Data Cube. Run `datacube system init`, "
        f"or correct {environment.get_setting()}."
    )


def _describe_closed(environment: OdcEnvironment, closed: list[str]) -> str:
    schema, user = SCHEMAS[environment.driver], environment.url.username
    return (
        f"The user '{user}' may not read the index (table {schema}.{closed[0]}). As its owner, run "
        f'`GRANT USAGE ON SCHEMA {schema} TO "{user}"; '
        f'GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO "{user}"`.'
    )


def _check_revision(connection: Connection, database: str) -> None:
    """Check the version of the tables, which the driver postgis records."""
    from odc_openeo.catalog.odc_postgis_internals import ALEMBIC_INI_LOCATION, COMPATIBLE_MIGRATIONS

    revision = connection.execute(text("SELECT version_num FROM odc.alembic_version")).scalar()
    migrations = migrate.list_revisions_of(ALEMBIC_INI_LOCATION)
    if revision not in migrations:
        raise IndexUnusable(
            f"The index in database '{database}' has tables of a newer Open Data Cube ({revision}). "
            "Upgrade the package datacube."
        )
    if revision != migrations[0] and not {revision, migrations[0]} <= COMPATIBLE_MIGRATIONS:
        raise IndexUnusable(
            f"The index in database '{database}' has tables of an older Open Data Cube ({revision}). "
            "Run `datacube -v system init`."
        )
