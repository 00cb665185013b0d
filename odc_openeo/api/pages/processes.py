"""Pages of the processes: a searchable list, and one page per process with its full description."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import Blueprint, Response, abort, request

from odc_openeo.api.pages.html import (
    contains_words,
    read_search_words,
    render_markdown,
    render_page,
    with_error_pages,
)
from odc_openeo.api.pages.schemas import describe_type, list_values
from odc_openeo.api.processes.offered import list_offered_processes
from odc_openeo.registry.process import PROCESSES

blueprint = with_error_pages(Blueprint("process_pages", __name__))


@blueprint.get("/processes")
def process_list() -> Response:
    """The list of processes, optionally filtered by category and words."""
    words, category = read_search_words(), request.args.get("category", "")
    descriptions = {id_: _describe_processes()[id_] for id_ in list_offered_processes()}
    matches = [
        p
        for p in descriptions.values()
        if (not category or category in p["categories"])
        and contains_words(words, p["id"], p["summary"], p["description"])
    ]
    matches.sort(key=lambda p: (not contains_words(words, p["id"]), p["id"]))
    categories = sorted(Counter(c for p in descriptions.values() for c in p["categories"]).items())
    return render_page(
        "processes.html",
        processes=matches,
        count=len(descriptions),
        categories=categories,
        category=category,
        words=words,
    )


@blueprint.get("/processes/<process_id>")
def process(process_id: str) -> Response:
    """The page of a process: parameters, return value and examples."""
    if process_id not in list_offered_processes():
        abort(404)
    description = _describe_processes()[process_id]
    return render_page(
        "process.html",
        process=description,
        description=render_markdown(description["description"]),
        parameters=[_describe_parameter(p) for p in description["parameters"]],
        returns=_describe_value(description["returns"]),
        examples=[_describe_example(process_id, example) for example in description.get("examples", ())],
        exceptions=[(n, render_markdown(e["message"])) for n, e in description.get("exceptions", {}).items()],
        call=_format_json(_make_example_node(description)),
    )


@cache
def _describe_processes() -> dict[str, dict[str, Any]]:
    return {id_: PROCESSES[id_].to_dict() for id_ in sorted(PROCESSES)}


def _describe_parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    document = {
        **_describe_value(parameter),
        "name": parameter["name"],
        "optional": parameter.get("optional", False),
    }
    if "default" in parameter:
        document["default"] = json.dumps(parameter["default"], ensure_ascii=False)
    return {**document, "deprecated": parameter.get("deprecated", False)}


def _describe_value(description: Mapping[str, Any]) -> dict[str, Any]:
    schema = description["schema"]
    return {
        "type": describe_type(schema),
        "values": list_values(schema),
        "description": render_markdown(description["description"]),
        "schema": _format_json(schema),
    }


def _describe_example(id_: str, example: Mapping[str, Any]) -> dict[str, Any]:
    node = {"process_id": id_, "arguments": example["arguments"]}
    returns = _format_json(example["returns"]) if "returns" in example else None
    return {"title": example.get("title"), "call": _format_json(node), "returns": returns}


def _make_example_node(description: Mapping[str, Any]) -> dict[str, Any]:
    """Make a node with placeholders for all required parameters."""
    arguments = {p["name"]: f"<{p['name']}>" for p in description["parameters"] if not p.get("optional")}
    return {"process_id": description["id"], "arguments": arguments}


def _format_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
