"""Tag Batch Jobs: results and their metadata; and the signed links, which need no sign-in."""

from __future__ import annotations

import tempfile
import zipfile
from typing import IO, Any, cast
from urllib.parse import quote, urlsplit
from uuid import UUID

from flask import Blueprint, Response, jsonify, request

from odc_openeo import jobs, results
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.content import COPY_BYTES, conditional
from odc_openeo.api.job_documents import flag_argument, log_entry
from odc_openeo.api.parameters import takes
from odc_openeo.errors import JobNotFinished, JobNotStarted, NotFound
from odc_openeo.results import COLLECTION, ITEMS, Href, Results
from odc_openeo.storage import storage

blueprint = Blueprint("job_results", __name__)
downloads = Blueprint("downloads", __name__)

GEOJSON = "application/geo+json"


@blueprint.get("/jobs/<job_id>/results")
@takes("partial")
@signed_in
def list_results(job_id: str) -> Response:
    """``GET /jobs/{job_id}/results``: links to the files, with STAC metadata."""
    config = backend().config
    job = jobs.get(config, current_user().id, job_id)
    partial = flag_argument("partial")
    if job.status == "error" and not partial:
        response = jsonify(log_entry(jobs.last_error(config, job)))
        response.status_code = 424
        return response
    response = _document(_available(job, partial))
    response.headers["OpenEO-Costs"] = "0"
    return response


def _available(job: jobs.Job, partial: bool) -> Results:
    found = results.find(backend().config, job)
    if found is not None and (found.complete or partial or job.status == "canceled"):
        return found
    if partial and job.status in ("running", "error"):
        return results.empty(job)
    if job.status == "created":
        raise JobNotStarted(identifier=job.id)
    raise JobNotFinished(state=job.status)


def _document(found: Results) -> Response:
    expires = results.expiry(backend().config)
    accept = request.accept_mimetypes
    as_item = accept.best_match(["application/json", GEOJSON], "application/json") == GEOJSON
    make = results.feature if as_item else results.collection
    response = jsonify(make(found, _href(found, expires), expires))
    if as_item:
        response.mimetype = GEOJSON
    return response


def link_of(found: Results) -> Href:
    """Signed links to the files of results, as paths on this server."""
    href = _href(found, results.expiry(backend().config))
    return lambda name: urlsplit(href(name)).path


def _href(found: Results, expires: int) -> Href:
    job = found.job.id
    signature = results.sign(backend().config, job, found.attempt, expires)
    return lambda name: f"{root_url()}/results/{job}/{expires}/{signature}/{quote(name)}"


# --- Signed links --------------------------------------------------------------------------------


@downloads.get("/results/<uuid:job>/<int:expires>/<signature>/<path:name>")
def download(job: UUID, expires: int, signature: str, name: str) -> Response:
    """A file or STAC document of results, for whoever has the link."""
    found = results.open_link(backend().config, job, expires, signature)
    document = _signed_document(found, expires, name)
    if document is not None:
        return document
    asset = found.asset(name)
    if asset is None:
        raise NotFound
    return _send(found, name, dict(asset))


def _signed_document(found: Results, expires: int, name: str) -> Response | None:
    href = _href(found, expires)
    if name == COLLECTION:
        return jsonify(results.collection(found, href, expires))
    folder, _, file = name.partition("/")
    if folder != ITEMS or not file.endswith(".json"):
        return None
    id_ = file.removesuffix(".json")
    whole = id_ == str(found.job.id)
    made = results.feature(found, href, expires) if whole else results.item(found, id_, href, expires)
    if made is None:
        return None
    response = jsonify(made)
    response.mimetype = GEOJSON
    return response


def _send(found: Results, name: str, asset: dict[str, Any]) -> Response:
    store, key = storage(backend().config), f"{found.folder}/{name}"
    try:
        size = store.size(key)
        file = store.open(key) if size is not None else _archive(found, name)
    except (FileNotFoundError, ValueError) as error:
        raise NotFound from error
    type_ = "application/zip" if size is None else _media_type(asset, name)
    etag = f"{found.attempt.hex}-{asset.get('file:checksum', '')[4:20]}-{name}"
    response = conditional(file, size if size is not None else _length(file), type_, etag)
    response.cache_control.private = True
    return response


def _media_type(asset: dict[str, Any], name: str) -> str:
    if name == asset["name"]:
        return str(asset["type"])
    return "application/json" if name.endswith(".json") else "application/octet-stream"


def _length(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _archive(found: Results, name: str) -> IO[bytes]:
    """A folder, such as a Zarr store, as one zip archive."""
    store, top = storage(backend().config), f"{found.folder}/{name}"
    packed = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115  (closed when the answer is sent)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for key in store.walk(top):
            with store.open(key) as source, archive.open(key.removeprefix(f"{top}/"), "w") as sink:
                while block := source.read(COPY_BYTES):
                    sink.write(block)
    packed.seek(0)
    return packed
