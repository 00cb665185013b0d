"""Alembic entry point: connects to the database of Config; safe when several hosts migrate at once."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text
from sqlalchemy.schema import CreateSchema

from odc_openeo import db
from odc_openeo.config import Config

MIGRATION_LOCK = 0x6F64636F
"""Key of the advisory lock that serializes migrations; every other advisory lock has its own key."""


def include_name(name: str | None, type_: str, parent_names: object) -> bool:
    """Compare only our own schema, not those of Open Data Cube and other applications."""
    return type_ != "schema" or name == db.SCHEMA


def run_migrations() -> None:
    """Run the migrations in one transaction."""
    config = context.config.attributes.get("config") or Config()
    with db.as_infrastructure_busy(), db.get_engine(config).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
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


run_migrations()
