"""Stream pixels from dask to files piece by piece, so that no process ever holds a whole cube."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import dask
import numpy as np
import xarray as xr

from odc_openeo.formats.model import Compute

BATCH_BYTES: Final = 256 * 2**20
"""Most bytes that one computation fetches (a single chunk may be larger)."""

Region = tuple[slice, ...]
Consume = Callable[[Region, np.ndarray], None]


def stream_batches(data: xr.DataArray, compute: Compute, consume: Consume, limit: int = BATCH_BYTES) -> None:
    """Compute a cube in batches of whole chunks and hand over each as ``consume(region, values)``.

    A batch is consumed on one background thread while the next is computed: at most two batches are held.
    Cubes below ``limit`` bytes come as one piece, on the calling thread. The chunks of the last two
    dimensions vary slowest, so that work shared by the dates and bands of an area is done once.
    """
    array = data.data
    everything = tuple(slice(0, n) for n in data.shape)
    if not dask.is_dask_collection(array):
        consume(everything, np.asarray(array))
        return
    if array.nbytes <= limit:
        consume(everything, np.asarray(compute(array)[0]))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:
        pending: Future[None] | None = None
        for batch in _iter_batches(array, limit):
            values = compute(*(array.blocks[index] for index, _ in batch))
            if pending is not None:
                pending.result()
            # Dask's client leaves reference cycles behind that hold the values of earlier batches.
            gc.collect()
            regions = [region for _, region in batch]
            pending = writer.submit(_consume_all, consume, regions, values)
        if pending is not None:
            pending.result()


def _consume_all(consume: Consume, regions: list[Region], values: tuple[np.ndarray, ...]) -> None:
    for region, value in zip(regions, values, strict=True):
        consume(region, np.asarray(value))


def _iter_batches(array: Any, limit: int) -> Iterator[list[tuple[tuple[int, ...], Region]]]:
    batch: list[tuple[tuple[int, ...], Region]] = []
    size = 0
    for index, region in _iter_chunks(array):
        nbytes = int(np.prod([s.stop - s.start for s in region])) * array.dtype.itemsize
        if batch and size + nbytes > limit:
            yield batch
            batch, size = [], 0
        batch.append((index, region))
        size += nbytes
    if batch:
        yield batch


def _iter_chunks(array: Any) -> Iterator[tuple[tuple[int, ...], Region]]:
    edges = [np.cumsum([0, *sizes]).tolist() for sizes in array.chunks]
    inner = max(array.ndim - 2, 0)
    order = [*range(inner, array.ndim), *range(inner)]
    for shuffled in itertools.product(*(range(array.numblocks[axis]) for axis in order)):
        index = [0] * array.ndim
        for axis, i in zip(order, shuffled, strict=True):
            index[axis] = i
        yield tuple(index), tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, index, strict=True))
