"""The connection of this process to the Open Data Cube index, and a cheap check for changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, Final

from datacube import Datacube
from datacube.index.exceptions import IndexSetupError, NoIndexError
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from odc_openeo.catalog.index_driver import IndexDriver
from odc_openeo.catalog.odc_environment import OdcEnvironment, read_environment
from odc_openeo.catalog.postgres_driver import PostgresDriver
from odc_openeo.config import Config
from odc_openeo.db import as_infrastructure_busy
from odc_openeo.errors import InfrastructureBusy

NO_INDEX: Final = ("3F000", "42P01", "42501", "42704")
"""States of SQL without the schema of the index, its tables or types, or the right to read them."""

MARKER: Final = "odc_openeo_marker"
"""Name of the prepared statement that reads the state of the index."""

NOT_PREPARED: Final = ("26000", "42P05")
"""States of SQL of a prepared statement that is unknown, or known already."""

CLOSED: Final = (
    "The index of Open Data Cube cannot be read at the moment. Try again later; operators: run "
    "`odc-openeo doctor` to find the cause."
)


@dataclass(frozen=True)
class Marker:
    """The state of the index: equal markers mean that nothing was added, changed, archived, restored or
    deleted."""

    products: str
    added: str | None
    updated: str | None
    written: int
    deleted: int

    def __str__(self) -> str:
        return f"{self.products} {self.added} {self.updated} {self.written} {self.deleted}"


class IndexConnection:
    """A lazily opened connection, one per process: connections must never cross a fork."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.RLock()
        self._pid: int | None = None
        self._products: str | None = None
        self._datacube: Datacube | None = None
        self._engine: Any = None
        self._is_pooled_by_others = False
        self._has_search_index = False

    @property
    def datacube(self) -> Datacube:
        """The Datacube of this process; replaced when the products have changed."""
        with self._lock:
            self._forget_parent()
            if self._datacube is None:
                with _as_infrastructure_busy():
                    self._datacube = self._environment.open_datacube()
            return self._datacube

    @cached_property
    def _environment(self) -> OdcEnvironment:
        return read_environment(self._config)

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._datacube, self._engine, self._products = os.getpid(), None, None, None

    @property
    def driver(self) -> IndexDriver:
        """The driver of the index, for the SQL of searches."""
        return get_driver(self._environment.driver, has_search_index=self._has_search_index)

    @property
    def engine(self) -> Any:
        """An engine on the database of the index, for queries that Open Data Cube does not answer quickly."""
        with self._lock:
            self._forget_parent()
            if self._engine is None:
                self._engine = self._environment.create_engine()
            return self._engine

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection for reading; InfrastructureBusy when the database cannot be reached."""
        with _as_infrastructure_busy(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def connect_once(self) -> Iterator[Connection]:
        """Open a connection for single statements: without a transaction, which costs two round trips."""
        plain = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with _as_infrastructure_busy(), plain.connect() as connection:
            yield connection

    def read_marker(self) -> tuple[Marker, datetime]:
        """Read the state of the index, and the clock of the server at that moment."""
        with self.connect_once() as connection:
            row = self._select_marker(connection)
        marker = Marker(row.products, row.added, row.updated, row.written or 0, row.deleted or 0)
        self._forget_products(marker)
        self._has_search_index = bool(row.has_search_index)
        return marker, row.clock

    def _select_marker(self, connection: Connection) -> Row[Any]:
        # With the indexes of hundreds of products, the statement takes far longer to plan than to execute: it
        # is prepared once in each connection. Where a pool of connections is before the server, that fails.
        if not self._is_pooled_by_others:
            try:
                if MARKER not in connection.info:
                    connection.execute(text(f"PREPARE {MARKER} AS {self.driver.marker.text}"))
                    connection.info[MARKER] = True
                return connection.execute(text(f"EXECUTE {MARKER}")).one()
            except DBAPIError as error:
                if getattr(error.orig, "pgcode", None) not in NOT_PREPARED:
                    raise
                connection.rollback()
                self._is_pooled_by_others = True
        return connection.execute(self.driver.marker).one()

    def _forget_products(self, marker: Marker) -> None:
        # Open Data Cube caches products forever: only a new Datacube sees changed ones.
        with self._lock:
            if self._products is not None and self._products != marker.products:
                self._datacube = None
            self._products = marker.products

    def close(self) -> None:
        """Close this process's connections."""
        with self._lock:
            if self._pid == os.getpid():
                if self._datacube is not None:
                    self._datacube.close()
                if self._engine is not None:
                    self._engine.dispose()
            self._datacube = self._engine = None


@cache
def get_driver(name: str, *, has_search_index: bool = False) -> IndexDriver:
    """Return an index driver by its name in Open Data Cube; ``has_search_index``: with `search_index`."""
    if name == "postgis":
        # Imported only where it is used, as it takes half a second.
        from odc_openeo.catalog.postgis_driver import IndexedPostgisDriver, PostgisDriver

        return IndexedPostgisDriver() if has_search_index else PostgisDriver()
    return PostgresDriver()


@contextmanager
def _as_infrastructure_busy() -> Iterator[None]:
    """Translate what prevents the index from being opened into InfrastructureBusy."""
    try:
        with as_infrastructure_busy():
            yield
    except (IndexSetupError, NoIndexError) as error:
        raise InfrastructureBusy(CLOSED) from error
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) in NO_INDEX:
            raise InfrastructureBusy(CLOSED) from error
        raise
