"""Private functions of dask; a test fails, naming the version of dask, if they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask._task_spec import convert_legacy_graph
from dask.highlevelgraph import HighLevelGraph


def convert_tasks(graph: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return a graph whose tasks are all of dask's newer kind, which know what they depend on."""
    return convert_legacy_graph(graph)


def sort_layers(graph: HighLevelGraph) -> list[str]:
    """Return the names of the layers of a graph, each after those it depends on."""
    names: list[str] = graph._toposort_layers()
    return names
