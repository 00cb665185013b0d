"""The files of datasets: where clients read them, and the download of those that lie on this machine."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname
from uuid import UUID

from flask import Blueprint, Response

from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.content import content
from odc_openeo.catalog import Place, media_type
from odc_openeo.errors import NotFound

blueprint = Blueprint("assets", __name__)

DEFAULT_TYPE: Final = "application/octet-stream"


def place(uri: str, collection: str, item: str, key: str) -> Place | None:
    """Where clients read a file of the index; None if they can't.

    Addresses on this machine are never shown: they are replaced as the operator says, or lead to `download`.
    """
    config = backend().config
    local = urlsplit(uri).scheme in ("", "file")
    for prefix, replacement in config.asset_prefixes:
        if uri.startswith(prefix):
            href = replacement + uri.removeprefix(prefix)
            return Place(href, {} if local else {urlsplit(uri).scheme: uri})
    if not local:
        return Place(uri)
    if not config.serves_assets:
        return None
    path = "/".join(quote(part, safe="") for part in (collection, item, key, _name(uri)))
    return Place(f"{root_url()}/assets/{path}")


@blueprint.get("/assets/<collection_id>/<uuid:item_id>/<key>/<name>")
def download(collection_id: str, item_id: UUID, key: str, name: str) -> Response:
    """A file of an indexed dataset; HEAD, Range and If-None-Match are honoured."""
    if not backend().config.serves_assets:
        raise NotFound
    file = backend().catalog.files(collection_id, str(item_id)).get(key)
    if file is None or urlsplit(file.uri).scheme not in ("", "file") or _name(file.uri) != name:
        raise NotFound
    try:
        opened = open(url2pathname(urlsplit(file.uri).path), "rb")  # noqa: SIM115  (closed when it is sent)
    except OSError as error:
        raise NotFound("The file of this asset is not there.") from error
    return content(opened, media_type(file.uri) or DEFAULT_TYPE)


def _name(uri: str) -> str:
    return PurePosixPath(url2pathname(urlsplit(uri).path)).name
