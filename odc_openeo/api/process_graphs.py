"""Tag User-Defined Processes: store, list, show and delete them; public ones for everybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from flask import Blueprint, Response, request

from odc_openeo import stored
from odc_openeo.api.auth import current_user, signed_in
from odc_openeo.api.backend import backend, link, root_url
from odc_openeo.api.body import json_object
from odc_openeo.api.job_documents import limit_argument, page_links
from odc_openeo.api.parameters import takes
from odc_openeo.api.process_documents import check_process
from odc_openeo.api.runs import run_for_view
from odc_openeo.errors import RequestInvalid
from odc_openeo.evaluation.stored_processes import check_stored_process
from odc_openeo.stored import Stored

blueprint = Blueprint("process_graphs", __name__)
public = Blueprint("public_processes", __name__)

LISTED: Final = (
    "summary",
    "description",
    "categories",
    "parameters",
    "returns",
    "deprecated",
    "experimental",
)
LONGEST_ID: Final = 200


@blueprint.get("/process_graphs")
@takes("limit", "after")
@signed_in
def list_processes() -> dict[str, Any]:
    """``GET /process_graphs``: the user's processes by id, without their graphs."""
    limit = limit_argument()
    page = stored.list_stored(backend().config, current_user().id, limit, request.args.get("after") or None)
    return {
        "processes": [_short(each) for each in page.items],
        "links": page_links("/process_graphs", page.next, limit=limit),
    }


@blueprint.get("/process_graphs/<process_graph_id>")
@signed_in
def describe_process(process_graph_id: str) -> dict[str, Any]:
    """``GET /process_graphs/{process_graph_id}``: all of a process."""
    return _full(stored.get(backend().config, current_user().id, process_graph_id))


@blueprint.put("/process_graphs/<process_graph_id>")
@signed_in
def store_process(process_graph_id: str) -> Response:
    """``PUT /process_graphs/{process_graph_id}``: store or replace a process."""
    body = json_object()
    _check(process_graph_id, body, current_user().id)
    process = {name: value for name, value in body.items() if name not in ("id", "public")}
    shared = body.get("public") is True
    stored.save(backend().config, current_user().id, process_graph_id, process, public=shared)
    return Response(status=200)


@blueprint.delete("/process_graphs/<process_graph_id>")
@signed_in
def delete_process(process_graph_id: str) -> Response:
    """``DELETE /process_graphs/{process_graph_id}``: forget a process."""
    stored.delete(backend().config, current_user().id, process_graph_id)
    return Response(status=204)


@public.get(f"{stored.SHARED}/<uuid:share>")
def shared_process(share: UUID) -> dict[str, Any]:
    """A public process for everybody: its address can be the namespace in graphs, here and elsewhere."""
    return _full(stored.shared(backend().config, str(share)))


def _check(id_: str, body: Mapping[str, Any], user: UUID) -> None:
    if not re.fullmatch(r"\w+", id_, re.ASCII) or len(id_) > LONGEST_ID:
        raise RequestInvalid(reason="ids of processes have letters, digits and underscores, at most 200.")
    check_process(body)
    run_for_view(check_stored_process, user, id_, body, user=str(user))


def _short(process: Stored) -> dict[str, Any]:
    told = {name: process.process[name] for name in LISTED if process.process.get(name) is not None}
    return {"id": process.id, **told, "public": process.public}


def _full(process: Stored) -> dict[str, Any]:
    told = {name: value for name, value in process.process.items() if value is not None}
    given = told.get("links")
    links = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    if process.public:
        address = f"{root_url()}{stored.SHARED}/{process.share}"
        links = [*(each for each in links if each.get("rel") != "canonical"), _canonical(address)]
    return {**told, "id": process.id, "public": process.public, "links": links}


def _canonical(address: str) -> dict[str, Any]:
    return link("canonical", address, "For everybody: the namespace of this process in graphs")
