"""This server's own OpenAPI document, made of its routes, their docstrings and declared parameters."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.routing import Rule

from odc_openeo import __version__
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.pages import html
from odc_openeo.api.parameters import PARAMETERS

blueprint = Blueprint("openapi", __name__)

VERSION: Final = "3.0.3"
MEDIA_TYPE: Final = "application/vnd.oai.openapi+json;version=3.0"
JSON: Final = "application/json"
GEOJSON: Final = "application/geo+json"
HTML: Final = "text/html"
FORM: Final = "application/x-www-form-urlencoded"
ANY: Final = "*/*"
PAGES: Final = html.__name__.rpartition(".")[0]
METHODS: Final = ("GET", "PUT", "POST", "PATCH", "DELETE")
PART: Final = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
"""A parameter in a rule: its converter and its name."""

WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})

TILE_VIEWS: Final = (
    *("entry", "legend_picture", "wmts_capabilities", "wmts_tile", "wmts_tile_of_time", "xyz_tile"),
)
"""Views that answer pictures or XML."""

ANSWERS: Final[Mapping[str, tuple[int, str | None]]] = {
    "account.describe_account": (200, JSON),
    "assets.download": (200, ANY),
    "collections.delete_collection": (204, None),
    "collections.list_queryables": (200, "application/schema+json"),
    "downloads.download": (200, ANY),
    "files.delete_file": (204, None),
    "files.download_file": (200, ANY),
    "job_results.list_results": (200, JSON),
    "jobs.create_job": (201, None),
    "jobs.delete_job": (204, None),
    "jobs.start_job": (202, None),
    "jobs.stop_job": (204, None),
    "jobs.update_job": (204, None),
    "openapi.document": (200, MEDIA_TYPE),
    "openapi.page": (200, HTML),
    "pages.health": (200, JSON),
    "pages.well_known": (200, JSON),
    "process_graphs.delete_process": (204, None),
    "process_graphs.store_process": (200, None),
    "results.compute_result": (200, ANY),
    **{f"{name}service_tiles.{view}": (200, ANY) for name in ("", "signed_") for view in TILE_VIEWS},
    "services.create_service": (201, None),
    "services.delete_service": (204, None),
    "services.update_service": (204, None),
    "stac.describe_item": (200, GEOJSON),
    "stac.list_item_queryables": (200, "application/schema+json"),
    "stac.list_items": (200, GEOJSON),
    "stac.search": (200, GEOJSON),
    "stac.search_by_body": (200, GEOJSON),
    "static": (200, ANY),
    "workspaces.create_workspace": (201, None),
    "workspaces.delete_workspace": (204, None),
    "workspaces.download_workspace_file": (200, ANY),
    "workspaces.update_workspace": (204, None),
}
"""Status and media type of what views answer; others answer JSON, or pages, with status 200."""

BODILESS: Final = frozenset({"jobs.start_job"})
BODIES: Final = {"files.upload_file": "application/octet-stream"}
"""Media types of request bodies that are no JSON."""

SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer"},
}
"""JSON Schema of a part of a path by its converter; others are strings."""

ERROR: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {name: {"type": "string"} for name in ("id", "code", "message")},
}


@blueprint.get("/api")
def document() -> Response:
    """This description of all addresses."""
    response = jsonify(describe())
    response.headers["Content-Type"] = MEDIA_TYPE
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/api.html")
def page() -> Response:
    """The description of all addresses as a page for people."""
    return html.page("api.html", described=describe())


def describe() -> dict[str, Any]:
    """The OpenAPI document."""
    config = backend().config
    rules = sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule)
    paths: dict[str, dict[str, Any]] = {}
    for rule in rules:
        operations = paths.setdefault(_path(rule), {})
        operations |= {method.lower(): _operation(rule, method) for method in _methods(rule)}
    _number_again(paths)
    return {
        "openapi": VERSION,
        "info": {"title": config.title, "version": __version__, "description": config.description},
        "servers": [{"url": root_url()}],
        "tags": _tags(rules),
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "responses": {
                "Error": {"description": "An openEO error.", **_content(JSON, _reference("Error"))}
            },
            "securitySchemes": {
                "Bearer": {"type": "http", "scheme": "bearer"},
                "Basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _number_again(paths: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Number the ids of operations that have several addresses."""
    seen: Counter[str] = Counter()
    for operation in (each for operations in paths.values() for each in operations.values()):
        seen[operation["operationId"]] += 1
        if (number := seen[operation["operationId"]]) > 1:
            operation["operationId"] += f"_{number}"


