"""Tag File Storage: the user's files."""

from __future__ import annotations

import sys
from mimetypes import guess_type
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import wrap_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.file_responses import make_conditional
from odc_openeo.api.paging import make_page_links, read_limit
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.view_bodies import ANY, BINARY, accepts, answers
from odc_openeo.errors import RequestInvalid
from odc_openeo.user_data import files
from odc_openeo.user_data.file_rules import BLOCK, UserFile

blueprint = Blueprint("files", __name__)

DEFAULT_TYPE: Final = "application/octet-stream"


@blueprint.get("/files")
@takes("limit", "after")
@signed_in
def list_files() -> dict[str, Any]:
    """``GET /files``: all files of the user; paginated if ``limit`` is given."""
    limit, after = read_limit(), request.args.get("after", "")
    user_files = [f for f in files.list_files(backend().config, str(current_user().id)) if f.path > after]
    page = user_files[:limit]
    links = make_page_links("/files", page[-1].path if len(page) < len(user_files) else None, limit=limit)
    return {"files": [_describe_file(file) for file in page], "links": links}


@blueprint.get("/files/<path:path>")
@answers(media_type=ANY)
@signed_in
def download_file(path: str) -> Response:
    """``GET /files/{path}``: the content of a file; HEAD, Range and If-None-Match are supported."""
    return send_user_file(str(current_user().id), path)


def send_user_file(user: str, path: str) -> Response:
    """Send the content of a user's file as a download, so that browsers do not display it."""
    user_file, content = files.open_file(backend().config, user, path)
    body = wrap_file(request.environ, content, BLOCK)
    response = Response(body, content_type=_guess_media_type(user_file.path), direct_passthrough=True)
    response.content_length = user_file.size
    response.set_etag(user_file.etag)
    response.last_modified = user_file.modified
    response.cache_control.private = True
    response.cache_control.no_cache = True
    response.vary.add("Accept")
    name = quote(user_file.path.rpartition("/")[2], safe="")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response.call_on_close(content.close)
    return make_conditional(response, user_file.size)


@blueprint.put("/files/<path:path>")
@accepts(BINARY)
@signed_in
def upload_file(path: str) -> dict[str, Any]:
    """``PUT /files/{path}``: store the request body as a file."""
    # None would mean the limit for JSON bodies; `files` enforces the limits for files.
    request.max_content_length = sys.maxsize
    stream, length = request.stream, request.content_length
    try:
        return _describe_file(
            files.receive_file(backend().config, str(current_user().id), path, stream, length)
        )
    except ClientDisconnected as error:
        raise RequestInvalid(reason="it is shorter than its Content-Length. Send the file again.") from error


@blueprint.delete("/files/<path:path>")
@answers(204)
@signed_in
def delete_file(path: str) -> tuple[str, int]:
    """``DELETE /files/{path}``: delete a file."""
    files.delete_file(backend().config, str(current_user().id), path)
    return "", 204


def _guess_media_type(path: str) -> str:
    """Guess the media type from the file name if the client accepts just that; by default it is generic."""
    guess = guess_type(path)[0]
    return guess if guess and guess in request.accept_mimetypes.values() else DEFAULT_TYPE


def _describe_file(file: UserFile) -> dict[str, Any]:
    modified = file.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
    checksum = {"file:checksum": file.checksum} if file.checksum else {}
    return {"path": file.path, "size": file.size, "modified": modified, **checksum}
