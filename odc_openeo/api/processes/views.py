"""Tag Process Discovery, validation and explanation of process graphs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from flask import Blueprint, Response, current_app, request

from odc_openeo.api.auth import current_user, signed_in, user_if_signed_in
from odc_openeo.api.backend import api_url, make_link
from odc_openeo.api.graph_checks import find_graph_errors
from odc_openeo.api.json_body import read_json_object, read_process
from odc_openeo.api.paging import read_limit
from odc_openeo.api.processes.offered import list_offered_processes
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.errors import ProcessParameterMissing
from odc_openeo.evaluation import explanations
from odc_openeo.registry.process import PROCESSES

blueprint = Blueprint("processes", __name__)

PROCESSES_VERSION: Final = "2.0.0-rc.2"


@blueprint.get("/processes")
def list_processes() -> Response:
    """``GET /processes``: the descriptions of all registered processes, always on one page."""
    # The JavaScript client asks for 50 and takes the first page for the whole list.
    read_limit()
    ids = tuple(list_offered_processes())
    listing = _render_listing(ids, api_url("/processes"), api_url("/"))
    response = Response(listing, mimetype="application/json")
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.post("/validation")
def validate_process() -> dict[str, Any]:
    """``POST /validation``: all errors of a process."""
    user = user_if_signed_in()
    id_ = user.id if user else None
    errors = find_graph_errors(read_json_object(), id_)
    # Process parameters get their values when the process is called, so missing ones are not errors here.
    return {"errors": [e.to_dict() for e in errors if not isinstance(e, ProcessParameterMissing)]}


@blueprint.post("/explain")
@signed_in
def explain_process() -> Any:
    """``POST /explain``: the plan of a process, and a program that gives the same values.

    The body is that of ``POST /result``. Nothing is computed. The answer has the plan as JSON (``plan``), in
    words (``text``) and as a Mermaid flowchart (``diagram``), a Python program for Open Data Cube and xarray
    (``program``), and what the program leaves out (``incomplete``).
    """
    user = str(current_user().id)
    return run_for_view(explanations.explain_process, read_process(read_json_object()), user, user=user)


@lru_cache(maxsize=4)
def _render_listing(ids: tuple[str, ...], self_url: str, root_url: str) -> str:
    # Cached per URL, as describing all processes takes too long for every request.
    processes = [PROCESSES[id_].to_dict() for id_ in ids]
    links = [make_link("self", self_url, "Processes"), make_link("root", root_url, "Capabilities")]
    listing = {"version": PROCESSES_VERSION, "processes": processes, "links": links}
    return current_app.json.dumps(listing)
