"""Gunicorn's own messages in the format of the service's log."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger

from odc_openeo.runners.server_log import JsonFormatter


class JsonLogger(Logger):
    """Writes gunicorn's messages as JSON."""

    def setup(self, cfg: Any) -> None:
        """Set up the loggers of gunicorn."""
        super().setup(cfg)
        for handler in logging.getLogger("gunicorn.error").handlers:
            handler.setFormatter(JsonFormatter())
