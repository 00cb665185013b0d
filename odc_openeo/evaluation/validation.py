"""Find the errors of process graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.graph import GraphLimits, validate
from odc_openeo.user_data.user_defined_processes import Library


def find_problems(
    config: Config, process: Any, user: UUID | None, parameters: Mapping[str, Any] | None = None
) -> list[OpenEOError]:
    """Return all errors of a process of a user, whose outer ``parameters`` are given by name."""
    limits = GraphLimits.from_config(config)
    return [error.detach() for error in validate(process, parameters, limits, Library(config, user))]
