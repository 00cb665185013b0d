"""Estimate what a lazy result takes from its dask graph and its loads, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask
import numpy as np
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
    Chunks that others are cut from all have to be there until the last of those is made, so that they count
    once, together.
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
        worker_bytes=max((layer.shared + threads * layer.held for layer in layers), default=0),
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
    """A layer of a dask graph: bytes of the array it makes and of its largest chunk, None if not known.

    ``made`` is the number of its chunks, ``held`` the bytes that one task takes and makes, ``shared`` the
    bytes that tasks at a time take together, ``chunks`` how the array is cut along its axes.
    """

    tasks: int
    made: int
    nbytes: int | None
    chunk: int
    is_source: bool
    held: int
    shared: int = 0
    chunks: tuple[tuple[int, ...], ...] = ()


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
            yield _Layer(len(graph), len(graph), size, size, True, size)


def _measure_layers(graph: HighLevelGraph) -> dict[str, _Layer]:
    measured: dict[str, _Layer] = {}
    reads_array: dict[str, bool] = {}
    for name in sort_layers(graph):
        before = [measured[d] for d in graph.dependencies[name]]
        reads = any(reads_array[d] or measured[d].nbytes is not None for d in graph.dependencies[name])
        reads_array[name] = reads
        measured[name] = _measure_layer(name, graph.layers[name], before, reads)
    return measured


def _measure_layer(name: str, layer: Any, before: Sequence[_Layer], reads: bool) -> _Layer:
    """Measure a layer that takes what those ``before`` make; ``reads`` tells whether any makes an array."""
    array = layer.collection_annotations or {}
    tasks = _count_tasks(layer)
    needed = _list_needed(name, layer, array.get("chunks"))
    made = tasks if needed is None else len(needed)
    size = _measure_array(array, _find_share(array.get("chunks"), made))
    chunk = _measure_chunk(array, needed)
    shared = _measure_columns(array, needed, before) if name.startswith("rechunk") else 0
    taken = 0 if shared else sum(b.chunk * max(1, round(b.made / max(made, 1))) for b in before)
    is_source = size is not None and not reads
    return _Layer(tasks, made, size, chunk, is_source, chunk + taken, shared, array.get("chunks") or ())


def _count_tasks(layer: Any) -> int:
    """The number of tasks; asking a layer of blocks for it does not make them."""
    annotations = layer.collection_annotations or {}
    if layer.is_materialized() or "chunks" not in annotations:
        return len(layer)
    needed = getattr(layer, "output_blocks", None)
    return math.prod(len(c) for c in annotations["chunks"]) if needed is None else len(needed)


def _list_needed(name: str, layer: Any, chunks: Sequence[Any] | None) -> Collection[tuple[int, ...]] | None:
    """The places of the chunks that a layer makes; None if it makes all of its array, or no array."""
    if not chunks:
        return None
    if not layer.is_materialized():
        return getattr(layer, "output_blocks", None)
    # Culling adds a mark to the names of layers.
    names = (name, name.rpartition("-")[0])
    places = [key[1:] for key in layer if isinstance(key, tuple) and key[0] in names]
    return places if places and all(len(place) == len(chunks) for place in places) else None


def _find_share(chunks: Sequence[Any] | None, made: int) -> float:
    """How many of the chunks of its array a layer makes, from which needless tasks may have been dropped."""
    count = math.prod(map(len, chunks)) if chunks else 0
    return min(1.0, made / count) if count else 1.0


def _measure_array(array: Mapping[str, Any], share: float) -> int | None:
    """The size of the array that a layer makes, None if it makes none or its shape is not known."""
    if "shape" not in array or "dtype" not in array:
        return None
    size = share * math.prod(array["shape"]) * array["dtype"].itemsize
    return None if math.isnan(size) else int(size)


def _measure_chunk(array: Mapping[str, Any], needed: Collection[tuple[int, ...]] | None) -> int:
    """The size of the largest chunk that a layer makes."""
    if not array.get("chunks") or "dtype" not in array:
        return 0
    return _find_largest(array["chunks"], needed, array["dtype"].itemsize)


def _measure_columns(
    array: Mapping[str, Any], needed: Collection[tuple[int, ...]] | None, before: Sequence[_Layer]
) -> int:
    """The size of all chunks of which one new chunk has pixels, at most."""
    shape = list(map(sum, array.get("chunks") or ()))
    sources = [layer.chunks for layer in before if list(map(sum, layer.chunks)) == shape]
    if not sources or "dtype" not in array or not shape or math.isnan(sum(shape)):
        return 0
    covers = [_cover_chunks(new, old) for new, old in zip(array["chunks"], sources[0], strict=True)]
    return _find_largest(covers, needed, array["dtype"].itemsize)


def _cover_chunks(new: Sequence[int], old: Sequence[int]) -> list[float]:
    """For each new chunk of an axis, the length of the old chunks that it overlaps."""
    edges, ends = np.cumsum([0, *old]), np.cumsum(new)
    first = edges[np.searchsorted(edges, ends - new, side="right") - 1]
    last = edges[np.searchsorted(edges, ends, side="left")]
    return [float(length) for length in last - first]


def _find_largest(
    lengths: Sequence[Sequence[float]], needed: Collection[tuple[int, ...]] | None, itemsize: int
) -> int:
    """The bytes of the largest of the needed blocks, by the lengths along each axis; 0 if unknown."""
    if needed is None:
        size = math.prod(max(axis, default=0) for axis in lengths)
    else:
        size = max(
            (math.prod(axis[i] for axis, i in zip(lengths, place, strict=True)) for place in needed),
            default=0,
        )
    return 0 if math.isnan(size) else int(size * itemsize)


def _measure_value(value: Any) -> int:
    if not dask.is_dask_collection(value):
        return int(getattr(value, "nbytes", 0)) or len(str(value))
    # Counts of geometries or pixels that are unknown before computing are NaN.
    size = value.nbytes
    return int(size) if isinstance(size, int | float) and size == size else 0
