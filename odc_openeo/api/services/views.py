"""Tag Secondary Services: create, list, update and delete services; logs."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.jobs.documents import make_log_page
from odc_openeo.api.json_body import read_json_object
from odc_openeo.api.paging import make_page_links, read_level, read_limit
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.services.documents import (
    parse_service,
    parse_service_changes,
    service_to_dict,
    summary_to_dict,
)
from odc_openeo.api.services.tiles import get_tiles
from odc_openeo.api.view_bodies import answers
from odc_openeo.services import SERVICE_TYPES, store

blueprint = Blueprint("services", __name__)


@blueprint.get("/service_types")
def service_types() -> dict[str, Any]:
    """``GET /service_types``: the supported protocols with their configuration and parameters."""
    return {kind.name: kind.to_dict() for kind in SERVICE_TYPES.values()}


@blueprint.get("/services")
@takes("limit", "after")
@signed_in
def list_services() -> dict[str, Any]:
    """``GET /services``: the user's services, newest first."""
    limit, after = read_limit(), request.args.get("after") or None
    page = store.list_services(backend().config, current_user().id, limit, after)
    links = make_page_links("/services", page.next, limit=limit)
    return {"services": [summary_to_dict(service) for service in page.items], "links": links}


@blueprint.post("/services")
@answers(201)
@signed_in
def create_service() -> Response:
    """``POST /services``: create a service, which is available immediately."""
    user = current_user().id
    id_ = store.create_service(backend().config, user, parse_service(read_json_object(), user))
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/services/{id_}")
    response.headers["OpenEO-Identifier"] = str(id_)
    return response


@blueprint.get("/services/<service_id>")
@signed_in
def describe_service(service_id: str) -> dict[str, Any]:
    """``GET /services/{service_id}``: the full metadata of a service."""
    service = store.get_service(backend().config, current_user().id, service_id)
    return service_to_dict(service, get_tiles().get_footprint(service))


@blueprint.patch("/services/<service_id>")
@answers(204)
@signed_in
def update_service(service_id: str) -> Response:
    """``PATCH /services/{service_id}``: update a service; changes take effect immediately."""
    user = current_user().id
    store.update_service(backend().config, user, service_id, parse_service_changes(read_json_object(), user))
    return Response(status=204)


@blueprint.delete("/services/<service_id>")
@answers(204)
@signed_in
def delete_service(service_id: str) -> Response:
    """``DELETE /services/{service_id}``: delete a service with its logs; its URLs stop working."""
    store.delete_service(backend().config, current_user().id, service_id)
    return Response(status=204)


@blueprint.get("/services/<service_id>/logs")
@takes("offset", "level", "limit")
@signed_in
def debug_service(service_id: str) -> dict[str, Any]:
    """``GET /services/{service_id}/logs``: the log entries of a service in chronological order."""
    config, limit, level = backend().config, read_limit(), read_level()
    service = store.get_service(config, current_user().id, service_id)
    get_tiles().meter.flush()
    page = store.list_logs(config, service, level, limit, request.args.get("offset"))
    return make_log_page(f"/services/{service.id}/logs", service.draft.log_level, page, level, limit)
