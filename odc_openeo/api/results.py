"""Tag Data Processing: synchronous results."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from flask import Blueprint, Response, send_file

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.body import json_object
from odc_openeo.api.request_log import request_id
from odc_openeo.api.synchronous import requested_process, run

blueprint = Blueprint("results", __name__)
log = logging.getLogger(__name__)


@blueprint.post("/result")
@signed_in
def compute_result() -> Response:
    """``POST /result``: run a process now, answer with the file it makes."""
    process = requested_process(json_object())
    with tempfile.TemporaryDirectory(prefix="odc-openeo-result-") as folder:
        path, media_type = run(backend(), process, str(current_user().id), Path(folder))
        response = _send(path, media_type)
    response.headers["OpenEO-Identifier"] = request_id()
    return response


def _send(path: Path, media_type: str) -> Response:
    """Stream a file, which may be deleted once this returns: the open file lives on until it is sent."""
    file = path.open("rb")
    response = send_file(file, mimetype=media_type, as_attachment=True, download_name=path.name)
    response.content_length = path.stat().st_size
    response.call_on_close(file.close)
    return response
