"""The pages of the signed-in user's workspaces: a list, and one page per workspace with its files."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import make_page_path, render_markdown, with_error_pages
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.api.workspaces import send_workspace_file, summary_to_dict, workspace_to_dict
from odc_openeo.errors import StorageFailure, WorkspaceUnavailable
from odc_openeo.user_data import workspaces

blueprint = with_error_pages(Blueprint("my_workspaces", __name__, url_prefix="/my"))

PAGE_SIZE: Final = 50
MAX_FILES: Final = 1000
"""Files listed on the page of a workspace; the API lists all."""


@blueprint.get("/workspaces")
@for_users
def workspace_list() -> Response:
    """The list of the user's workspaces, by id."""
    page = workspaces.list_workspaces(
        backend().config, get_visitor().id, PAGE_SIZE, request.args.get("after") or None
    )
    rows = [summary_to_dict(workspace) for workspace in page.items]
    return render_private_page("workspaces.html", workspaces=rows, next=page.next)


@blueprint.get("/workspaces/<workspace_id>")
@for_users
def workspace(workspace_id: str) -> Response:
    """The page of a workspace: files, used and free storage."""
    config = backend().config
    user_workspace = workspaces.get_workspace(config, get_visitor().id, workspace_id)
    try:
        workspace_files = workspaces.list_files(config, user_workspace)
    except (WorkspaceUnavailable, StorageFailure):
        workspace_files = []
    return render_private_page(
        "workspace.html",
        workspace=workspace_to_dict(user_workspace),
        description=render_markdown(user_workspace.description or ""),
        created=user_workspace.created,
        files=workspace_files[:MAX_FILES],
        count=len(workspace_files),
    )


@blueprint.get("/workspaces/<workspace_id>/files/<path:path>")
@answers(media_type=ANY)
@for_users
def download(workspace_id: str, path: str) -> AnyResponse:
    """A file of a workspace as a download, never to be shown as a page of this site."""
    user_workspace = workspaces.get_workspace(backend().config, get_visitor().id, workspace_id)
    response = send_workspace_file(user_workspace, path)
    response.content_type = "application/octet-stream"
    response.headers["Content-Disposition"] = "attachment"
    return response


@blueprint.post("/workspaces/<workspace_id>/delete")
@for_users
def delete(workspace_id: str) -> AnyResponse:
    """Delete a workspace with all its files."""
    workspaces.delete_workspace(backend().config, get_visitor().id, workspace_id)
    return redirect(make_page_path("my_workspaces.workspace_list"), 303)
