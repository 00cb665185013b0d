"""Estimate what a lazy result takes from its dask graph and its loads, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask
from dask.highlevelgraph import HighLevelGraph

from odc_openeo.compute.dask_internals import sort_layers
from odc_openeo.errors import ProcessGraphComplexity

THREADS: Final = 2
"""Threads of a worker, unless given."""


@dataclass(frozen=True)
class Estimate:
    """The resources that computing some values takes.

    ``datasets`` and ``pixels`` are those of the loads; ``input_bytes`` and ``output_bytes`` in memory, before
    compression; ``tasks`` those of the dask graph before it is simplified; ``worker_bytes`` what the largest
    tasks of a worker hold at a time: the chunks that each takes and the one it makes, once for each thread.
    """

    datasets: int
    pixels: int
    input_bytes: int
    output_bytes: int
    tasks: int
    worker_bytes: int


@dataclass(frozen=True)
class Bounds:
    """The most that may be computed; None is no limit."""

    input_bytes: int | None = None
    tasks: int | None = None

    def check_estimate(self, estimate: Estimate, what: str) -> None:
        """Refuse what is more; ``what`` names the kind of request.

        Raises:
            ProcessGraphComplexity: it says which number is over which limit, and what to change.
        """
        if self.input_bytes is not None and estimate.input_bytes > self.input_bytes:
            raise ProcessGraphComplexity(
                reason=f"it reads about {estimate.input_bytes / 2**30:.1f} GiB, and {what} may read "
                f"{self.input_bytes / 2**30:.1f} GiB. Choose a smaller extent, a shorter time or fewer "
                "bands, or run it as a batch job."
            )
        if self.tasks is not None and estimate.tasks > self.tasks:
            raise ProcessGraphComplexity(
                reason=f"it takes {estimate.tasks:,} steps, and {what} may take {self.tasks:,}. Choose a "
                "smaller extent, a shorter time or fewer bands, or run it as a batch job."
            )


def estimate_computation(
    values: Iterable[Any], saved: Iterable[Any], loads: Sequence[Any], threads: int = THREADS
) -> Estimate:
    """Estimate what computing ``values`` takes; ``saved`` are those of them that are written."""
    values = list(values)
    layers = list(_iterate_layers(values))
    sparse = any(load.is_sparse for load in loads)
    return Estimate(
        datasets=sum(load.datasets for load in loads),
        pixels=sum(load.pixels for load in loads),
        input_bytes=count_needed_bytes(*values) if sparse else _source_bytes(layers),
        output_bytes=sum(map(_measure_value, saved)),
        tasks=sum(layer.tasks for layer in layers),
        worker_bytes=threads * max((layer.held for layer in layers), default=0),
    )


def count_read_bytes(values: Iterable[Any]) -> int:
    """Bytes of pixels that computing the values reads, before anything reduces them.

    Counted are the dask arrays at the beginning of the graphs, each once: what loads deliver, and arrays
    made from nothing. Values without a dask graph count nothing.
    """
    return _source_bytes(_iterate_layers(values))


def _source_bytes(layers: Iterable[_Layer]) -> int:
    return sum(layer.nbytes or 0 for layer in layers if layer.is_source)


def count_needed_bytes(*values: Any) -> int:
    """Bytes of pixels that computing parts of larger arrays reads: only chunks that they need count."""
    sizes: dict[str, float] = {}
    needed: dict[str, set[Any]] = {}
    without_graph = []
    for value in values:
        graph = value.__dask_graph__() if dask.is_dask_collection(value) else None
        if not isinstance(graph, HighLevelGraph):
            without_graph.append(value)
            continue
        culled = graph.cull(value.__dask_keys__()).layers
        # Culling adds a mark to the names of layers.
        layers = {name.rpartition("-")[0]: layer for name, layer in culled.items()}
        for name, layer in _measure_layers(graph).items():
            if layer.is_source and name in layers:
                sizes[name] = (layer.nbytes or 0) / len(graph.layers[name])
                needed.setdefault(name, set()).update(layers[name])
    return round(sum(sizes[name] * len(keys) for name, keys in needed.items())) + count_read_bytes(
        without_graph
    )


@dataclass(frozen=True)
class _Layer:
    """A layer of a dask graph: bytes of the array it makes and of its largest chunk, None if not known."""

    tasks: int
    nbytes: int | None
    chunk: int
    is_source: bool
    held: int


def _iterate_layers(values: Iterable[Any]) -> Iterator[_Layer]:
    """The layers of all graphs, each once."""
    seen: set[str] = set()
    for value in values:
        if not dask.is_dask_collection(value):
            continue
        graph = value.__dask_graph__()
        if isinstance(graph, HighLevelGraph):
            yield from (layer for name, layer in _measure_layers(graph).items() if name not in seen)
            seen |= set(graph.layers)
        else:
            size = int(value.nbytes)
            yield _Layer(len(graph), size, size, True, size)


def _measure_layers(graph: HighLevelGraph) -> dict[str, _Layer]:
    measured: dict[str, _Layer] = {}
    reads_array: dict[str, bool] = {}
    for name in sort_layers(graph):
        layer = graph.layers[name]
        before = [measured[d] for d in graph.dependencies[name]]
        size = _measure_array(layer.collection_annotations, _find_share(layer))
        reads = any(reads_array[d] or measured[d].nbytes is not None for d in graph.dependencies[name])
        reads_array[name] = reads
        tasks = _count_tasks(layer)
        chunk = _measure_chunk(layer.collection_annotations)
        taken = sum(b.chunk * max(1, round(b.tasks / max(tasks, 1))) for b in before)
        measured[name] = _Layer(tasks, size, chunk, size is not None and not reads, chunk + taken)
    return measured


def _count_tasks(layer: Any) -> int:
    """The number of tasks; asking a layer of blocks for it does not make them."""
    annotations = layer.collection_annotations or {}
    if layer.is_materialized() or "chunks" not in annotations:
        return len(layer)
    needed = getattr(layer, "output_blocks", None)
    return math.prod(len(c) for c in annotations["chunks"]) if needed is None else len(needed)


def _find_share(layer: Any) -> float:
    """How many of the chunks of its array a layer makes, from which needless tasks may have been dropped."""
    chunks = (layer.collection_annotations or {}).get("chunks")
    count = math.prod(map(len, chunks)) if chunks else 0
    return min(1.0, _count_tasks(layer) / count) if count else 1.0


def _measure_array(array: Mapping[str, Any] | None, share: float) -> int | None:
    """The size of the array that a layer makes, None if it makes none or its shape is not known."""
    if not array or "shape" not in array or "dtype" not in array:
        return None
    size = share * math.prod(array["shape"]) * array["dtype"].itemsize
    return None if math.isnan(size) else int(size)


def _measure_chunk(array: Mapping[str, Any] | None) -> int:
    if not array or "chunksize" not in array or "dtype" not in array:
        return 0
    size = math.prod(array["chunksize"]) * array["dtype"].itemsize
    return 0 if math.isnan(size) else int(size)


def _measure_value(value: Any) -> int:
    if not dask.is_dask_collection(value):
        return int(getattr(value, "nbytes", 0)) or len(str(value))
    # Counts of geometries or pixels that are unknown before computing are NaN.
    size = value.nbytes
    return int(size) if isinstance(size, int | float) and size == size else 0
