"""Upgrade and downgrade the database schema with Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config as AlembicConfig

from odc_openeo.config import Config

PACKAGE: Final = Path(__file__).parents[1]


def find_migrations() -> Path:
    """Return the folder of Alembic's scripts: in an installed package, next to it in a checkout."""
    inside = PACKAGE / "migrations"
    return inside if inside.is_dir() else PACKAGE.parent / "migrations"


def alembic_config(config: Config) -> AlembicConfig:
    """Return Alembic's settings for the database of ``config``."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(find_migrations()))
    settings.attributes["config"] = config
    return settings


def upgrade(config: Config, revision: str = "head") -> None:
    """Upgrade the database schema to ``revision``; no effect if it is up to date."""
    command.upgrade(alembic_config(config), revision)


def downgrade(config: Config, revision: str = "base") -> None:
    """Downgrade the database schema to ``revision``."""
    command.downgrade(alembic_config(config), revision)
