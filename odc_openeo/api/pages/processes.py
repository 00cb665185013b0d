"""Pages of the processes: a list to search, and one for each with all that the API says about it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import Blueprint, Response, abort, request

from odc_openeo.api.pages.html import found, markdown, page, query, shows_errors
from odc_openeo.api.pages.schemas import type_text, values_text
from odc_openeo.process import PROCESSES

blueprint = shows_errors(Blueprint("process_pages", __name__))


@blueprint.get("/processes")
def process_list() -> Response:
    """All processes, or those of a category that hold some words."""
    words, category = query(), request.args.get("category", "")
    all_ = _descriptions()
    shown = [
        p
        for p in all_.values()
        if (not category or category in p["categories"])
        and found(words, p["id"], p["summary"], p["description"])
    ]
    shown.sort(key=lambda p: (not found(words, p["id"]), p["id"]))
    categories = sorted(Counter(c for p in all_.values() for c in p["categories"]).items())
    return page(
        "processes.html",
        processes=shown,
        count=len(all_),
        categories=categories,
        category=category,
        words=words,
    )


@blueprint.get("/processes/<process_id>")
def process(process_id: str) -> Response:
    """What a process does, takes and gives, with examples."""
    described = _descriptions().get(process_id)
    if described is None:
        abort(404)
    return page(
        "process.html",
        process=described,
        description=markdown(described["description"]),
        parameters=[_parameter(p) for p in described["parameters"]],
        returns=_value(described["returns"]),
        examples=[_example(process_id, each) for each in described.get("examples", ())],
        exceptions=[(n, markdown(e["message"])) for n, e in described.get("exceptions", {}).items()],
        call=_pretty(_call(described)),
    )


@cache
def _descriptions() -> dict[str, dict[str, Any]]:
    return {id_: PROCESSES[id_].to_dict() for id_ in sorted(PROCESSES)}


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    shown = {**_value(parameter), "name": parameter["name"], "optional": parameter.get("optional", False)}
    if "default" in parameter:
        shown["default"] = json.dumps(parameter["default"], ensure_ascii=False)
    return {**shown, "deprecated": parameter.get("deprecated", False)}


def _value(described: Mapping[str, Any]) -> dict[str, Any]:
    schema = described["schema"]
    return {
        "type": type_text(schema),
        "values": values_text(schema),
        "description": markdown(described["description"]),
        "schema": _pretty(schema),
    }


def _example(id_: str, example: Mapping[str, Any]) -> dict[str, Any]:
    node = {"process_id": id_, "arguments": example["arguments"]}
    returns = _pretty(example["returns"]) if "returns" in example else None
    return {"title": example.get("title"), "call": _pretty(node), "returns": returns}


def _call(described: Mapping[str, Any]) -> dict[str, Any]:
    """A node with all parameters that must be given."""
    arguments = {p["name"]: f"<{p['name']}>" for p in described["parameters"] if not p.get("optional")}
    return {"process_id": described["id"], "arguments": arguments}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
