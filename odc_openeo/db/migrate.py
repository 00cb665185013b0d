"""Upgrade and downgrade the database schema with Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory

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


def list_revisions(config: Config) -> list[str]:
    """List the revisions that this version knows, the latest first."""
    return _list_revisions(alembic_config(config))


def list_revisions_of(ini_file: str) -> list[str]:
    """List the revisions of another package by its settings of Alembic, the latest first."""
    return _list_revisions(AlembicConfig(ini_file))


def _list_revisions(settings: AlembicConfig) -> list[str]:
    return [script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()]


def upgrade(config: Config, revision: str = "head") -> None:
    """Upgrade the database schema to ``revision``; no effect if it is up to date."""
    command.upgrade(alembic_config(config), revision)


def downgrade(config: Config, revision: str = "base") -> None:
    """Downgrade the database schema to ``revision``."""
    command.downgrade(alembic_config(config), revision)
