"""Files of datasets: their public URLs, and the download of files on this machine."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname
from uuid import UUID

from flask import Blueprint, Response

from odc_openeo.api.auth import get_readable_catalog
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.file_responses import send_local_file
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.catalog import Place, find_media_type
from odc_openeo.errors import NotFound
from odc_openeo.load.public_objects import make_public_url
from odc_openeo.storage.buckets import (
    WEB,
    AddressRefusedError,
    BucketRules,
    find_location,
    read_bucket_rules,
)

blueprint = Blueprint("assets", __name__)

DEFAULT_TYPE: Final = "application/octet-stream"


def find_place(uri: str, collection: str, item: str, key: str) -> Place | None:
    """Find the URL at which clients can read an indexed file; None if there is none.

    Local paths are never exposed: they are replaced as configured by the operator, or point to `download`.
    """
    config = backend().config
    local = urlsplit(uri).scheme in ("", "file")
    for prefix, replacement in config.asset_prefixes:
        if uri.startswith(prefix):
            href = replacement + uri.removeprefix(prefix)
            return Place(href, {} if local else {urlsplit(uri).scheme: uri})
    if not local:
        return find_bucket_place(uri, read_bucket_rules(config.buckets), collection)
    if not config.serves_assets:
        return None
    path = "/".join(quote(part, safe="") for part in (collection, item, key, _get_file_name(uri)))
    return Place(f"{root_url()}/assets/{path}")


def find_bucket_place(uri: str, rules: BucketRules, product: str) -> Place:
    """Find where clients read an object: by https in a public bucket; else with a note on what they need."""
    try:
        location, access = find_location(uri), rules.find_access(uri, product)
    except AddressRefusedError:
        return Place(uri)
    if location is None or (location.scheme in WEB and (access is None or access.signing is None)):
        return Place(uri)
    if location.scheme in WEB:
        return Place(uri, note="This URL must be signed with a token of the data's provider.")
    if access is not None and access.unsigned and access.endpoint is None:
        url = make_public_url(location, access)
        return Place(uri) if url is None else Place(url, {location.scheme: uri})
    return Place(uri, note=NOTES[access is not None and access.requester_pays])


NOTES: Final = {
    False: "In an object store: reading it needs a client for the store and credentials of your own.",
    True: "In an object store, where requesters pay: reading it needs credentials and is at your expense.",
}
"""Notes on what clients need to read an object, by whether requesters pay."""


@blueprint.get("/assets/<collection_id>/<uuid:item_id>/<key>/<name>")
@answers(media_type=ANY)
def download(collection_id: str, item_id: UUID, key: str, name: str) -> Response:
    """A file of an indexed dataset; HEAD, Range and If-None-Match are supported."""
    if not backend().config.serves_assets:
        raise NotFound
    file = get_readable_catalog().get_item_files(collection_id, str(item_id)).get(key)
    if file is None or urlsplit(file.uri).scheme not in ("", "file") or _get_file_name(file.uri) != name:
        raise NotFound
    try:
        asset_file = open(url2pathname(urlsplit(file.uri).path), "rb")  # noqa: SIM115  (closed when it is sent)
    except OSError as error:
        raise NotFound("The file of this asset does not exist.") from error
    return send_local_file(asset_file, find_media_type(file.uri) or DEFAULT_TYPE)


def _get_file_name(uri: str) -> str:
    return PurePosixPath(url2pathname(urlsplit(uri).path)).name
