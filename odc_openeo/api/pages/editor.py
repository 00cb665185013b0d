"""A Web Editor of our own: the files of a folder that the operator names."""

from __future__ import annotations

from mimetypes import guess_type
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, redirect, request, send_file
from werkzeug.utils import safe_join
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import EDITOR_PATH, backend
from odc_openeo.api.content import make_conditional
from odc_openeo.api.pages.html import address
from odc_openeo.config import PREFIX, Config
from odc_openeo.errors import NotFound

blueprint = Blueprint("editor", __name__, url_prefix=EDITOR_PATH)

INDEX: Final = "index.html"
TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".map": "application/json",
    ".wasm": "application/wasm",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
    ".ico": "image/vnd.microsoft.icon",
}
"""Media types that not every machine knows; browsers run no script of a wrong one."""

CSP: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src * data: blob:; font-src 'self' data:; connect-src * data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""An editor may ask other servers for data and maps, but run no code of theirs."""


def there_is_one(config: Config) -> bool:
    """Whether an editor is to be served; ValueError if its folder holds none."""
    if config.web_editor_dir is None:
        return False
    if not (config.web_editor_dir / INDEX).is_file():
        raise ValueError(
            f"{PREFIX}WEB_EDITOR_DIR: there is no {INDEX} in {config.web_editor_dir}. Name the folder that "
            "building the editor has made."
        )
    return True


@blueprint.get("", strict_slashes=True)
def without_slash() -> AnyResponse:
    """The address that people type; browsers keep the fragment themselves."""
    sent = request.query_string.decode("latin-1")
    return redirect(address("editor.file") + (f"?{sent}" if sent else ""), 308)


@blueprint.get("/", strict_slashes=True)
@blueprint.get("/<path:path>")
def file(path: str = INDEX) -> Response:
    """A file of the editor, with ETag; HEAD, Range and If-None-Match are honoured."""
    found = _inside(path)
    type_ = TYPES.get(found.suffix.lower()) or guess_type(found.name)[0] or "application/octet-stream"
    response = send_file(found, mimetype=type_, conditional=False, max_age=0 if path == INDEX else 3600)
    make_conditional(response, found.stat().st_size)
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Content-Security-Policy"] = CSP
    return response


def _inside(path: str) -> Path:
    """A file of the folder; NotFound for what is not there, hidden, or elsewhere by way of a link."""
    folder = backend().config.web_editor_dir
    assert folder is not None
    joined = safe_join(str(folder), path)
    if joined is None or "\0" in path or any(part.startswith(".") for part in path.split("/")):
        raise NotFound
    found = Path(joined).resolve()
    if not found.is_file() or not found.is_relative_to(folder.resolve()):
        raise NotFound
    return found
