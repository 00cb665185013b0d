"""The pages of the signed-in user's files: list, uploads, downloads."""

from __future__ import annotations

from flask import Blueprint, Response, redirect
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend
from odc_openeo.api.files import send_user_file
from odc_openeo.api.pages.forms import (
    SESSION_COOKIE,
    for_users,
    for_users_who_upload,
    get_visitor,
    read_cookie,
    render_private_page,
)
from odc_openeo.api.pages.html import make_page_path, with_error_pages
from odc_openeo.api.pages.uploads import receive_uploads
from odc_openeo.api.view_bodies import ANY, MULTIPART, accepts, answers
from odc_openeo.errors import FormInvalid, OpenEOError
from odc_openeo.user_data import files

blueprint = with_error_pages(Blueprint("my_files", __name__, url_prefix="/my"))


@blueprint.get("/files")
@for_users
def file_list() -> Response:
    """The list of the user's files, with used and available storage."""
    return _render_list()


@blueprint.post("/files")
@accepts(MULTIPART)
@for_users_who_upload
def upload() -> AnyResponse:
    """Store the files of the form; a file that has the path of another one replaces it."""
    try:
        receive_uploads(str(get_visitor().id), read_cookie(SESSION_COOKIE))
    except FormInvalid:
        raise
    except OpenEOError as error:
        return _render_list(error)
    return redirect(make_page_path("my_files.file_list"), 303)


@blueprint.get("/files/<path:path>")
@answers(media_type=ANY)
@for_users
def download(path: str) -> AnyResponse:
    """A file of the user as a download."""
    return send_user_file(str(get_visitor().id), path)


@blueprint.post("/files/<path:path>")
@for_users
def delete(path: str) -> AnyResponse:
    """Delete a file: the only thing that the form of a file does."""
    files.delete_file(backend().config, str(get_visitor().id), path)
    return redirect(make_page_path("my_files.file_list"), 303)


def _render_list(error: OpenEOError | None = None) -> Response:
    config, owner = backend().config, str(get_visitor().id)
    return render_private_page(
        "files.html",
        200 if error is None else error.status,
        files=files.list_files(config, owner),
        used=files.count_used_bytes(config, owner),
        quota=files.get_storage_quota(config, owner),
        most=config.max_file_bytes,
        problem=None if error is None else error.message,
    )
