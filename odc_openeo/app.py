"""Puts the service together: `create_app` gives the WSGI application that gunicorn serves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flask import Flask
from flask.json.provider import JSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo import api
from odc_openeo.api import service_tiles
from odc_openeo.api.backend import Backend
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.services import Tiles


class StrictJSON(JSONProvider):
    """JSON as RFC 8259 has it, in UTF-8: NaN in an answer is a fault of ours, not something to send."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Serialise without spaces; ValueError for NaN and infinity."""
        options = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
        return json.dumps(obj, **{**options, **kwargs})

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse; NaN and Infinity are values that process graphs may hold."""
        return json.loads(s, **kwargs)


def create_app(config: Config | None = None) -> Flask:
    """The application for a configuration (default: from the environment).

    Nothing is connected here: databases and the cluster are opened at their first use, in the process that
    uses them, so that forking servers are safe.
    """
    config = config or Config()
    folder = Path(api.__file__).parent
    app = Flask("odc_openeo", template_folder=folder / "templates", static_folder=folder / "static")
    app.json = StrictJSON(app)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    catalog = Catalog(config)
    app.extensions["odc_openeo"] = Backend(config, catalog)
    app.extensions[service_tiles.EXTENSION] = Tiles(config, catalog)
    if config.trusted_proxies:
        # Without this all clients would have the address of the proxy.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=config.trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )
    _log_to_stderr(config)
    api.register(app)
    return app


def _log_to_stderr(config: Config) -> None:
    log = logging.getLogger("odc_openeo")
    log.setLevel(config.log_level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
