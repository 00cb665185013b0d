"""Tag Secondary Services: create, list, change and delete services; their logs."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.body import json_object
from odc_openeo.api.job_documents import level_argument, limit_argument, log_page, page_links
from odc_openeo.api.parameters import takes
from odc_openeo.api.service_documents import draft, full_service, service_changes, short_service
from odc_openeo.api.service_tiles import tiles
from odc_openeo.services import KINDS, store

blueprint = Blueprint("services", __name__)


@blueprint.get("/service_types")
def service_types() -> dict[str, Any]:
    """``GET /service_types``: the protocols, their settings and parameters."""
    return {kind.name: kind.to_dict() for kind in KINDS.values()}


@blueprint.get("/services")
@takes("limit", "after")
@signed_in
def list_services() -> dict[str, Any]:
    """``GET /services``: the user's services, the newest first."""
    limit, after = limit_argument(), request.args.get("after") or None
    page = store.list_services(backend().config, current_user().id, limit, after)
    links = page_links("/services", page.next, limit=limit)
    return {"services": [short_service(each) for each in page.items], "links": links}


@blueprint.post("/services")
@signed_in
def create_service() -> Response:
    """``POST /services``: store a new service, which answers map clients at once."""
    user = current_user().id
    id_ = store.create(backend().config, user, draft(json_object(), user))
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/services/{id_}")
    response.headers["OpenEO-Identifier"] = str(id_)
    return response


@blueprint.get("/services/<service_id>")
@signed_in
def describe_service(service_id: str) -> dict[str, Any]:
    """``GET /services/{service_id}``: all that is known of a service."""
    service = store.get(backend().config, current_user().id, service_id)
    return full_service(service, tiles().outline(service))


@blueprint.patch("/services/<service_id>")
@signed_in
def update_service(service_id: str) -> Response:
    """``PATCH /services/{service_id}``: change what the user says of a service; it counts at once."""
    user = current_user().id
    store.update(backend().config, user, service_id, service_changes(json_object(), user))
    return Response(status=204)


@blueprint.delete("/services/<service_id>")
@signed_in
def delete_service(service_id: str) -> Response:
    """``DELETE /services/{service_id}``: remove a service with its logs; its addresses lead nowhere then."""
    store.delete(backend().config, current_user().id, service_id)
    return Response(status=204)


@blueprint.get("/services/<service_id>/logs")
@takes("offset", "level", "limit")
@signed_in
def debug_service(service_id: str) -> dict[str, Any]:
    """``GET /services/{service_id}/logs``: what was logged, in order of time."""
    config, limit, level = backend().config, limit_argument(), level_argument()
    service = store.get(config, current_user().id, service_id)
    tiles().meter.flush()
    page = store.list_logs(config, service, level, limit, request.args.get("offset"))
    return log_page(f"/services/{service.id}/logs", service.draft.log_level, page, level, limit)
