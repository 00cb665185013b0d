"""Metrics for Prometheus on the main port, for those who know the operator's token."""

from __future__ import annotations

import hmac
from typing import Final, cast

from flask import Blueprint, Flask, Response, current_app, request

from odc_openeo.api.backend import backend
from odc_openeo.api.view_bodies import answers
from odc_openeo.errors import AuthenticationRequired, TokenInvalid
from odc_openeo.monitoring.service import Monitor

blueprint = Blueprint("metrics", __name__)

EXTENSION: Final = "odc_openeo_monitor"


def register(app: Flask) -> None:
    """Add ``/metrics`` if there is a token for it."""
    if app.extensions["odc_openeo"].config.metrics_token is not None:
        app.register_blueprint(blueprint)


@blueprint.get("/metrics")
@answers(media_type="text/plain")
def metrics() -> Response:
    """The metrics of the service in a text format of Prometheus; needs the operator's token."""
    _check_token(request.headers.get("Authorization"))
    monitor = cast(Monitor, current_app.extensions[EXTENSION])
    content, media_type = monitor.format(request.headers.get("Accept"))
    response = Response(content, content_type=media_type)
    response.headers["Cache-Control"] = "no-store"
    return response


def _check_token(header: str | None) -> None:
    token = backend().config.metrics_token
    if not header:
        raise AuthenticationRequired
    scheme, _, sent = header.partition(" ")
    if token is None or scheme.lower() != "bearer":
        raise TokenInvalid
    if not hmac.compare_digest(sent.strip().encode(), token.get_secret_value().encode()):
        raise TokenInvalid
