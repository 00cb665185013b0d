"""Tag Data Processing: synchronous processing."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Final

from flask import Blueprint, Response, send_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.json_body import read_json_object, read_process
from odc_openeo.api.middleware.request_log import request_id
from odc_openeo.api.runner_calls import run_for_result
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.evaluation import synchronous
from odc_openeo.formats import Download
from odc_openeo.jobs.options import parse_archives
from odc_openeo.storage.scratch_folders import make_scratch_folder

blueprint = Blueprint("results", __name__)
log = logging.getLogger(__name__)

MOST_WARNINGS: Final = 10
LONGEST_WARNING: Final = 500


@blueprint.post("/result")
@answers(media_type=ANY)
@signed_in
def compute_result() -> Response:
    """``POST /result``: evaluate a process synchronously and return its result as a file."""
    body = read_json_object()
    process, archives = read_process(body), parse_archives(body)
    with ExitStack() as stack:
        folder = stack.enter_context(make_scratch_folder(backend().config))
        user = str(current_user().id)
        download, warnings = run_for_result(
            synchronous.compute_result, process, user, folder, archives, user=user
        )
        response = _stream_archive(download) if download.is_archive else _stream_file(download)
        # The files are needed until they are sent.
        response.call_on_close(stack.pop_all().close)
    response.headers["OpenEO-Identifier"] = request_id()
    for warning in warnings[:MOST_WARNINGS]:
        log.info("warning to the client: %s", warning)
        response.headers.add("Warning", format_warning(warning))
    return response


def format_warning(text: str) -> str:
    """Write a warning as the value of the HTTP header ``Warning`` (RFC 7234): printable ASCII in quotes."""
    ascii_text = "".join(c if " " <= c <= "~" else "?" for c in text[:LONGEST_WARNING])
    quoted = ascii_text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'


def _stream_file(download: Download) -> Response:
    (path,) = download.files.values()
    file = path.open("rb")
    response = send_file(
        file, download.media_type, as_attachment=True, download_name=download.name, conditional=False
    )
    response.content_length = path.stat().st_size
    response.call_on_close(file.close)
    return response


def _stream_archive(download: Download) -> Response:
    archive = download.open_archive()
    response = Response(archive, mimetype=download.media_type)
    response.headers.set("Content-Disposition", "attachment", filename=download.name)
    response.content_length = len(archive)
    return response
