"""Tag Capabilities: what this back-end is and can do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, current_app

from odc_openeo import __version__
from odc_openeo.api import openapi, stac
from odc_openeo.api.backend import (
    API_PATH,
    API_VERSION,
    STAC_VERSION,
    api_url,
    backend,
    link,
    root_url,
    web_editor_url,
)
from odc_openeo.formats import file_formats
from odc_openeo.jobs.options import JOB_OPTIONS

blueprint = Blueprint("capabilities", __name__)

PRODUCTION: Final = True
CONFORMS_TO: Final = (
    f"https://api.openeo.org/{API_VERSION}",
    f"https://api.openeo.org/{API_VERSION}/authentication/jwt",
    "https://api.openeo.org/extensions/processing-parameters/0.1.0",
    "https://api.openeo.org/extensions/remote-process-definition/0.1.0",
    *stac.CONFORMS_TO,
    "https://api.openeo.org/extensions/workspaces/0.1.0",
)

KINDS: Final = ("job", "service", "synchronous")
PROCESSING_PARAMETERS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    **dict.fromkeys(KINDS, ()),
    "job": (JOB_OPTIONS,),
}
"""Parameters by what is created, as processes describe theirs."""


@blueprint.get("/")
def capabilities() -> dict[str, Any]:
    """``GET /``: title, versions, endpoints."""
    config = backend().config
    return {
        "api_version": API_VERSION,
        "backend_version": __version__,
        "stac_version": STAC_VERSION,
        "type": "Catalog",
        "id": re.sub(r"[^a-z0-9]+", "-", config.title.lower()).strip("-") or "odc-openeo",
        "title": config.title,
        "description": config.description,
        "conformsTo": list(CONFORMS_TO),
        "production": PRODUCTION,
        "endpoints": endpoints(),
        "links": _links(web_editor_url()),
    }


@blueprint.get("/conformance")
def conformance() -> dict[str, Any]:
    """``GET /conformance``: the standards that are kept to."""
    return {"conformsTo": list(CONFORMS_TO)}


@blueprint.get("/file_formats")
def list_file_formats() -> dict[str, Any]:
    """``GET /file_formats``: what can be written and read."""
    return file_formats()


@blueprint.get("/udf_runtimes")
def udf_runtimes() -> dict[str, Any]:
    """``GET /udf_runtimes``: none, as user-defined functions do not run here."""
    return {}


@blueprint.get("/processing_parameters")
def processing_parameters() -> dict[str, Any]:
    """``GET /processing_parameters``: what may be set for processing beside what the API has for all."""
    return {f"create_{kind}_parameters": list(PROCESSING_PARAMETERS[kind]) for kind in KINDS}


def endpoints() -> list[dict[str, Any]]:
    """Every address of the openEO API with its methods, read from the rules that are served."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for rule in current_app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(API_PATH))
        of_openeo = rule.rule.startswith(API_PATH) and not rule.endpoint.startswith(f"{stac.blueprint.name}.")
        if of_openeo and path != "/":
            methods[path] |= (rule.methods or set()) - {"HEAD", "OPTIONS"}
    return [{"path": path, "methods": sorted(methods[path])} for path in sorted(methods)]


def well_known() -> dict[str, Any]:
    """The versions of the API that are served: one."""
    return {"versions": [{"url": api_url(), "api_version": API_VERSION, "production": PRODUCTION}]}


def _links(editor: str | None) -> list[dict[str, Any]]:
    links = [
        link("self", api_url("/"), "This document"),
        link("root", api_url("/"), "This document"),
        link("about", f"{root_url()}/", "Start page: collections and how to connect", "text/html"),
        link("version-history", f"{root_url()}/.well-known/openeo", "Versions of the API served here"),
        link("conformance", api_url("/conformance"), "Standards that are kept to"),
        link("data", api_url("/collections"), "Collections"),
        *stac.links(),
        link("service-desc", f"{root_url()}/api", "Every address of this server", openapi.MEDIA_TYPE),
        link("service-doc", f"{root_url()}/api.html", "Every address of this server", "text/html"),
    ]
    if editor:
        links.append(link("web-editor", editor, "openEO Web Editor", "text/html"))
    return links
