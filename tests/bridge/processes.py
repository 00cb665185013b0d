"""The processes of what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openeo_xarray.accessor  # noqa: F401  (registers .openeo)


def list_processes(data: Any) -> list[str]:
    """The processes of the graph, without the children and without what saves the result."""
    return [node["process_id"] for node in data.openeo.graph(None).values()]


def list_child_processes(data: Any) -> set[str]:
    """The processes of child process graphs."""
    graph = data.openeo.graph(None)
    return {child for node in graph.values() for child in _visit(node["arguments"])}


def _visit(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for node in value.get("process_graph", {}).values():
            yield node["process_id"]
            yield from _visit(node["arguments"])
        yield from (p for k, v in value.items() if k != "process_graph" for p in _visit(v))
    elif isinstance(value, list):
        for item in value:
            yield from _visit(item)