def _methods(rule: Rule) -> Iterator[str]:
    yield from (method for method in METHODS if method in (rule.methods or ()))


def _path(rule: Rule) -> str:
    return PART.sub(r"{\2}", rule.rule)


def _view(rule: Rule) -> Callable[..., Any]:
    return current_app.view_functions[rule.endpoint]


def _tags(rules: list[Rule]) -> list[dict[str, str]]:
    names = dict.fromkeys(_tag(rule) for rule in rules)
    return [{"name": name, "description": _about(name)} for name in names]


def _tag(rule: Rule) -> str:
    return rule.endpoint.rpartition(".")[0] or "static"


def _about(tag: str) -> str:
    found = current_app.blueprints.get(tag)
    told = sys.modules[found.import_name].__doc__ if found is not None else None
    return (told or "Files of the pages.").partition("\n")[0]


def _operation(rule: Rule, method: str) -> dict[str, Any]:
    view = _view(rule)
    summary, _, more = (view.__doc__ or "").strip().partition("\n\n")
    told = re.sub(r"``(GET|PUT|POST|PATCH|DELETE) [^`]*``[:.]\s*", "", " ".join(summary.split()))
    told = told.replace("``", "`")
    described: dict[str, Any] = {
        "tags": [_tag(rule)],
        "operationId": f"{rule.endpoint.replace('.', '_')}_{method.lower()}",
        "summary": told or rule.endpoint.rpartition(".")[2].replace("_", " "),
        "description": " ".join(more.split()),
        "parameters": [*_path_parameters(rule), *_query_parameters(view)],
        "requestBody": _body(rule)
        if method in WITH_BODY and not rule.endpoint.endswith("start_job")
        else None,
        "responses": _responses(rule),
        "security": _security(rule, view),
    }
    return {key: value for key, value in described.items() if value not in (None, "")}


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for converter, name in PART.findall(rule.rule):
        schema = SCHEMAS.get(converter, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(view: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    for name in getattr(view, "parameters", ()):
        schema, description = PARAMETERS[name]
        style = {"style": "form", "explode": False} if schema["type"] == "array" else {}
        yield {"name": name, "in": "query", "description": description, "schema": schema, **style}


def _body(rule: Rule) -> dict[str, Any]:
    type_ = BODIES.get(rule.endpoint, FORM if _is_page(rule) else JSON)
    schema = {"type": "object"} if type_ in (JSON, FORM) else {"type": "string", "format": "binary"}
    return {"required": True, **_content(type_, schema)}


def _responses(rule: Rule) -> dict[str, Any]:
    status, type_ = ANSWERS.get(rule.endpoint, (200, _usual_type(rule)))
    schemas = {ANY: {"type": "string", "format": "binary"}, HTML: {"type": "string"}}
    content = {} if type_ is None else _content(type_, schemas.get(type_, {"type": "object"}))
    answer = {"description": "Done." if type_ is None else "What was asked for.", **content}
    return {str(status): answer, "default": {"$ref": "#/components/responses/Error"}}


def _security(rule: Rule, view: Callable[..., Any]) -> list[dict[str, list[str]]]:
    if rule.endpoint.endswith("authenticate_basic"):
        return [{"Basic": []}]
    return [{"Bearer": []}] if getattr(view, "signed_in", False) else [{}]


def _usual_type(rule: Rule) -> str:
    if _tag(rule).endswith("service_tiles"):
        return ANY
    return HTML if _is_page(rule) else JSON


def _is_page(rule: Rule) -> bool:
    found = current_app.blueprints.get(_tag(rule))
    return found is not None and found.import_name.startswith(PAGES)


def _content(type_: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {type_: {"schema": schema}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
