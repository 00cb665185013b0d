"""Tag Capabilities: description, conformance and endpoints of this back-end."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, current_app

from odc_openeo import __version__
from odc_openeo.api import openapi
from odc_openeo.api.backend import (
    API_PATH,
    API_VERSION,
    api_url,
    backend,
    make_link,
    root_url,
    web_editor_url,
)
from odc_openeo.api.processes.offered import get_runtimes, offers_user_functions
from odc_openeo.api.stac import views
from odc_openeo.catalog.stac_documents import STAC_VERSION
from odc_openeo.formats import describe_formats
from odc_openeo.jobs.options import JOB_OPTIONS, UDF_OPTIONS

blueprint = Blueprint("capabilities", __name__)

PRODUCTION: Final = True
CONFORMS_TO: Final = (
    f"https://api.openeo.org/{API_VERSION}",
    f"https://api.openeo.org/{API_VERSION}/authentication/jwt",
    "https://api.openeo.org/extensions/processing-parameters/0.1.0",
    "https://api.openeo.org/extensions/remote-process-definition/0.1.0",
    *views.CONFORMS_TO,
    "https://api.openeo.org/extensions/workspaces/0.1.0",
)

KINDS: Final = ("job", "service", "synchronous")
PROCESSING_PARAMETERS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    **dict.fromkeys(KINDS, (UDF_OPTIONS,)),
    "job": (JOB_OPTIONS,),
}
"""Additional processing parameters by kind of resource, described like process parameters."""


@blueprint.get("/")
def capabilities() -> dict[str, Any]:
    """``GET /``: title, versions and endpoints of this back-end."""
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
        "endpoints": list_endpoints(),
        "links": _make_links(web_editor_url()),
    }


@blueprint.get("/conformance")
def conformance() -> dict[str, Any]:
    """``GET /conformance``: the conformance classes implemented here."""
    return {"conformsTo": list(CONFORMS_TO)}


@blueprint.get("/file_formats")
def list_file_formats() -> dict[str, Any]:
    """``GET /file_formats``: the supported input and output formats."""
    return describe_formats()


@blueprint.get("/udf_runtimes")
def udf_runtimes() -> dict[str, Any]:
    """``GET /udf_runtimes``: the runtimes of user-defined functions; not listed as endpoint without any."""
    return get_runtimes()


@blueprint.get("/processing_parameters")
def processing_parameters() -> dict[str, Any]:
    """``GET /processing_parameters``: processing parameters in addition to those of the API."""
    return {f"create_{kind}_parameters": list(PROCESSING_PARAMETERS[kind]) for kind in KINDS}


def list_endpoints() -> list[dict[str, Any]]:
    """List the openEO endpoints with their methods, derived from the registered URL rules."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    unsupported = () if offers_user_functions() else ("/udf_runtimes",)
    for rule in current_app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(API_PATH))
        is_stac = rule.endpoint.startswith(f"{views.blueprint.name}.")
        if rule.rule.startswith(API_PATH) and not is_stac and path not in ("/", *unsupported):
            methods[path] |= (rule.methods or set()) - {"HEAD", "OPTIONS"}
    return [{"path": path, "methods": sorted(methods[path])} for path in sorted(methods)]


def describe_versions() -> dict[str, Any]:
    """Describe the API versions served here; there is exactly one."""
    return {"versions": [{"url": api_url(), "api_version": API_VERSION, "production": PRODUCTION}]}


def _make_links(editor: str | None) -> list[dict[str, Any]]:
    links = [
        make_link("self", api_url("/"), "This document"),
        make_link("root", api_url("/"), "Root of this API"),
        make_link("about", f"{root_url()}/", "Start page: collections and how to connect", "text/html"),
        make_link("version-history", f"{root_url()}/.well-known/openeo", "API versions served here"),
        make_link("conformance", api_url("/conformance"), "Conformance classes"),
        make_link("data", api_url("/collections"), "Collections"),
        *views.make_landing_links(),
        make_link("service-desc", f"{root_url()}/api", "OpenAPI document of this server", openapi.MEDIA_TYPE),
        make_link("service-doc", f"{root_url()}/api.html", "API documentation of this server", "text/html"),
    ]
    if editor:
        links.append(make_link("web-editor", editor, "openEO Web Editor", "text/html"))
    return links
