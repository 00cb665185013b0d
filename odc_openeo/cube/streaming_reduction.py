"""Reductions along the array dimension of lazy cubes, chunk by chunk, with few chunks in memory.

A tree of partial results, as dask builds it, holds many chunks if results are as large as chunks: over time,
with one date per chunk. Here each chunk is merged into a running result as soon as it is available. The
chunks are taken in a few chains, so that threads need not wait for one another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

State = tuple[Any, ...]
"""A running result: arrays without the reduced axis."""

_MOST_CHAINS: Final = 3
_SLAB_BYTES: Final = 2**20


@dataclass(frozen=True)
class Fold:
    """A reduction in three steps; all are picklable functions.

    ``begin(block, axis)`` returns the state of one block, ``merge(state, later)`` that of two, ``end(state)``
    the values.
    """

    begin: Callable[[np.ndarray, int], State]
    merge: Callable[[State, State], State]
    end: Callable[[State], np.ndarray]

    def __call__(self, source: da.Array, axis: int, dtype: Any) -> da.Array:
        """Reduce an array lazily; the chunks along its other axes stay."""
        whole = partial(_reduce_block, self)
        if source.numblocks[axis] == 1:
            return source.map_blocks(
                whole, axis=axis, drop_axis=axis, dtype=dtype, meta=_empty_meta(source, dtype)
            )
        name = f"fold-{tokenize(self, source.name, axis, str(dtype))}"
        tasks: dict[Any, Any] = {}
        ranges = [range(n) for i, n in enumerate(source.numblocks) if i != axis]
        for index in itertools.product(*ranges):
            keys = [(source.name, *index[:axis], i, *index[axis:]) for i in range(source.numblocks[axis])]
            self._add_column(tasks, name, index, keys, axis)
        graph = HighLevelGraph.from_collections(name, tasks, dependencies=[source])
        chunks = tuple(c for i, c in enumerate(source.chunks) if i != axis)
        return da.Array(graph, name, chunks, dtype=dtype, meta=_empty_meta(source, dtype))

    def _add_column(
        self, tasks: dict[Any, Any], name: str, index: tuple[int, ...], keys: list[Any], axis: int
    ) -> None:
        """Add the chains for one column of chunks along the axis, and the tasks that join them in order."""
        length = math.ceil(len(keys) / min(_MOST_CHAINS, math.isqrt(len(keys))))
        ends: list[Any] = []
        for first in range(0, len(keys), length):
            state: Any = None
            for step, key in enumerate(keys[first : first + length], first):
                task_key = (f"{name}-state", *index, step)
                tasks[task_key] = (partial(_begin_fold, self, axis), key) if state is None else (
                    partial(_continue_fold, self, axis), state, key)  # fmt: skip
                state = task_key
            ends.append(state)
        joined = ends[0]
        for step, state in enumerate(ends[1:]):
            task_key = (f"{name}-join", *index, step)
            tasks[task_key] = (self.merge, joined, state)
            joined = task_key
        tasks[(name, *index)] = (self.end, joined)


def _empty_meta(source: da.Array, dtype: Any) -> np.ndarray:
    return np.empty((0,) * (source.ndim - 1), dtype)


def _begin_fold(fold: Fold, axis: int, block: np.ndarray) -> State:
    return apply_in_slabs(fold.begin, axis, block)


def _continue_fold(fold: Fold, axis: int, state: State, block: np.ndarray) -> State:
    def merge_part(part: np.ndarray, axis: int, *before: np.ndarray) -> State:
        return fold.merge(before, fold.begin(part, axis))

    return apply_in_slabs(merge_part, axis, block, *state)


def _reduce_block(fold: Fold, block: np.ndarray, axis: int) -> np.ndarray:
    return fold.end(_begin_fold(fold, axis, block))


def apply_in_slabs(
    function: Callable[..., State], axis: int, block: np.ndarray, *fields: np.ndarray
) -> State:
    """Apply a function of whole pixel arrays to a block slab by slab, so that temporary memory stays small.

    Args:
        function: takes a part of the block, ``axis`` and the same parts of the fields; returns fields, which
            may have more axes after those of the pixels.
        axis: the axis along which the arrays of the pixels lie.
        block: pixels and their arrays.
        fields: one value per pixel: the shape of the block without the axis.
    """
    with np.errstate(all="ignore"):
        axes = [i for i in range(block.ndim) if i != axis]
        if not axes or block.nbytes <= _SLAB_BYTES:
            return function(block, axis, *fields)
        cut = max(axes, key=lambda i: block.shape[i])
        place = cut - (cut > axis)
        rows = max(1, block.shape[cut] * _SLAB_BYTES // block.nbytes)
        results: list[np.ndarray] = []
        for first in range(0, block.shape[cut], rows):
            here = slice(first, first + rows)
            inside = (*(slice(None),) * place, here)
            part = block[(*(slice(None),) * cut, here)]
            state = function(part, axis, *(f[inside] for f in fields))
            if not results:
                shape = [n for i, n in enumerate(block.shape) if i != axis]
                results = [np.empty((*shape, *f.shape[len(shape) :]), f.dtype) for f in state]
            for result, values in zip(results, state, strict=True):
                result[inside] = values
        return tuple(results)


# --- Kernels that may be applied to their own results --------------------------------------------


def make_kernel_fold(
    kernel: Callable[..., np.ndarray], combine: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
) -> Fold:
    """The fold of a kernel that takes a block, ``axis`` (a tuple) and ``keepdims``.

    ``combine`` does the same with two results, without an array of both.
    """
    merge = partial(_kernel_merge, kernel) if combine is None else partial(_combine_results, combine)
    return Fold(partial(_kernel_begin, kernel), merge, _get_result)


def _kernel_begin(kernel: Callable[..., np.ndarray], block: np.ndarray, axis: int) -> State:
    return (kernel(block, axis=(axis,), keepdims=False),)


def _kernel_merge(kernel: Callable[..., np.ndarray], state: State, later: State) -> State:
    with np.errstate(all="ignore"):
        return (kernel(np.stack([state[0], later[0]]), axis=(0,), keepdims=False),)


def _combine_results(
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray], state: State, later: State
) -> State:
    with np.errstate(all="ignore"):
        return (combine(state[0], later[0]),)


def _get_result(state: State) -> np.ndarray:
    return state[0]


# --- Sums and statistics based on sums -----------------------------------------------------------


def make_moment_fold(name: str, ignore_nodata: bool) -> Fold:
    """The fold of ``sum``, ``prod``, ``mean``, ``var`` or ``std`` of floats, calculated in float64.

    Variances are those of samples. If no-data is ignored, the result is no-data only if all values are.
    """
    begin = {"prod": _product_begin, "var": _spread_begin, "std": _spread_begin}.get(name, _sum_begin)
    merge = {"prod": _product_merge, "var": _spread_merge, "std": _spread_merge}.get(name, _sum_merge)
    return Fold(partial(begin, ignore_nodata), merge, partial(_ENDS[name], ignore_nodata))


def _is_present(ignore_nodata: bool, block: np.ndarray) -> Any:
    return ~np.isnan(block) if ignore_nodata else True


def _count_present(present: Any, block: np.ndarray, axis: int) -> Any:
    if present is True:
        return np.full([n for i, n in enumerate(block.shape) if i != axis], block.shape[axis], np.int32)
    return present.sum(axis=axis, dtype=np.int32)


def _sum_begin(ignore_nodata: bool, block: np.ndarray, axis: int) -> State:
    if block.shape[axis] == 1:
        return _begin_with_one(ignore_nodata, block.squeeze(axis))
    present = _is_present(ignore_nodata, block)
    return _count_present(present, block, axis), block.sum(axis=axis, dtype=np.float64, where=present)


def _begin_with_one(ignore_nodata: bool, values: np.ndarray) -> State:
    """The count and the sum of one value per pixel: numpy's sums along so short an axis are slow."""
    total = values.astype(np.float64)
    if not ignore_nodata:
        return np.ones(values.shape, np.int32), total
    gaps = np.isnan(values)
    total[gaps] = 0
    return (~gaps).astype(np.int32), total


