"""The self-hosted openEO Web Editor: static files of a folder that the operator configures."""

from __future__ import annotations

import logging
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, redirect, request, send_file
from werkzeug.utils import safe_join
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import EDITOR_PATH, backend
from odc_openeo.api.file_responses import make_conditional
from odc_openeo.api.pages.html import make_page_path
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.config import PREFIX, Config
from odc_openeo.errors import NotFound
from odc_openeo.stack.web_editor import INDEX, find_editor_warning

log = logging.getLogger(__name__)

blueprint = Blueprint("editor", __name__, url_prefix=EDITOR_PATH)

MEDIA_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".map": "application/json",
    ".wasm": "application/wasm",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
    ".ico": "image/vnd.microsoft.icon",
}
"""Media types that may be missing on a system; browsers refuse scripts with a wrong one."""

CSP: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src * data: blob:; font-src 'self' data:; connect-src * data: blob:; worker-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""The editor may request data and maps from other servers, but not run their code.

The decoder of its GeoTIFF reader starts from a ``data:`` URL.
"""


def has_editor(config: Config) -> bool:
    """Tell whether an editor is configured; ValueError if its folder has none."""
    if config.web_editor_dir is None:
        return False
    if not (config.web_editor_dir / INDEX).is_file():
        raise ValueError(
            f"{PREFIX}WEB_EDITOR_DIR: there is no {INDEX} in {config.web_editor_dir}. Set it to the output "
            "folder of the editor's build."
        )
    warning = find_editor_warning(config)
    if warning:
        log.warning("%s", warning)
    return True


@blueprint.get("", strict_slashes=True)
def without_slash() -> AnyResponse:
    """Redirect to the URL with a trailing slash; browsers keep the fragment."""
    query_string = request.query_string.decode("latin-1")
    return redirect(make_page_path("editor.file") + (f"?{query_string}" if query_string else ""), 308)


@blueprint.get("/", strict_slashes=True)
@blueprint.get("/<path:path>")
@answers(media_type=ANY)
def file(path: str = INDEX) -> Response:
    """A file of the editor with an ETag; HEAD, Range and If-None-Match are supported."""
    editor_file = _get_editor_file(path)
    media_type = (
        MEDIA_TYPES.get(editor_file.suffix.lower())
        or guess_type(editor_file.name)[0]
        or "application/octet-stream"
    )
    response = send_file(
        editor_file, mimetype=media_type, conditional=False, max_age=0 if path == INDEX else 3600
    )
    make_conditional(response, editor_file.stat().st_size)
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Content-Security-Policy"] = CSP
    return response


def _get_editor_file(path: str) -> Path:
    """Return the path of a file in the folder.

    NotFound if it does not exist, is hidden, or lies outside the folder (path traversal, symbolic links).
    """
    folder = backend().config.web_editor_dir
    assert folder is not None
    joined = safe_join(str(folder), path)
    if joined is None or "\0" in path or any(part.startswith(".") for part in path.split("/")):
        raise NotFound
    editor_file = Path(joined).resolve()
    if not editor_file.is_file() or not editor_file.is_relative_to(folder.resolve()):
        raise NotFound
    return editor_file
