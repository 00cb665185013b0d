"""The workspaces extension: providers, the user's workspaces, and (beyond it) the files in them."""

from __future__ import annotations

from collections.abc import Mapping
from mimetypes import guess_type
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.wsgi import wrap_file

from odc_openeo import workspaces
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.body import TEXTS, json_object, text_or_null
from odc_openeo.api.content import COPY_BYTES, make_conditional
from odc_openeo.api.job_documents import limit_argument, page_links
from odc_openeo.api.parameters import takes
from odc_openeo.errors import (
    FeatureUnsupported,
    PropertyNotEditable,
    RequestInvalid,
    StorageFailure,
    WorkspaceUnavailable,
)
from odc_openeo.workspaces import Draft, Workspace

blueprint = Blueprint("workspaces", __name__)

LARGEST_QUOTA: Final = 2**60


@blueprint.get("/workspace_providers")
def list_workspace_providers() -> dict[str, Any]:
    """``GET /workspace_providers``: where workspaces can be."""
    found = workspaces.providers(backend().config)
    return {"providers": {name: _provider(each) for name, each in found.items()}}


@blueprint.get("/workspaces")
@takes("limit", "after")
@signed_in
def list_workspaces() -> dict[str, Any]:
    """``GET /workspaces``: the user's workspaces by id."""
    config, limit = backend().config, limit_argument()
    page = workspaces.list_workspaces(config, current_user().id, limit, request.args.get("after") or None)
    return {
        "workspaces": [_short(each) for each in page.items],
        "links": page_links("/workspaces", page.next, limit=limit),
    }


@blueprint.post("/workspaces")
@signed_in
def create_workspace() -> Response:
    """``POST /workspaces``: make a workspace, which is ready at once."""
    made = workspaces.create(backend().config, current_user().id, _draft(json_object()))
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/workspaces/{made.id}")
    response.headers["OpenEO-Identifier"] = made.id
    return response


@blueprint.get("/workspaces/<workspace_id>")
@signed_in
def describe_workspace(workspace_id: str) -> dict[str, Any]:
    """``GET /workspaces/{workspace_id}``: all that is known of a workspace."""
    return _full(_find(workspace_id))


@blueprint.patch("/workspaces/<workspace_id>")
@signed_in
def update_workspace(workspace_id: str) -> Response:
    """``PATCH /workspaces/{workspace_id}``: change title or description."""
    body = json_object()
    for name in sorted(body.keys() - TEXTS.keys()):
        raise PropertyNotEditable(property=name)
    changes = {name: text_or_null(body, name) for name in body}
    workspaces.update(backend().config, current_user().id, workspace_id, changes)
    return Response(status=204)


@blueprint.delete("/workspaces/<workspace_id>")
@signed_in
def delete_workspace(workspace_id: str) -> Response:
    """``DELETE /workspaces/{workspace_id}``: remove a workspace with all files in it."""
    workspaces.delete(backend().config, current_user().id, workspace_id)
    return Response(status=204)


@blueprint.get("/workspaces/<workspace_id>/files")
@signed_in
def list_workspace_files(workspace_id: str) -> dict[str, Any]:
    """``GET /workspaces/{workspace_id}/files``: paths and sizes of all files."""
    found = workspaces.list_files(backend().config, _find(workspace_id))
    return {"files": [{"path": path, "size": size} for path, size in found], "links": []}


@blueprint.get("/workspaces/<workspace_id>/files/<path:path>")
@signed_in
def download_workspace_file(workspace_id: str, path: str) -> Response:
    """``GET /workspaces/{workspace_id}/files/{path}``: a file; HEAD and Range are honoured."""
    content, size = workspaces.find_file(backend().config, _find(workspace_id), path)
    body, type_ = wrap_file(request.environ, content, COPY_BYTES), guess_type(path)[0]
    response = Response(body, content_type=type_ or "application/octet-stream", direct_passthrough=True)
    response.content_length = size
    response.cache_control.private = True
    response.cache_control.no_cache = True
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.call_on_close(content.close)
    return make_conditional(response, size)


def _find(id_: str) -> Workspace:
    return workspaces.get(backend().config, current_user().id, id_)


# --- Documents -----------------------------------------------------------------------------------


def _provider(provider: workspaces.Provider) -> dict[str, Any]:
    described = {"title": provider.title, "description": provider.description or provider.title}
    return {**described, "intents": ["create"], "parameters": {}, "links": []}


def _draft(body: Mapping[str, Any]) -> Draft:
    if body.get("intent") == "register":
        raise FeatureUnsupported(feature="registering existing storage. Set 'intent' to 'create'")
    if body.get("intent") != "create":
        raise RequestInvalid(reason="'intent' must be 'create'.")
    if body.get("parameters") not in (None, {}):
        raise RequestInvalid(reason="the providers have no parameters. Leave out 'parameters'.")
    provider, quota = body.get("type"), body.get("quota")
    if provider is not None and not isinstance(provider, str):
        raise RequestInvalid(reason="'type' must be the name of a workspace provider, or null.")
    if quota is not None and (type(quota) is not int or not 0 <= quota <= LARGEST_QUOTA):
        raise RequestInvalid(reason="'quota' must be a number of bytes, or null.")
    return Draft(text_or_null(body, "title"), text_or_null(body, "description"), provider, quota)


def _short(workspace: Workspace) -> dict[str, Any]:
    found = {
        "id": workspace.id,
        "title": workspace.title,
        "description": workspace.description,
        "type": workspace.provider,
        "status": "ready" if workspace.provider in workspaces.providers(backend().config) else "unavailable",
        "quota": workspace.quota,
    }
    return {name: value for name, value in found.items() if value is not None}


def _full(workspace: Workspace) -> dict[str, Any]:
    short = _short(workspace)
    try:
        used = workspaces.used(backend().config, workspace)
    except (WorkspaceUnavailable, StorageFailure) as error:
        return {**short, "status": "unavailable", "details": error.message}
    free = {} if workspace.quota is None else {"free": max(workspace.quota - used, 0)}
    return {**short, "url": _url(workspace), "properties": {"used": used}, **free}


def _url(workspace: Workspace) -> str:
    public = workspaces.providers(backend().config)[workspace.provider].public_url
    if public is not None:
        return f"{public.rstrip('/')}/{workspace.folder}"
    return api_url(f"/workspaces/{quote(workspace.id)}/files")
