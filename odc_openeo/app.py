"""Assemble the service: `create_app` makes the WSGI application that gunicorn serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Flask
from flask.json.provider import JSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

import odc_openeo.processes  # noqa: F401  importing registers the processes
from odc_openeo import api
from odc_openeo.api import metrics
from odc_openeo.api.backend import Backend
from odc_openeo.api.pages import health
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.api.services import tiles
from odc_openeo.catalog import read_overrides
from odc_openeo.config import Config
from odc_openeo.jobs.quotas import read_quotas
from odc_openeo.monitoring.service import Monitor
from odc_openeo.runners.server_log import log_to_stderr
from odc_openeo.services import Tiles
from odc_openeo.stack.readiness import Readiness
from odc_openeo.storage.buckets import read_bucket_rules
from odc_openeo.storage.scratch_folders import remove_abandoned_scratch
from odc_openeo.udf.folders import remove_abandoned_folders


class StrictJSON(JSONProvider):
    """JSON according to RFC 8259, in UTF-8: NaN in a response is a bug and never sent."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Serialize without spaces; ValueError for NaN and infinity."""
        options = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
        return json.dumps(obj, **{**options, **kwargs})

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse; NaN and Infinity are allowed, as process graphs may contain them."""
        return json.loads(s, **kwargs)


def create_app(config: Config | None = None) -> Flask:
    """Create the application for a configuration, by default the one from the environment.

    Nothing connects here: databases and the cluster are opened on first use, in the process that uses them,
    so that servers can fork safely.

    Raises:
        OverridesError: the operator's overrides of collections are not valid.
        QuotasError: the operator's quotas are not valid.
        BucketRulesError: the operator's rules for buckets are not valid.
    """
    config = config or Config()
    # A file that is not valid would fail every request.
    read_overrides(config.collection_overrides)
    read_quotas(config.quotas)
    read_bucket_rules(config.buckets)
    folder = Path(api.__file__).parent
    app = Flask("odc_openeo", template_folder=folder / "templates", static_folder=folder / "static")
    app.json = StrictJSON(app)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    remove_abandoned_scratch(config)
    remove_abandoned_folders()
    backend = Backend.from_config(config)
    app.extensions["odc_openeo"] = backend
    app.extensions[tiles.EXTENSION] = Tiles(config, backend.catalog, run_for_view)
    app.extensions[health.EXTENSION] = readiness = Readiness(config, backend.catalog)
    app.extensions[metrics.EXTENSION] = monitor = Monitor(config, readiness)
    monitor.start()
    if config.trusted_proxies:
        # Without this, all clients would appear to have the address of the proxy.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=config.trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )
    log_to_stderr(config)
    api.register(app)
    return app
