"""The pages of the signed-in user's secondary web services: a list, and one page per service."""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend
from odc_openeo.api.jobs.documents import log_entry_to_dict
from odc_openeo.api.pages.forms import for_users, get_visitor, render_private_page
from odc_openeo.api.pages.html import make_page_path, render_markdown, with_error_pages
from odc_openeo.api.pages.locator import DegreeBox, make_close_up
from odc_openeo.api.services.documents import service_to_dict
from odc_openeo.api.services.tiles import get_tiles
from odc_openeo.errors import NotFound
from odc_openeo.services import store

blueprint = with_error_pages(Blueprint("my_services", __name__, url_prefix="/my"))

PAGE_SIZE: Final = 50
LOG_PAGE_SIZE: Final = 50
SWITCHES: Final = {"enable": True, "disable": False}


@blueprint.get("/services")
@for_users
def service_list() -> Response:
    """The list of the user's services, newest first."""
    page = store.list_services(
        backend().config, get_visitor().id, PAGE_SIZE, request.args.get("after") or None
    )
    return render_private_page("services.html", services=page.items, next=page.next)


@blueprint.get("/services/<service_id>")
@for_users
def service(service_id: str) -> Response:
    """The page of a service: its address, what it covers, usage and logs."""
    config = backend().config
    web_service = store.get_service(config, get_visitor().id, service_id)
    document = service_to_dict(web_service, get_tiles().get_footprint(web_service))
    get_tiles().meter.flush()
    bounds = document["attributes"].get("bounds")
    box = DegreeBox(*bounds) if bounds else None
    return render_private_page(
        "service.html",
        service=document,
        description=render_markdown(web_service.draft.description or ""),
        public=web_service.public,
        settings={
            name: _describe_setting(setting) for name, setting in web_service.draft.configuration.items()
        },
        map={"box": box, "close_up": make_close_up(box) if box else None, "title": "The service"},
        process=json.dumps(web_service.draft.process, indent=2, ensure_ascii=False),
        logs=[
            log_entry_to_dict(entry)
            for entry in store.list_logs(config, web_service, "info", LOG_PAGE_SIZE, None).items
        ],
    )


def _describe_setting(setting: Any) -> str:
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, list):
        return " to ".join(map(str, setting)) if len(setting) == 2 else ", ".join(map(str, setting))
    return str(setting) if isinstance(setting, str | int | float) else json.dumps(setting, ensure_ascii=False)


@blueprint.post("/services/<service_id>/<action>")
@for_users
def act(service_id: str, action: str) -> AnyResponse:
    """Enable, disable or delete a service."""
    config, user = backend().config, get_visitor().id
    if action == "delete":
        store.delete_service(config, user, service_id)
        return redirect(make_page_path("my_services.service_list"), 303)
    if action not in SWITCHES:
        raise NotFound
    store.update_service(config, user, service_id, {"enabled": SWITCHES[action]})
    return redirect(make_page_path("my_services.service", service_id=service_id), 303)
