"""Find out whether user-defined functions run here, and in which runtimes."""

from __future__ import annotations

from typing import Any

from odc_openeo.config import Config
from odc_openeo.errors import UdfUnavailable
from odc_openeo.udf.calls import read_udf_settings
from odc_openeo.udf.runtimes import describe_runtimes


def describe_user_functions(config: Config) -> dict[str, Any]:
    """Return the runtimes as ``GET /udf_runtimes`` has them; empty if no user code runs here."""
    try:
        return describe_runtimes(read_udf_settings(config))
    except UdfUnavailable:
        return {}
