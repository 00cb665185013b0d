"""Find out whether user-defined functions run here, and in which runtimes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from odc_openeo.config import Config
from odc_openeo.errors import UdfUnavailable
from odc_openeo.udf.runtimes import describe_runtimes
from odc_openeo.udf.settings import read_udf_settings

SHORT_WAIT_S: Final = 1.0


def describe_user_functions(config: Config) -> dict[str, Any]:
    """Return the runtimes as ``GET /udf_runtimes`` has them; empty if no user code runs here."""
    # Answers about the service do not wait for workers to start.
    settings = replace(read_udf_settings(config), wait_s=SHORT_WAIT_S)
    try:
        return describe_runtimes(settings)
    except UdfUnavailable:
        return {}
