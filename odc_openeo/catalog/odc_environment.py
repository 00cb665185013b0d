"""The Open Data Cube environment that the service reads: its driver, its address, how it signs in there."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, Final

from datacube import Datacube
from datacube.cfg import ConfigException, ODCConfig, psql_url_from_config
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.event import listen
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import QueuePool

from odc_openeo.catalog.odc_internals import use_tokens_as_passwords
from odc_openeo.config import PREFIX, Config
from odc_openeo.db import get_connect_seconds, normalise_url

DRIVERS: Final = ("postgres", "postgis")

_OPENING = threading.Lock()
"""Open Data Cube checks the schema of a postgis index with Alembic, of which a process has one at a time."""


class IndexSettingsError(ValueError):
    """The settings of the Open Data Cube environment are not valid; the message says what to change."""


@dataclass(frozen=True)
class OdcEnvironment:
    """The settings of an Open Data Cube environment; ``name`` is its name, ``url`` that of its database."""

    name: str
    driver: str
    url: URL
    uses_iam: bool
    iam_timeout: float
    query_timeout_ms: int

    def get_setting(self, option: str = "DB_URL") -> str:
        """Return the name of the variable that holds an option."""
        return f"ODC_{self.name.upper()}_{option}"

    def open_datacube(self) -> Datacube:
        """Open the index; raises what Open Data Cube raises."""
        options: dict[str, Any] = {
            "index_driver": self.driver,
            "db_url": self.url.render_as_string(hide_password=False),
            "db_iam_authentication": self.uses_iam,
            "db_query_timeout": self.query_timeout_ms,
            **({"db_iam_timeout": int(self.iam_timeout)} if self.uses_iam else {}),
        }
        with _OPENING:
            datacube = Datacube(raw_config={"default": options}, app="odc-openeo")
        _ping_connections(datacube)
        return datacube

    def create_engine(self) -> Engine:
        """Create an engine for searches, which Open Data Cube does not offer; it connects when first used."""
        engine = create_engine(
            self.url,
            poolclass=QueuePool,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=20,
            hide_parameters=True,
            connect_args={
                "connect_timeout": get_connect_seconds(),
                "application_name": "odc-openeo catalogue",
            },
        )
        if self.uses_iam:
            # Needs the package boto3, which only sites on AWS have.
            from datacube.utils.aws import obtain_new_iam_auth_token

            use_tokens_as_passwords(engine, obtain_new_iam_auth_token, timeout=self.iam_timeout, url=self.url)
        return engine


def read_environment(config: Config) -> OdcEnvironment:
    """Read the environment of the settings, else Open Data Cube's own choice.

    Raises:
        IndexSettingsError: there is no such environment, or its settings are not valid.
    """
    try:
        # Datacube warns that there is no file: variables are enough here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            environment = ODCConfig.get_environment(env=config.odc_environment)
            driver = {"default": "postgres", "legacy": "postgres"}.get(
                environment.index_driver, environment.index_driver
            )
            if driver not in DRIVERS:
                raise IndexSettingsError(_describe_driver(environment._name, driver))
            url = normalise_url(str(psql_url_from_config(environment)))
    except ConfigException as error:
        raise IndexSettingsError(_describe_settings(config, error)) from error
    uses_iam = bool(environment.db_iam_authentication)
    return OdcEnvironment(
        environment._name,
        driver,
        url,
        uses_iam,
        environment.db_iam_timeout if uses_iam else 600,
        environment.db_query_timeout or 0,
    )


def _describe_driver(name: str, driver: str) -> str:
    return (
        f"The index driver '{driver}' of the Open Data Cube environment '{name}' is not supported. "
        f"Set ODC_{name.upper()}_INDEX_DRIVER to postgres or postgis."
    )


def _describe_settings(config: Config, error: Exception) -> str:
    chosen = f" '{config.odc_environment}' ({PREFIX}ODC_ENVIRONMENT)" if config.odc_environment else ""
    reason = " ".join(str(error).split())
    return f"The settings of the Open Data Cube environment{chosen} are not valid: {reason}."


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
