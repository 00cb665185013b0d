"""The catalogue of a runner, kept for all its tasks."""

from __future__ import annotations

from functools import cache

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config


@cache
def shared_catalog(config: Config) -> Catalog:
    """The catalogue of a configuration; connected at its first use."""
    return Catalog(config)
