"""The connection of this process to the Open Data Cube index, and a cheap check for changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from datacube import Datacube
from datacube.cfg import psql_url_from_config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.event import listen
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import QueuePool

from odc_openeo.config import Config
from odc_openeo.db import as_infrastructure_busy, normalise_url

SCHEMA = "agdc"

# Triggers of the index set `updated` when a row is changed (archived and restored as well), never when it
# is added. The counters of the statistics reveal forced deletions, and late commits of transactions older
# than others already seen.
MARKER = text(
    f"""
    SELECT clock_timestamp() AS clock,
      (SELECT (count(*), max(added), max(updated))::text FROM {SCHEMA}.dataset_type)
        || (SELECT (count(*), max(added), max(updated))::text FROM {SCHEMA}.metadata_type) AS products,
      (SELECT max(added) FROM {SCHEMA}.dataset)::text AS added,
      (SELECT max(updated) FROM {SCHEMA}.dataset)::text AS updated,
      (SELECT n_tup_ins + n_tup_upd FROM pg_stat_all_tables
         WHERE relid = '{SCHEMA}.dataset'::regclass) AS written,
      (SELECT n_tup_del FROM pg_stat_all_tables WHERE relid = '{SCHEMA}.dataset'::regclass) AS deleted
    """
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

    @property
    def datacube(self) -> Datacube:
        """The Datacube of this process; replaced when the products have changed."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._datacube, self._engine, self._products = os.getpid(), None, None, None
            if self._datacube is None:
                with as_infrastructure_busy():
                    self._datacube = Datacube(env=self._config.odc_environment, app="odc-openeo")
                    _ping_connections(self._datacube)
            return self._datacube

    @property
    def engine(self) -> Any:
        """An engine on the database of the index, for queries that Open Data Cube does not answer quickly."""
        datacube = self.datacube
        with self._lock:
            if self._engine is None:
                self._engine = create_engine(
                    normalise_url(str(_get_url(datacube))),
                    poolclass=QueuePool,
                    pool_pre_ping=True,
                    pool_size=2,
                    max_overflow=20,
                    connect_args={"connect_timeout": 5, "application_name": "odc-openeo catalogue"},
                )
            return self._engine

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection for reading; InfrastructureBusy when the database cannot be reached."""
        with as_infrastructure_busy(), self.engine.connect() as connection:
            yield connection

    def read_marker(self) -> tuple[Marker, datetime]:
        """Read the state of the index, and the clock of the server at that moment."""
        with self.connect() as connection:
            row = connection.execute(MARKER).one()
        marker = Marker(row.products, row.added, row.updated, row.written or 0, row.deleted or 0)
        self._forget_products(marker)
        return marker, row.clock

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


def _ping_connections(datacube: Datacube) -> None:
    """Make the engine of Open Data Cube test connections before use, as ours does (``pool_pre_ping``)."""
    dialect = datacube.index._db._engine.dialect

    def ping_connection(connection: Any, record: object, proxy: object) -> None:
        try:
            dialect.do_ping(connection)
        except dialect.dbapi.Error as error:
            # The pool then discards all connections of that age and opens a new one.
            raise InvalidatePoolError from error

    listen(datacube.index._db._engine, "checkout", ping_connection)


def _get_url(datacube: Datacube) -> str:
    url = psql_url_from_config(datacube.index.environment)
    return str(url if isinstance(url, str) else url.render_as_string(hide_password=False))
