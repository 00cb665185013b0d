"""Tag File Storage: the user's files."""

from __future__ import annotations

import sys
from mimetypes import guess_type
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import wrap_file

from odc_openeo import files
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.content import make_conditional
from odc_openeo.api.job_documents import limit_argument, page_links
from odc_openeo.api.parameters import takes
from odc_openeo.errors import RequestInvalid
from odc_openeo.files import UserFile

blueprint = Blueprint("files", __name__)

DEFAULT_TYPE: Final = "application/octet-stream"


@blueprint.get("/files")
@takes("limit", "after")
@signed_in
def list_files() -> dict[str, Any]:
    """``GET /files``: all files, in pages if ``limit`` is given."""
    limit, after = limit_argument(), request.args.get("after", "")
    found = [f for f in files.listing(backend().config, str(current_user().id)) if f.path > after]
    page = found[:limit]
    links = page_links("/files", page[-1].path if len(page) < len(found) else None, limit=limit)
    return {"files": [_document(file) for file in page], "links": links}


@blueprint.get("/files/<path:path>")
@signed_in
def download_file(path: str) -> Response:
    """``GET /files/{path}``: the content; HEAD, Range and If-None-Match are honoured."""
    return content_of(str(current_user().id), path)


def content_of(user: str, path: str) -> Response:
    """The content of a user's file, to be saved and not shown by browsers."""
    found, content = files.open_file(backend().config, user, path)
    body = wrap_file(request.environ, content, files.BLOCK)
    response = Response(body, content_type=_media_type(found.path), direct_passthrough=True)
    response.content_length = found.size
    response.set_etag(found.etag)
    response.last_modified = found.modified
    response.cache_control.private = True
    response.cache_control.no_cache = True
    response.vary.add("Accept")
    name = quote(found.path.rpartition("/")[2], safe="")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response.call_on_close(content.close)
    return make_conditional(response, found.size)


@blueprint.put("/files/<path:path>")
@signed_in
def upload_file(path: str) -> dict[str, Any]:
    """``PUT /files/{path}``: keep the body as a file."""
    # None would mean the limit of JSON bodies; `files` has the limits of files.
    request.max_content_length = sys.maxsize
    stream, length = request.stream, request.content_length
    try:
        return _document(files.receive(backend().config, str(current_user().id), path, stream, length))
    except ClientDisconnected as error:
        raise RequestInvalid(reason="it is shorter than announced. Send the file again.") from error


@blueprint.delete("/files/<path:path>")
@signed_in
def delete_file(path: str) -> tuple[str, int]:
    """``DELETE /files/{path}``."""
    files.delete(backend().config, str(current_user().id), path)
    return "", 204


def _media_type(path: str) -> str:
    """What the name of a file tells, for those who ask for just that; the API has one type for all files."""
    guessed = guess_type(path)[0]
    return guessed if guessed and guessed in request.accept_mimetypes.values() else DEFAULT_TYPE


def _document(file: UserFile) -> dict[str, Any]:
    modified = file.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
    checksum = {"file:checksum": file.checksum} if file.checksum else {}
    return {"path": file.path, "size": file.size, "modified": modified, **checksum}
