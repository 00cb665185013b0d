"""Tag Data Processing: synchronous results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, send_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.body import json_object
from odc_openeo.api.request_log import request_id
from odc_openeo.api.runs import run_for_result
from odc_openeo.errors import ProcessInvalid
from odc_openeo.evaluation import synchronous
from odc_openeo.scratch import make_scratch_folder

blueprint = Blueprint("results", __name__)
log = logging.getLogger(__name__)


@blueprint.post("/result")
@signed_in
def compute_result() -> Response:
    """``POST /result``: run a process now, answer with the file it makes."""
    process = _requested_process(json_object())
    with make_scratch_folder(backend().config) as folder:
        user = str(current_user().id)
        path, media_type = run_for_result(synchronous.compute_result, process, user, folder, user=user)
        response = _send(path, media_type)
    response.headers["OpenEO-Identifier"] = request_id()
    return response


def _requested_process(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The process in the body of ``POST /result``; plan and budget have no meaning here and are ignored."""
    process = body.get("process")
    if isinstance(process, Mapping):
        return process
    reason = "the body needs a member 'process', an object that holds 'process_graph'."
    if "process_graph" in body:
        reason = "put 'process_graph' into an object and that into the member 'process' of the body."
    raise ProcessInvalid(reason=reason)


def _send(path: Path, media_type: str) -> Response:
    """Stream a file, which may be deleted once this returns: the open file lives on until it is sent."""
    file = path.open("rb")
    response = send_file(file, media_type, as_attachment=True, download_name=path.name, conditional=False)
    response.content_length = path.stat().st_size
    response.call_on_close(file.close)
    return response
