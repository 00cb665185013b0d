"""Checks of the tables of this service: present, of this version, open to the user of the database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError, TimeoutError

from odc_openeo.config import PREFIX, Config
from odc_openeo.db import SCHEMA, get_database_url, get_engine, migrate
from odc_openeo.db.connection_errors import explain_connection_error

SETTING: Final = f"{PREFIX}DATABASE_URL"
NO_TABLE: Final = ("42P01", "3F000")
NOT_ALLOWED: Final = "42501"


class DatabaseUnusable(ValueError):
    """The database cannot be used as it is; the message is one line that says what to change."""


def check_schema(config: Config) -> str:
    """Describe the database in a few words.

    Raises:
        DatabaseUnusable: it cannot be reached, or its tables are missing, or of another version.
    """
    version, revision = _read_state(config)
    _compare_revision(config, revision)
    return f"PostgreSQL {version}, tables of version {revision}"


def upgrade_schema(config: Config) -> None:
    """Create the tables of this service, or upgrade them to this version.

    Raises:
        DatabaseUnusable: the database cannot be reached, its tables are of a newer version, or the user may
            not create tables.
    """
    try:
        _, revision = _read_state(config)
    except MissingTables:
        revision = None
    if revision is not None and revision not in migrate.list_revisions(config):
        _compare_revision(config, revision)
    try:
        migrate.upgrade(config)
    except ProgrammingError as error:
        url = get_database_url(config)
        if getattr(error.orig, "pgcode", None) != NOT_ALLOWED:
            raise
        raise DatabaseUnusable(
            f"The user '{url.username}' may not create tables in database '{url.database}'. As its owner, "
            f'run `GRANT CREATE ON DATABASE "{url.database}" TO "{url.username}"`.'
        ) from error


class MissingTables(DatabaseUnusable):
    """The database has no tables of this service."""


def _read_state(config: Config) -> tuple[str, str]:
    """Read the versions of the server and of the tables."""
    url = get_database_url(config)
    try:
        with get_engine(config).connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            revision = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar()
            connection.execute(text(f"SELECT 1 FROM {SCHEMA}.users LIMIT 1"))
    except ProgrammingError as error:
        code = getattr(error.orig, "pgcode", None)
        if code in NO_TABLE:
            raise MissingTables(
                f"The database '{url.database}' has no tables of this service. Run `odc-openeo migrate`."
            ) from error
        if code == NOT_ALLOWED:
            raise DatabaseUnusable(
                f"The user '{url.username}' may not read the tables of this service (schema {SCHEMA}). "
                f"Use the user that ran `odc-openeo migrate` in {SETTING}, or grant their rights."
            ) from error
        raise DatabaseUnusable(explain_connection_error(error, url, SETTING)) from error
    except (DBAPIError, TimeoutError) as error:
        reason = explain_connection_error(error, url, SETTING)
        raise DatabaseUnusable(f"The database of this service: {reason}") from error
    if revision is None:
        raise MissingTables(
            f"The database '{url.database}' has no tables of this service. Run `odc-openeo migrate`."
        )
    return str(version).split()[0], str(revision)


def _compare_revision(config: Config, revision: str) -> None:
    latest = migrate.list_revisions(config)[0]
    if revision == latest:
        return
    if revision in migrate.list_revisions(config):
        raise DatabaseUnusable(
            f"The tables of this service are of an older version ({revision}; this one needs {latest}). "
            "Run `odc-openeo migrate`."
        )
    raise DatabaseUnusable(
        f"The tables of this service are of a newer version ({revision}; this one knows up to {latest}). "
        "Install that version of odc-openeo, or restore a backup of the database."
    )
