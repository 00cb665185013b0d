"""Tag Batch Jobs: results with STAC metadata, and signed links to them that need no sign-in."""

from __future__ import annotations

import tempfile
import time
import zipfile
from http import HTTPStatus
from typing import IO, Any, Final, cast
from urllib.parse import quote, urlsplit
from uuid import UUID

from flask import Blueprint, Response, jsonify, request

from odc_openeo import jobs
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.file_responses import COPY_BYTES, make_file_response
from odc_openeo.api.jobs.documents import log_entry_to_dict
from odc_openeo.api.paging import read_flag
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.api.view_bodies import ANY, GEOJSON, PARQUET, answers
from odc_openeo.catalog.items_parquet import encode_items
from odc_openeo.errors import JobNotFinished, JobNotStarted, NotFound
from odc_openeo.jobs import results
from odc_openeo.jobs.result_stac import (
    COLLECTION,
    ITEMS,
    ITEMS_TABLE,
    Href,
    Results,
    find_asset_key,
    find_item,
    group_items,
    has_items_table,
    make_collection,
    make_feature,
)
from odc_openeo.storage import Storage, get_storage
from odc_openeo.storage.signed_links import compute_expiry

blueprint = Blueprint("job_results", __name__)
downloads = Blueprint("downloads", __name__)

REDIRECT_SECONDS: Final = 3600
"""How long signed URLs of a store are valid at most. Each download gets a new one."""


@blueprint.get("/jobs/<job_id>/results")
@takes("partial")
@signed_in
def list_results(job_id: str) -> Response:
    """``GET /jobs/{job_id}/results``: signed links to the result files with STAC metadata."""
    config = backend().config
    job = jobs.get_job(config, current_user().id, job_id)
    partial = read_flag("partial")
    if job.status == "error" and not partial:
        response = jsonify(log_entry_to_dict(jobs.get_last_error(config, job)))
        response.status_code = 424
        return response
    response = _make_results_response(_get_results(job, partial))
    response.headers["OpenEO-Costs"] = "0"
    return response


def _get_results(job: jobs.Job, partial: bool) -> Results:
    job_results = results.find_results(backend().config, job)
    if job_results is not None and (job_results.complete or partial or job.status == "canceled"):
        return job_results
    if partial and job.status in ("running", "error"):
        return results.make_empty_results(job)
    if job.status == "created":
        raise JobNotStarted(identifier=job.id)
    raise JobNotFinished(state=job.status)


def _make_results_response(job_results: Results) -> Response:
    expires = compute_expiry(backend().config)
    accept = request.accept_mimetypes
    as_item = accept.best_match(["application/json", GEOJSON], "application/json") == GEOJSON
    make_document = make_feature if as_item else make_collection
    response = jsonify(make_document(job_results, _make_signed_urls(job_results, expires), expires))
    if as_item:
        response.mimetype = GEOJSON
    return response


def make_signed_paths(job_results: Results) -> Href:
    """Return a function that makes signed paths of result files on this server."""
    href = _make_signed_urls(job_results, compute_expiry(backend().config))
    return lambda name: urlsplit(href(name)).path


def _make_signed_urls(job_results: Results, expires: int) -> Href:
    job = job_results.job.id
    signature = results.sign_results(backend().config, job, job_results.attempt, expires)
    return lambda name: f"{root_url()}/results/{job}/{expires}/{signature}/{quote(name)}"


# --- Signed links --------------------------------------------------------------------------------


@downloads.get("/results/<uuid:job>/<int:expires>/<signature>/<path:name>")
@answers(media_type=ANY)
def download(job: UUID, expires: int, signature: str, name: str) -> Response:
    """A result file or STAC document for anyone who has the signed link."""
    job_results = results.open_link(backend().config, job, expires, signature)
    document = _find_stac_document(job_results, expires, name)
    if document is not None:
        return document
    asset = job_results.find_asset(name)
    if asset is None:
        raise NotFound
    return _send_result_file(job_results, name, dict(asset), expires)


def _find_stac_document(job_results: Results, expires: int, name: str) -> Response | None:
    href = _make_signed_urls(job_results, expires)
    if name == COLLECTION:
        return jsonify(make_collection(job_results, href, expires))
    if name == ITEMS_TABLE and has_items_table(job_results):
        return _make_items_table(job_results, href, expires)
    folder, _, file = name.partition("/")
    if folder != ITEMS or not file.endswith(".json"):
        return None
    id_ = file.removesuffix(".json")
    is_job_item = id_ == str(job_results.job.id)
    stac_item = (
        make_feature(job_results, href, expires)
        if is_job_item
        else find_item(job_results, id_, href, expires)
    )
    if stac_item is None:
        return None
    response = jsonify(stac_item)
    response.mimetype = GEOJSON
    return response


def _make_items_table(job_results: Results, href: Href, expires: int) -> Response:
    documents = [find_item(job_results, id_, href, expires) for id_ in group_items(job_results)]
    content = run_for_view(encode_items, documents, user=str(job_results.job.user))
    return Response(content, mimetype=PARQUET)


def _send_result_file(job_results: Results, name: str, asset: dict[str, Any], expires: int) -> Response:
    store = get_storage(backend().config)
    key = f"{job_results.folder}/{find_asset_key(asset, name)}"
    try:
        size = store.size(key)
        redirect = None if size is None else _redirect_to_store(store, key, expires)
        if redirect is not None:
            return redirect
        file = store.open(key) if size is not None else _zip_folder(job_results, name)
    except (FileNotFoundError, ValueError) as error:
        raise NotFound from error
    media_type = "application/zip" if size is None else _media_type(asset, name)
    etag = f"{job_results.attempt.hex}-{asset.get('file:checksum', '')[4:20]}-{name}"
    response = make_file_response(file, size if size is not None else _measure_length(file), media_type, etag)
    response.cache_control.private = True
    return response


def _redirect_to_store(store: Storage, key: str, expires: int) -> Response | None:
    """Redirect a download to a signed URL of the store; None if this service is to send the file itself.

    HEAD requests are answered here: signed URLs are valid for one method only.
    """
    if backend().config.storage_links != "store" or request.method != "GET":
        return None
    seconds = min(int(expires - time.time()), REDIRECT_SECONDS)
    url = store.sign_url(key, max(seconds, 1))
    if url is None:
        return None
    response = Response(status=HTTPStatus.TEMPORARY_REDIRECT)
    response.headers["Location"] = url
    response.headers["Referrer-Policy"] = "no-referrer"
    # The URL opens the file for anyone.
    response.cache_control.private = True
    response.cache_control.no_store = True
    return response


def _media_type(asset: dict[str, Any], name: str) -> str:
    if name == asset["name"]:
        return str(asset["type"])
    return "application/json" if name.endswith(".json") else "application/octet-stream"


def _measure_length(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _zip_folder(job_results: Results, name: str) -> IO[bytes]:
    """Pack a folder, such as a Zarr store, into a zip archive."""
    store, top = get_storage(backend().config), f"{job_results.folder}/{name}"
    zip_file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115  (closed when the response is sent)
    with zipfile.ZipFile(zip_file, "w", zipfile.ZIP_STORED) as archive:
        for key in store.walk(top):
            with store.open(key) as source, archive.open(key.removeprefix(f"{top}/"), "w") as sink:
                while block := source.read(COPY_BYTES):
                    sink.write(block)
    zip_file.seek(0)
    return zip_file
