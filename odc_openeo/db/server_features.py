"""Version and extensions of a PostgreSQL server."""

from __future__ import annotations

from sqlalchemy import Engine, text


def read_server_version(engine: Engine) -> int:
    """Read the version of the server as a number, such as 160004."""
    with engine.connect() as connection:
        return int(connection.execute(text("SHOW server_version_num")).scalar_one())


def can_have_postgis(engine: Engine) -> bool:
    """Return whether the extension PostGIS is installed on the server, if not yet in the database."""
    statement = text("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgis'")
    with engine.connect() as connection:
        return bool(connection.execute(statement).scalar_one())
