"""Alembic's migrations of our own tables, and how to run them from an installed package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig

from odc_openeo.config import Config


def alembic_config(config: Config) -> AlembicConfig:
    """Alembic's settings for the database of ``config``."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["config"] = config
    return settings


def upgrade(config: Config, revision: str = "head") -> None:
    """Bring our tables to ``revision``; nothing happens when they are there already."""
    command.upgrade(alembic_config(config), revision)


def downgrade(config: Config, revision: str = "base") -> None:
    """Take our tables back to ``revision``."""
    command.downgrade(alembic_config(config), revision)
