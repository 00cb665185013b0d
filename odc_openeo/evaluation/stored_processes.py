"""Check a process that a user wants to store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import ProcessGraphInvalid
from odc_openeo.graph import GraphLimits, PreparedProcess, prepare
from odc_openeo.user_data.user_defined_processes import Library


def check_stored_process(config: Config, user: UUID, id_: str, document: Mapping[str, Any]) -> None:
    """Refuse a process whose nodes do not make a graph, or that others could not call though it is public.

    Whether the graph can run is checked when it is validated or run: it may be work in progress, without a
    result or some arguments, and processes that it calls may be stored later.

    Raises:
        ProcessGraphComplexity: there are too many nodes or too many levels of child processes.
        ProcessGraphInvalid: it refers to nodes that it does not have, or to itself.
        ProcessGraphInvalid: the process is public and calls a process of its owner that is not.
    """
    library, complete = Library(config, user), _complete_result(document)

    def find_definition(called_id: str, namespace: str | None) -> Mapping[str, Any] | None:
        if namespace not in (None, "user"):
            return None
        return complete if called_id == id_ else library(called_id, namespace)

    call = {"process_graph": {"it": {"process_id": id_, "arguments": {}, "result": True}}}
    prepared = prepare(call, find_definition, GraphLimits.from_config(config))
    for error in prepared.structure_errors:
        error.node = (error.node or "").removeprefix("it").lstrip(".") or None
        raise error
    if document.get("public") is True:
        _check_public(id_, prepared)


def _complete_result(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The process, with a result if no node is marked as it."""
    nodes = document["process_graph"]
    if any(node.get("result") for node in nodes.values()):
        return document
    last = list(nodes)[-1]
    return {**document, "process_graph": {**nodes, last: {**nodes[last], "result": True}}}


def _check_public(id_: str, prepared: PreparedProcess) -> None:
    """Refuse calls that only the owner could make."""
    for node in prepared.find_calls():
        if node.definition and node.namespace in (None, "user") and node.process_id != id_:
            raise ProcessGraphInvalid(
                reason=f"others can't call your process '{node.process_id}', so a public one can't. Make it "
                "public, too, and write its address as 'namespace'."
            )
