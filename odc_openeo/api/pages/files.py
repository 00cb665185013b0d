"""The files of the user who is signed in: a list, and downloads."""

from __future__ import annotations

from flask import Blueprint, Response
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import files
from odc_openeo.api.backend import backend
from odc_openeo.api.files import content_of
from odc_openeo.api.pages.forms import for_users, private_page, user
from odc_openeo.api.pages.html import shows_errors

blueprint = shows_errors(Blueprint("my_files", __name__, url_prefix="/my"))


@blueprint.get("/files")
@for_users
def file_list() -> Response:
    """All files of the user, and how much room is left."""
    config, owner = backend().config, str(user().id)
    return private_page(
        "files.html",
        files=files.listing(config, owner),
        used=files.used(config, owner),
        quota=config.user_storage_bytes,
    )


@blueprint.get("/files/<path:path>")
@for_users
def download(path: str) -> AnyResponse:
    """A file, to be saved."""
    return content_of(str(user().id), path)
