"""Private functions of dask; a test fails, naming the version of dask, if they have changed."""

from __future__ import annotations

import os
import threading
from typing import Any

from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from distributed.utils import LoopRunner

_runners: dict[int, LoopRunner] = {}
_lock = threading.Lock()


def sort_layers(graph: HighLevelGraph) -> list[str]:
    """Return the names of the layers of a graph, each after those it depends on."""
    names: list[str] = graph._toposort_layers()
    return names


def cull_graph(graph: HighLevelGraph, keys: Any) -> HighLevelGraph:
    """Drop all tasks that keys do not depend on; layers of blocks are not turned into tasks for that.

    Layers keep their names, by which layers of blocks refer to each other: dask's own method changes them, so
    that its result can't be computed, and keeps some layers that are not needed. Graphs of
    several parts of an array can't be merged, therefore.
    """
    needed_keys = set(flatten(keys))
    all_keys = graph.get_all_external_keys()
    layers: dict[str, Any] = {}
    for name in reversed(sort_layers(graph)):
        layer = graph.layers[name]
        own_keys = needed_keys.intersection(layer.get_output_keys())
        if not own_keys:
            continue
        culled, dependencies = layer.cull(own_keys, all_keys)
        layers[name] = culled
        culled.collection_annotations = layer.collection_annotations
        for key, used in dependencies.items():
            needed_keys |= used
            needed_keys.discard(key)
    return HighLevelGraph(layers, {name: graph.dependencies[name] & layers.keys() for name in layers})


def get_event_loop() -> Any:
    """Return the event loop (of tornado) of this process for all clients of dask, which never ends.

    A client that has a loop of its own stops it when it is closed, and a thread that waits for an answer at
    that moment would wait forever.
    """
    with _lock:
        runner = _runners.get(os.getpid())
        if runner is None:
            runner = _runners[os.getpid()] = LoopRunner()
            runner.start()
        return runner.loop
