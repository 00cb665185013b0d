"""The workspaces extension: providers, the user's workspaces and, in addition to it, their files."""

from __future__ import annotations

from collections.abc import Mapping
from mimetypes import guess_type
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from flask import Blueprint, Response, request
from pydantic import AfterValidator, Field
from werkzeug.wsgi import wrap_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import api_url, backend
from odc_openeo.api.file_responses import COPY_BYTES, make_conditional
from odc_openeo.api.json_body import TitledModel, read_json_object, validate_body
from odc_openeo.api.paging import make_page_links, read_limit
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.errors import (
    FeatureUnsupported,
    PropertyNotEditable,
    StorageFailure,
    WorkspaceUnavailable,
)
from odc_openeo.user_data import workspaces
from odc_openeo.user_data.workspaces import Workspace, WorkspaceDraft

blueprint = Blueprint("workspaces", __name__)

MAX_QUOTA: Final = 2**60


@blueprint.get("/workspace_providers")
def list_workspace_providers() -> dict[str, Any]:
    """``GET /workspace_providers``: the storage providers for workspaces."""
    providers = workspaces.load_providers(backend().config)
    return {"providers": {name: _describe_provider(provider) for name, provider in providers.items()}}


@blueprint.get("/workspaces")
@takes("limit", "after")
@signed_in
def list_workspaces() -> dict[str, Any]:
    """``GET /workspaces``: the user's workspaces, ordered by id."""
    config, limit = backend().config, read_limit()
    page = workspaces.list_workspaces(config, current_user().id, limit, request.args.get("after") or None)
    return {
        "workspaces": [summary_to_dict(provider) for provider in page.items],
        "links": make_page_links("/workspaces", page.next, limit=limit),
    }


@blueprint.post("/workspaces")
@answers(201)
@signed_in
def create_workspace() -> Response:
    """``POST /workspaces``: create a workspace, which is ready immediately."""
    workspace = workspaces.create_workspace(
        backend().config, current_user().id, _parse_workspace(read_json_object())
    )
    response = Response(status=201)
    response.headers["Location"] = api_url(f"/workspaces/{workspace.id}")
    response.headers["OpenEO-Identifier"] = workspace.id
    return response


@blueprint.get("/workspaces/<workspace_id>")
@signed_in
def describe_workspace(workspace_id: str) -> dict[str, Any]:
    """``GET /workspaces/{workspace_id}``: the full metadata of a workspace."""
    return workspace_to_dict(_get_workspace(workspace_id))


@blueprint.patch("/workspaces/<workspace_id>")
@answers(204)
@signed_in
def update_workspace(workspace_id: str) -> Response:
    """``PATCH /workspaces/{workspace_id}``: update the title or description."""
    body = read_json_object()
    for name in sorted(body.keys() - TitledModel.model_fields.keys()):
        raise PropertyNotEditable(property=name)
    changes = validate_body(TitledModel, body).model_dump(exclude_unset=True)
    workspaces.update_workspace(backend().config, current_user().id, workspace_id, changes)
    return Response(status=204)


@blueprint.delete("/workspaces/<workspace_id>")
@answers(204)
@signed_in
def delete_workspace(workspace_id: str) -> Response:
    """``DELETE /workspaces/{workspace_id}``: delete a workspace with all its files."""
    workspaces.delete_workspace(backend().config, current_user().id, workspace_id)
    return Response(status=204)


@blueprint.get("/workspaces/<workspace_id>/files")
@signed_in
def list_workspace_files(workspace_id: str) -> dict[str, Any]:
    """``GET /workspaces/{workspace_id}/files``: the paths and sizes of all files."""
    files = workspaces.list_files(backend().config, _get_workspace(workspace_id))
    return {"files": [{"path": path, "size": size} for path, size in files], "links": []}


@blueprint.get("/workspaces/<workspace_id>/files/<path:path>")
@answers(media_type=ANY)
@signed_in
def download_workspace_file(workspace_id: str, path: str) -> Response:
    """``GET /workspaces/{workspace_id}/files/{path}``: a file; HEAD and Range are supported."""
    return send_workspace_file(_get_workspace(workspace_id), path)


def send_workspace_file(workspace: Workspace, path: str) -> Response:
    """Send the content of a file of a workspace; FileNotFound if there is none."""
    content, size = workspaces.open_file(backend().config, workspace, path)
    body, media_type = wrap_file(request.environ, content, COPY_BYTES), guess_type(path)[0]
    response = Response(body, content_type=media_type or "application/octet-stream", direct_passthrough=True)
    response.content_length = size
    response.cache_control.private = True
    response.cache_control.no_cache = True
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.call_on_close(content.close)
    return make_conditional(response, size)


def _get_workspace(id_: str) -> Workspace:
    return workspaces.get_workspace(backend().config, current_user().id, id_)


# --- Documents -----------------------------------------------------------------------------------


def _describe_provider(provider: workspaces.WorkspaceProvider) -> dict[str, Any]:
    description = {"title": provider.title, "description": provider.description or provider.title}
    return {**description, "intents": ["create"], "parameters": {}, "links": []}


def _check_empty(parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters:
        raise ValueError("must be empty, as the workspace providers have no parameters")
    return parameters


class WorkspaceModel(TitledModel):
    """The members of a new workspace that users may set."""

    intent: Literal["create", "register"]
    type: str | None = None
    quota: Annotated[int, Field(ge=0, le=MAX_QUOTA)] | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_check_empty)] | None = None


def _parse_workspace(body: Mapping[str, Any]) -> WorkspaceDraft:
    workspace = validate_body(WorkspaceModel, body)
    if workspace.intent == "register":
        raise FeatureUnsupported(feature="registering existing storage. Set 'intent' to 'create'")
    return WorkspaceDraft(workspace.title, workspace.description, workspace.type, workspace.quota)


def summary_to_dict(workspace: Workspace) -> dict[str, Any]:
    """Describe a workspace in a listing."""
    document = {
        "id": workspace.id,
        "title": workspace.title,
        "description": workspace.description,
        "type": workspace.provider,
        "status": "ready"
        if workspace.provider in workspaces.load_providers(backend().config)
        else "unavailable",
        "quota": workspace.quota,
    }
    return {name: value for name, value in document.items() if value is not None}


def workspace_to_dict(workspace: Workspace) -> dict[str, Any]:
    """Describe a workspace in full, with the bytes that its files take."""
    summary = summary_to_dict(workspace)
    try:
        used = workspaces.count_used_bytes(backend().config, workspace)
    except (WorkspaceUnavailable, StorageFailure) as error:
        return {**summary, "status": "unavailable", "details": error.message}
    free = {} if workspace.quota is None else {"free": max(workspace.quota - used, 0)}
    return {**summary, "url": _make_workspace_url(workspace), "properties": {"used": used}, **free}


def _make_workspace_url(workspace: Workspace) -> str:
    public = workspaces.load_providers(backend().config)[workspace.provider].public_url
    if public is not None:
        return f"{public.rstrip('/')}/{workspace.folder}"
    return api_url(f"/workspaces/{quote(workspace.id)}/files")
