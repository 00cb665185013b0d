"""How much a lazy result reads, told from its dask graph without computing anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import dask
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph


def read_bytes(values: Iterable[Any]) -> int:
    """Bytes of pixels that computing the values reads, before anything reduces them.

    Counted are the dask arrays at the beginning of the graphs, each once: what loads deliver, and arrays
    made from nothing. Values without a dask graph count nothing.
    """
    sources: dict[str, int] = {}
    for value in values:
        if dask.is_dask_collection(value):
            sources |= _sources(value)
    return sum(sources.values())


def needed_bytes(value: Any) -> int:
    """The same for one value that is a part of larger arrays: only chunks that it needs count."""
    graph = value.__dask_graph__() if dask.is_dask_collection(value) else None
    if not isinstance(graph, HighLevelGraph):
        return read_bytes([value])
    needed = graph.cull(set(flatten(value.__dask_keys__()))).layers
    sizes = _sources(value)
    parts = {name: len(needed[name]) / len(graph.layers[name]) for name in sizes if name in needed}
    return round(sum(sizes[name] * part for name, part in parts.items()))


def _sources(value: Any) -> dict[str, int]:
    graph = value.__dask_graph__()
    if not isinstance(graph, HighLevelGraph):
        return {str(id(value)): int(value.nbytes)}
    sizes = {name: _nbytes(layer.collection_annotations) for name, layer in graph.layers.items()}
    beginning: dict[str, int] = {}
    reads_array: dict[str, bool] = {}
    for name in graph._toposort_layers():
        reads_array[name] = any(reads_array[d] or sizes[d] is not None for d in graph.dependencies[name])
        size = sizes[name]
        if size is not None and not reads_array[name]:
            beginning[name] = size
    return beginning


def _nbytes(array: Mapping[str, Any] | None) -> int | None:
    """The size of the array that a layer makes, None if it makes none or its shape is not known."""
    if not array or "shape" not in array or "dtype" not in array:
        return None
    size = math.prod(array["shape"]) * array["dtype"].itemsize
    return None if math.isnan(size) else int(size)
