"""The pages of the signed-in user's files: list and downloads."""

from __future__ import annotations

from flask import Blueprint, Response
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend
from odc_openeo.api.files import send_user_file
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import with_error_pages
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.user_data import files

blueprint = with_error_pages(Blueprint("my_files", __name__, url_prefix="/my"))


@blueprint.get("/files")
@for_users
def file_list() -> Response:
    """The list of the user's files, with used and available storage."""
    config, owner = backend().config, str(get_visitor().id)
    return render_private_page(
        "files.html",
        files=files.list_files(config, owner),
        used=files.count_used_bytes(config, owner),
        quota=files.get_storage_quota(config, owner),
    )


@blueprint.get("/files/<path:path>")
@answers(media_type=ANY)
@for_users
def download(path: str) -> AnyResponse:
    """A file of the user as a download."""
    return send_user_file(str(get_visitor().id), path)
