"""The log of the service: standard error, where the operator's service manager collects it."""

from __future__ import annotations

import logging

from odc_openeo.config import Config


def log_to_stderr(config: Config) -> None:
    """Write log records of this package to standard error, unless the process has set up logging itself."""
    log = logging.getLogger("odc_openeo")
    log.setLevel(config.log_level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
