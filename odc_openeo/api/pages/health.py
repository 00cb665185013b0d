"""Health checks for orchestrators and load balancers; they name parts of the service, no addresses."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app

from odc_openeo import __version__, db
from odc_openeo.api.backend import backend
from odc_openeo.api.view_bodies import JSON, answers
from odc_openeo.stack.readiness import NOT_CONFIGURED, OK, Readiness, is_ready

blueprint = Blueprint("health", __name__)

EXTENSION = "odc_openeo_readiness"


@blueprint.get("/health")
@answers(media_type=JSON)
def health() -> tuple[dict[str, str], int]:
    """Status 200 if requests can be served: the database is available. The cluster is not checked."""
    config = backend().config
    db.check_database(config)
    dask = "none: computing on threads" if config.dask_scheduler is None else "cluster"
    return {"status": "ok", "version": __version__, "dask": dask}, 200


@blueprint.get("/health/live")
@answers(media_type=JSON)
def live() -> dict[str, str]:
    """Status 200 while this process answers; nothing else is looked at."""
    return {"status": "ok"}


@blueprint.get("/health/ready")
@answers(media_type=JSON)
def ready() -> tuple[dict[str, Any], int]:
    """Status 200 if requests can be served, else 503; with the state of each part that is needed.

    ``degraded`` says that requests are served, but that those which need the cluster fail.
    """
    readiness: Readiness = current_app.extensions[EXTENSION]
    states = readiness.read_states()
    usable = is_ready(states)
    all_well = all(state in (OK, NOT_CONFIGURED) for state in states.values())
    status = ("ok" if all_well else "degraded") if usable else "unavailable"
    parts = [{"name": name, "status": state} for name, state in states.items()]
    return {"status": status, "dependencies": parts}, 200 if usable else 503
