"""Alembic's entry: connects to the database of Config; several hosts may migrate at once."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text
from sqlalchemy.schema import CreateSchema

from odc_openeo import db
from odc_openeo.config import Config

LOCK = 0x6F64636F
"""Advisory lock that lets one migration run at a time."""


def include_name(name: str | None, type_: str, parent_names: object) -> bool:
    """Open Data Cube's and others' schemas are not ours to compare."""
    return type_ != "schema" or name == db.SCHEMA


def run() -> None:
    """Run the migrations in one transaction."""
    config = context.config.attributes.get("config") or Config()
    with db.reachable(), db.engine(config).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        connection.execute(CreateSchema(db.SCHEMA, if_not_exists=True))
        context.configure(
            connection=connection,
            target_metadata=db.Base.metadata,
            version_table_schema=db.SCHEMA,
            include_schemas=True,
            include_name=include_name,
            compare_type=True,
        )
        context.run_migrations()


run()
