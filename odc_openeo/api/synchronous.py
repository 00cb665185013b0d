"""Tag Data Processing: synchronous processing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, send_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.json_body import read_json_object
from odc_openeo.api.middleware.request_log import request_id
from odc_openeo.api.runner_calls import run_for_result
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.errors import ProcessInvalid
from odc_openeo.evaluation import synchronous
from odc_openeo.scratch_folders import make_scratch_folder

blueprint = Blueprint("results", __name__)
log = logging.getLogger(__name__)

MOST_WARNINGS: Final = 10
LONGEST_WARNING: Final = 500


@blueprint.post("/result")
@answers(media_type=ANY)
@signed_in
def compute_result() -> Response:
    """``POST /result``: evaluate a process synchronously and return its result as a file."""
    process = _read_process(read_json_object())
    with make_scratch_folder(backend().config) as folder:
        user = str(current_user().id)
        path, media_type, warnings = run_for_result(
            synchronous.compute_result, process, user, folder, user=user
        )
        response = _stream_file(path, media_type)
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


def _read_process(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the process from the body of ``POST /result``; plan and budget are ignored."""
    process = body.get("process")
    if isinstance(process, Mapping):
        return process
    reason = "the body must have a member 'process', an object that contains 'process_graph'."
    if "process_graph" in body:
        reason = "'process_graph' must be a member of the object 'process', not of the body itself."
    raise ProcessInvalid(reason=reason)


def _stream_file(path: Path, media_type: str) -> Response:
    """Stream a file, which may be deleted once this returns: it stays open until it has been sent."""
    file = path.open("rb")
    response = send_file(file, media_type, as_attachment=True, download_name=path.name, conditional=False)
    response.content_length = path.stat().st_size
    response.call_on_close(file.close)
    return response
