"""The OpenAPI document of this server, generated from its routes, docstrings and declarations on views."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.routing import Rule

from odc_openeo import __version__
from odc_openeo.api.account import authenticate_basic
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.pages import html
from odc_openeo.api.query_parameters import PARAMETERS
from odc_openeo.api.view_bodies import ACCEPTED, ANSWER, ANY, HTML, JSON, MULTIPART, Answer, answers

blueprint = Blueprint("openapi", __name__)

VERSION: Final = "3.0.3"
MEDIA_TYPE: Final = "application/vnd.oai.openapi+json;version=3.0"
FORM: Final = "application/x-www-form-urlencoded"
PAGES_PACKAGE: Final = html.__name__.rpartition(".")[0]
METHODS: Final = ("GET", "PUT", "POST", "PATCH", "DELETE")
RULE_PARAMETER: Final = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
"""A path parameter in a URL rule: its converter and name."""

WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})

SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer"},
}
"""JSON Schemas of path parameters by converter; others are strings."""

ERROR: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {name: {"type": "string"} for name in ("id", "code", "message")},
}


@blueprint.get("/api")
@answers(media_type=MEDIA_TYPE)
def document() -> Response:
    """The OpenAPI document of all endpoints."""
    response = jsonify(describe_api())
    response.headers["Content-Type"] = MEDIA_TYPE
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/api.html")
@answers(media_type=HTML)
def page() -> Response:
    """The OpenAPI document as an HTML page."""
    return html.render_page("api.html", described=describe_api())


def describe_api() -> dict[str, Any]:
    """Generate the OpenAPI document."""
    config = backend().config
    rules = sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule)
    paths: dict[str, dict[str, Any]] = {}
    for rule in rules:
        operations = paths.setdefault(_format_path(rule), {})
        operations |= {method.lower(): _describe_operation(rule, method) for method in _list_methods(rule)}
    _make_operation_ids_unique(paths)
    return {
        "openapi": VERSION,
        "info": {"title": config.title, "version": __version__, "description": config.description},
        "servers": [{"url": root_url()}],
        "tags": _describe_tags(rules),
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "responses": {
                "Error": {"description": "An openEO error.", **_make_content(JSON, _make_reference("Error"))}
            },
            "securitySchemes": {
                "Bearer": {"type": "http", "scheme": "bearer"},
                "Basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _make_operation_ids_unique(paths: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Number the ids of operations that are served at several paths."""
    counts: Counter[str] = Counter()
    for operation in (operation for operations in paths.values() for operation in operations.values()):
        counts[operation["operationId"]] += 1
        if (number := counts[operation["operationId"]]) > 1:
            operation["operationId"] += f"_{number}"


def _list_methods(rule: Rule) -> Iterator[str]:
    yield from (method for method in METHODS if method in (rule.methods or ()))


def _format_path(rule: Rule) -> str:
    return RULE_PARAMETER.sub(r"{\2}", rule.rule)


def _get_view(rule: Rule) -> Callable[..., Any]:
    return current_app.view_functions[rule.endpoint]


def _describe_tags(rules: list[Rule]) -> list[dict[str, str]]:
    names = dict.fromkeys(_get_tag(rule) for rule in rules)
    return [{"name": name, "description": _describe_tag(name)} for name in names]


def _get_tag(rule: Rule) -> str:
    return rule.endpoint.rpartition(".")[0] or "static"


def _describe_tag(tag: str) -> str:
    tag_blueprint = current_app.blueprints.get(tag)
    docstring = sys.modules[tag_blueprint.import_name].__doc__ if tag_blueprint is not None else None
    return (docstring or "Files of the pages.").partition("\n")[0]


def _describe_operation(rule: Rule, method: str) -> dict[str, Any]:
    view = _get_view(rule)
    summary, _, more = (view.__doc__ or "").strip().partition("\n\n")
    text = re.sub(r"``(GET|PUT|POST|PATCH|DELETE) [^`]*``[:.]\s*", "", " ".join(summary.split()))
    text = text.replace("``", "`")
    description: dict[str, Any] = {
        "tags": [_get_tag(rule)],
        "operationId": f"{rule.endpoint.replace('.', '_')}_{method.lower()}",
        "summary": text or rule.endpoint.rpartition(".")[2].replace("_", " "),
        "description": " ".join(more.split()),
        "parameters": [*_describe_path_parameters(rule), *_describe_query_parameters(view)],
        "requestBody": _describe_request_body(rule, view) if method in WITH_BODY else None,
        "responses": _describe_responses(rule, view),
        "security": _describe_security(rule, view),
    }
    return {key: value for key, value in description.items() if value not in (None, "")}


def _describe_path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for converter, name in RULE_PARAMETER.findall(rule.rule):
        schema = SCHEMAS.get(converter, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _describe_query_parameters(view: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    for name in getattr(view, "parameters", ()):
        schema, description = PARAMETERS[name]
        style = {"style": "form", "explode": False} if schema["type"] == "array" else {}
        yield {"name": name, "in": "query", "description": description, "schema": schema, **style}


def _describe_request_body(rule: Rule, view: Callable[..., Any]) -> dict[str, Any] | None:
    media_type: str | None = getattr(view, ACCEPTED, FORM if _is_page(rule) else JSON)
    if media_type is None:
        return None
    schema = (
        {"type": "object"}
        if media_type in (JSON, FORM, MULTIPART)
        else {"type": "string", "format": "binary"}
    )
    return {"required": True, **_make_content(media_type, schema)}


def _describe_responses(rule: Rule, view: Callable[..., Any]) -> dict[str, Any]:
    answer: Answer = getattr(view, ANSWER, Answer(200, _get_default_media_type(rule)))
    schemas = {ANY: {"type": "string", "format": "binary"}, HTML: {"type": "string"}}
    response: dict[str, Any] = {"description": "Success, without content."}
    if answer.media_type is not None:
        content = _make_content(answer.media_type, schemas.get(answer.media_type, {"type": "object"}))
        response = {"description": "Success.", **content}
    return {str(answer.status): response, "default": {"$ref": "#/components/responses/Error"}}


def _describe_security(rule: Rule, view: Callable[..., Any]) -> list[dict[str, list[str]]]:
    if view is authenticate_basic:
        return [{"Basic": []}]
    return [{"Bearer": []}] if getattr(view, "signed_in", False) else [{}]


def _get_default_media_type(rule: Rule) -> str:
    if rule.endpoint == "static":
        return ANY
    return HTML if _is_page(rule) else JSON


def _is_page(rule: Rule) -> bool:
    tag_blueprint = current_app.blueprints.get(_get_tag(rule))
    return tag_blueprint is not None and tag_blueprint.import_name.startswith(PAGES_PACKAGE)


def _make_content(media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def _make_reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