def _sum_merge(state: State, later: State) -> State:
    return state[0] + later[0], state[1] + later[1]


def _sum_end(ignore_nodata: bool, state: State) -> np.ndarray:
    count, total = state
    return np.where(count > 0, total, np.nan) if ignore_nodata else total


def _mean_end(ignore_nodata: bool, state: State) -> np.ndarray:
    count, total = state
    with np.errstate(all="ignore"):
        return total / count


def _product_begin(ignore_nodata: bool, block: np.ndarray, axis: int) -> State:
    present = _is_present(ignore_nodata, block)
    return _count_present(present, block, axis), block.prod(axis=axis, dtype=np.float64, where=present)


def _product_merge(state: State, later: State) -> State:
    with np.errstate(all="ignore"):
        return state[0] + later[0], state[1] * later[1]


def _spread_begin(ignore_nodata: bool, block: np.ndarray, axis: int) -> State:
    count, total = _sum_begin(ignore_nodata, block, axis)
    centre = total / np.maximum(count, 1)
    deviation = block - np.expand_dims(centre, axis)
    deviation *= deviation
    return count, centre, deviation.sum(axis=axis, where=_is_present(ignore_nodata, block))


def _spread_merge(state: State, later: State) -> State:
    """Sums of squares around the joint mean (Chan, Golub, LeVeque 1979)."""
    with np.errstate(all="ignore"):
        count = state[0] + later[0]
        share = later[0] / np.maximum(count, 1)
        difference = later[1] - state[1]
        return (
            count,
            state[1] + difference * share,
            state[2] + later[2] + difference * difference * share * state[0],
        )


def _variance_end(ignore_nodata: bool, state: State) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(state[0] > 1, state[2] / (state[0] - 1), np.nan)


def _deviation_end(ignore_nodata: bool, state: State) -> np.ndarray:
    return np.sqrt(_variance_end(ignore_nodata, state))


_ENDS: Final[dict[str, Callable[[bool, State], np.ndarray]]] = {
    "sum": _sum_end,
    "prod": _sum_end,
    "mean": _mean_end,
    "var": _variance_end,
    "std": _deviation_end,
}
