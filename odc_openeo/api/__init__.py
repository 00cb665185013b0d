"""HTTP API: one Flask blueprint per tag of the openEO API. Views parse requests, call, and respond."""

from __future__ import annotations

from flask import Flask

from odc_openeo.api import (
    account,
    capabilities,
    collections,
    files,
    metrics,
    openapi,
    pages,
    synchronous,
    workspaces,
)
from odc_openeo.api.backend import API_PATH
from odc_openeo.api.jobs import results as job_results
from odc_openeo.api.jobs import views as jobs
from odc_openeo.api.middleware import (
    compression,
    cors,
    error_handlers,
    rate_limit,
    request_log,
    request_strings,
    security_headers,
)
from odc_openeo.api.processes import user_defined
from odc_openeo.api.processes import views as processes
from odc_openeo.api.services import tiles
from odc_openeo.api.services import views as services
from odc_openeo.api.stac import assets
from odc_openeo.api.stac import views as stac

__all__ = ["register"]


def register(app: Flask) -> None:
    """Add all middleware and blueprints to the application."""
    # Responses pass through these in reverse order.
    request_log.register(app)
    compression.register(app)
    security_headers.register(app)
    cors.register(app)
    error_handlers.register(app)
    rate_limit.register(app)
    request_strings.register(app)
    for module in (
        capabilities,
        collections,
        stac,
        processes,
        synchronous,
        jobs,
        job_results,
        files,
        account,
        user_defined,
        services,
        workspaces,
    ):
        app.register_blueprint(module.blueprint, url_prefix=API_PATH)
    config = app.extensions["odc_openeo"].config
    for blueprint in account.list_sign_in_blueprints(config):
        app.register_blueprint(blueprint, url_prefix=API_PATH)
    app.register_blueprint(job_results.downloads)
    app.register_blueprint(assets.blueprint)
    app.register_blueprint(user_defined.public)
    tiles.register(app)
    metrics.register(app)
    app.register_blueprint(openapi.blueprint)
    for blueprint in pages.list_blueprints(config):
        app.register_blueprint(blueprint)
