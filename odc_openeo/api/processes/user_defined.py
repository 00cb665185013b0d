"""Tag User-Defined Processes: store, list, describe and delete processes; public ones are shared."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from flask import Blueprint, Response, request

from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend, make_link, root_url
from odc_openeo.api.json_body import read_json_object
from odc_openeo.api.paging import make_page_links, read_limit
from odc_openeo.api.processes.schemas import parse_process
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.api.view_bodies import answers
from odc_openeo.errors import ProcessGraphInvalid, RequestInvalid
from odc_openeo.evaluation.stored_processes import check_stored_process
from odc_openeo.user_data import user_defined_processes
from odc_openeo.user_data.user_defined_processes import UserDefinedProcess

blueprint = Blueprint("process_graphs", __name__)
public = Blueprint("public_processes", __name__)

LISTED_MEMBERS: Final = (
    "summary",
    "description",
    "categories",
    "parameters",
    "returns",
    "deprecated",
    "experimental",
)
MAX_ID_LENGTH: Final = 200


@blueprint.get("/process_graphs")
@takes("limit", "after")
@signed_in
def list_processes() -> dict[str, Any]:
    """``GET /process_graphs``: the user's processes, ordered by id, without their graphs."""
    limit = read_limit()
    page = user_defined_processes.list_processes(
        backend().config, current_user().id, limit, request.args.get("after") or None
    )
    return {
        "processes": [_summary_to_dict(process) for process in page.items],
        "links": make_page_links("/process_graphs", page.next, limit=limit),
    }


@blueprint.get("/process_graphs/<process_graph_id>")
@signed_in
def describe_process(process_graph_id: str) -> dict[str, Any]:
    """``GET /process_graphs/{process_graph_id}``: the full description of a process."""
    return _process_to_dict(
        user_defined_processes.get_process(backend().config, current_user().id, process_graph_id)
    )


@blueprint.put("/process_graphs/<process_graph_id>")
@answers()
@signed_in
def store_process(process_graph_id: str) -> Response:
    """``PUT /process_graphs/{process_graph_id}``: store or replace a process."""
    body = _read_process(process_graph_id, current_user().id)
    process = {name: value for name, value in body.items() if name not in ("id", "public")}
    shared = body.get("public") is True
    user_defined_processes.save_process(
        backend().config, current_user().id, process_graph_id, process, public=shared
    )
    return Response(status=200)


@blueprint.delete("/process_graphs/<process_graph_id>")
@answers(204)
@signed_in
def delete_process(process_graph_id: str) -> Response:
    """``DELETE /process_graphs/{process_graph_id}``: delete a process."""
    user_defined_processes.delete_process(backend().config, current_user().id, process_graph_id)
    return Response(status=204)


@public.get(f"{user_defined_processes.SHARED}/<uuid:share>")
def shared_process(share: UUID) -> dict[str, Any]:
    """A public process: its URL can be used as the namespace in process graphs, here and elsewhere."""
    return _process_to_dict(user_defined_processes.get_shared_process(backend().config, str(share)))


def _read_process(id_: str, user: UUID) -> dict[str, Any]:
    """Read the process of the request body, which is to be stored for a user."""
    if not re.fullmatch(r"\w+", id_, re.ASCII) or len(id_) > MAX_ID_LENGTH:
        raise RequestInvalid(
            reason=f"a process id must consist of at most {MAX_ID_LENGTH} letters, digits and underscores."
        )
    process = parse_process(read_json_object())
    if not process["process_graph"]:
        raise ProcessGraphInvalid(reason="it has no node.")
    run_for_view(check_stored_process, user, id_, process, user=str(user))
    return process


def _summary_to_dict(process: UserDefinedProcess) -> dict[str, Any]:
    members = {
        name: process.process[name] for name in LISTED_MEMBERS if process.process.get(name) is not None
    }
    return {"id": process.id, **members, "public": process.public}


def _process_to_dict(process: UserDefinedProcess) -> dict[str, Any]:
    members = {name: value for name, value in process.process.items() if value is not None}
    stored_links = members.get("links")
    links = stored_links if isinstance(stored_links, list) else []
    links = [stored_link for stored_link in links if isinstance(stored_link, dict)]
    if process.public:
        url = f"{root_url()}{user_defined_processes.SHARED}/{process.share}"
        links = [stored_link for stored_link in links if stored_link.get("rel") != "canonical"]
        links.append(_make_canonical_link(url))
    return {**members, "id": process.id, "public": process.public, "links": links}


def _make_canonical_link(url: str) -> dict[str, Any]:
    return make_link("canonical", url, "Public URL, to be used as the namespace of this process")
