"""The pages of the processes that the signed-in user has stored: a list, and one page per process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import make_page_path, render_markdown, with_error_pages
from odc_openeo.api.pages.schemas import describe_type
from odc_openeo.user_data import user_defined_processes

blueprint = with_error_pages(Blueprint("my_processes", __name__, url_prefix="/my"))

PAGE_SIZE: Final = 100


@blueprint.get("/processes")
@for_users
def process_list() -> Response:
    """The list of the user's processes, by id."""
    page = user_defined_processes.list_processes(
        backend().config, get_visitor().id, PAGE_SIZE, request.args.get("after") or None
    )
    return render_private_page("my_processes.html", processes=page.items, next=page.next)


@blueprint.get("/processes/<process_graph_id>")
@for_users
def process(process_graph_id: str) -> Response:
    """The page of a process: parameters, process graph, public address."""
    stored = user_defined_processes.get_process(backend().config, get_visitor().id, process_graph_id)
    public_url = f"{root_url()}{user_defined_processes.SHARED}/{stored.share}" if stored.public else None
    return render_private_page(
        "my_process.html",
        id=stored.id,
        summary=stored.process.get("summary"),
        description=render_markdown(stored.process.get("description") or ""),
        parameters=[_describe_parameter(p) for p in stored.process.get("parameters") or ()],
        updated=stored.updated,
        public_url=public_url,
        graph=json.dumps(stored.process.get("process_graph"), indent=2, ensure_ascii=False),
    )


@blueprint.post("/processes/<process_graph_id>/delete")
@for_users
def delete(process_graph_id: str) -> AnyResponse:
    """Delete a process."""
    user_defined_processes.delete_process(backend().config, get_visitor().id, process_graph_id)
    return redirect(make_page_path("my_processes.process_list"), 303)


def _describe_parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter.get("name"),
        "type": _describe_user_type(parameter.get("schema") or {}),
        "optional": bool(parameter.get("optional")),
        "default": json.dumps(parameter["default"], ensure_ascii=False) if "default" in parameter else None,
        "description": render_markdown(parameter.get("description") or ""),
    }


def _describe_user_type(schema: Any) -> str:
    """Describe a type; schemas of users may be of forms that those of this service never have."""
    try:
        return describe_type(schema)
    except (AttributeError, KeyError, TypeError):
        return "any"
