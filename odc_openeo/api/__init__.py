"""HTTP: one Flask blueprint per tag of the openEO API. A view parses the request, calls, and answers."""

from __future__ import annotations

from flask import Flask

from odc_openeo.api import (
    account,
    assets,
    capabilities,
    collections,
    compression,
    cors,
    failures,
    files,
    headers,
    job_results,
    jobs,
    openapi,
    pages,
    process_graphs,
    processes,
    rate_limit,
    request_log,
    request_strings,
    results,
    service_tiles,
    services,
    stac,
    workspaces,
)
from odc_openeo.api.backend import API_PATH

__all__ = ["register"]


def register(app: Flask) -> None:
    """Add everything that answers HTTP to the application."""
    # Answers pass these from the last to the first.
    request_log.register(app)
    compression.register(app)
    headers.register(app)
    cors.register(app)
    failures.register(app)
    rate_limit.register(app)
    request_strings.register(app)
    for module in (
        capabilities,
        collections,
        stac,
        processes,
        results,
        jobs,
        job_results,
        files,
        account,
        process_graphs,
        services,
        workspaces,
    ):
        app.register_blueprint(module.blueprint, url_prefix=API_PATH)
    config = app.extensions["odc_openeo"].config
    for blueprint in account.sign_in_methods(config):
        app.register_blueprint(blueprint, url_prefix=API_PATH)
    app.register_blueprint(job_results.downloads)
    app.register_blueprint(assets.blueprint)
    app.register_blueprint(process_graphs.public)
    service_tiles.register(app)
    app.register_blueprint(openapi.blueprint)
    for blueprint in pages.blueprints(config):
        app.register_blueprint(blueprint)
