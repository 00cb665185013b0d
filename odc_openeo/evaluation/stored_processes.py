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
    """Refuse a process that is too large to be stored, or that others could not call though it is public.

    Whether its graph can run is checked when it is validated or run: it may be work in progress, and
    processes that it calls may be stored later.

    Raises:
        ProcessGraphComplexity: there are too many nodes or too many levels of child processes.
        ProcessGraphInvalid: the process is public and calls a process of its owner that is not.
    """
    library = Library(config, user)

    def find_definition(called_id: str, namespace: str | None) -> Mapping[str, Any] | None:
        if namespace not in (None, "user"):
            return None
        return document if called_id == id_ else library(called_id, namespace)

    call = {"process_graph": {"it": {"process_id": id_, "arguments": {}, "result": True}}}
    prepared = prepare(call, find_definition, GraphLimits.from_config(config))
    if document.get("public") is True:
        _check_public(id_, prepared)


def _check_public(id_: str, prepared: PreparedProcess) -> None:
    """Refuse calls that only the owner could make."""
    for node in prepared.find_calls():
        if node.definition and node.namespace in (None, "user") and node.process_id != id_:
            raise ProcessGraphInvalid(
                reason=f"others can't call your process '{node.process_id}', so a public one can't. Make it "
                "public, too, and write its address as 'namespace'."
            )
