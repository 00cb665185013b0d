"""Tag Process Discovery, and the validation of process graphs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from flask import Blueprint, Response, current_app, request

from odc_openeo.api.auth import user_if_signed_in
from odc_openeo.api.backend import api_url, backend, link
from odc_openeo.api.body import json_object
from odc_openeo.api.job_documents import limit_argument
from odc_openeo.errors import ProcessParameterMissing
from odc_openeo.graph import Limits, validate
from odc_openeo.process import PROCESSES
from odc_openeo.stored import Library

blueprint = Blueprint("processes", __name__)

PROCESSES_VERSION: Final = "2.0.0-rc.2"


@blueprint.get("/processes")
def list_processes() -> Response:
    """``GET /processes``: the description of every registered process, always in one page."""
    # The JavaScript client asks for 50 and takes the first page for all there is.
    limit_argument()
    response = Response(_listing(api_url("/processes"), api_url("/")), mimetype="application/json")
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.post("/validation")
def validate_process() -> dict[str, Any]:
    """``POST /validation``: all errors of a process."""
    config = backend().config
    limits = Limits(nodes=config.max_graph_nodes, depth=config.max_graph_depth)
    user = user_if_signed_in()
    library = Library(config, user.id if user else None)
    errors = validate(json_object(), limits=limits, lookup=library)
    # Parameters that get their values only when the process is called are no errors here.
    return {"errors": [e.to_dict() for e in errors if not isinstance(e, ProcessParameterMissing)]}


@lru_cache(maxsize=4)
def _listing(self_url: str, root_url: str) -> str:
    # Cached for each address, as describing all processes takes far longer than a request should.
    processes = [PROCESSES[id_].to_dict() for id_ in sorted(PROCESSES)]
    links = [link("self", self_url, "Processes"), link("root", root_url, "Capabilities")]
    listing = {"version": PROCESSES_VERSION, "processes": processes, "links": links}
    return current_app.json.dumps(listing)
