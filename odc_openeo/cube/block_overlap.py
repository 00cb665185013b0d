"""Functions of pixels and their neighbours, chunk by chunk.

Each chunk is extended by pixels of its neighbours, and beyond the border of the array only when the function
is called: no array with a border is ever made, whose chunks would be cut and joined again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.array.overlap import ensure_minimum_chunksize, overlap

BORDERS: Final = {"replicate": "edge", "reflect": "symmetric", "reflect_pixel": "reflect", "wrap": "wrap"}
"""NumPy padding modes by the names of openEO."""

Depth = tuple[int, int]
"""The number of neighbours on each side, along y and x."""

Extended = Callable[..., np.ndarray]
"""Takes a block ``(..., y, x)`` that is extended on all sides; returns the values of the block itself."""


def map_with_overlap(
    function: Extended,
    array: Any,
    depth: Depth,
    border: str | float,
    dtype: Any = None,
    row_values: np.ndarray | None = None,
) -> Any:
    """Apply a function to an array ``(..., y, x)`` whose pixels depend on their neighbours; lazily if it is.

    Args:
        function: takes a block extended by ``depth`` pixels on all sides; returns the values of the block.
        array: not empty.
        depth: how many neighbours count along y and x.
        border: a number or an openEO name of a way to extend the array.
        dtype: that of the result if it differs.
        row_values: a number for each row; the function takes those of a block's own rows by this name.
    """
    if not isinstance(array, da.Array):
        rows = {} if row_values is None else {"row_values": row_values}
        return function(_extend(array, [(d, d) for d in depth], border), **rows)
    if border == "wrap":
        return _map_wrapped(function, array, depth, dtype, row_values)
    fitted = _fit_chunks(array, depth)
    axes = (array.ndim - 2, array.ndim - 1)
    shared = {axis: d if fitted.numblocks[axis] > 1 else 0 for axis, d in zip(axes, depth, strict=True)}
    call = partial(
        _call_extended,
        function=function,
        depth=depth,
        border=border,
        numblocks=fitted.numblocks[-2:],
        row_values=None if row_values is None else np.split(row_values, np.cumsum(fitted.chunks[-2])[:-1]),
    )
    dtype = array.dtype if dtype is None else np.dtype(dtype)
    extended = overlap(fitted, shared, "none") if any(shared.values()) else fitted
    mapped = extended.map_blocks(
        call, chunks=fitted.chunks, dtype=dtype, meta=np.empty((0,) * array.ndim, dtype)
    )
    return mapped.rechunk(array.chunks)


def _fit_chunks(array: da.Array, depth: Depth) -> da.Array:
    """The array in chunks that hold all the pixels that a neighbouring chunk, or the border, needs."""
    chunks = list(array.chunks)
    for axis, d in zip((-2, -1), depth, strict=True):
        size = array.shape[axis]
        chunks[axis] = (size,) if size <= 2 * d else ensure_minimum_chunksize(max(d, 1), chunks[axis])
    return array.rechunk(tuple(chunks))


def _call_extended(
    block: np.ndarray,
    function: Extended,
    depth: Depth,
    border: str | float,
    numblocks: tuple[int, int],
    row_values: list[np.ndarray] | None,
    block_id: tuple[int, ...] = (),
) -> np.ndarray:
    sides = [
        (d if place == 0 else 0, d if place == last - 1 else 0)
        for d, place, last in zip(depth, block_id[-2:], numblocks, strict=True)
    ]
    rows = {} if row_values is None else {"row_values": row_values[block_id[-2]]}
    return function(_extend(block, sides, border), **rows)


def _extend(block: np.ndarray, sides: list[tuple[int, int]], border: str | float) -> np.ndarray:
    if not any(map(any, sides)):
        return block
    widths = [(0, 0)] * (block.ndim - 2) + sides
    if isinstance(border, str):
        return np.pad(block, widths, mode=BORDERS[border])  # type: ignore[call-overload]
    return np.pad(block, widths, mode="constant", constant_values=border)


def _map_wrapped(
    function: Extended, array: da.Array, depth: Depth, dtype: Any, row_values: np.ndarray | None
) -> da.Array:
    """The border consists of pixels of the opposite side, which may be in any chunk."""
    widths = [(0, 0)] * (array.ndim - 2) + [(d, d) for d in depth]
    extended = da.pad(array, widths, mode="wrap")
    if row_values is not None:
        row_values = np.pad(row_values, depth[0], mode="wrap")
    inner = (..., *(slice(d, size + d) for d, size in zip(depth, array.shape[-2:], strict=True)))
    mapped = map_with_overlap(function, extended, depth, 0, dtype, row_values)
    return mapped[inner].rechunk(array.chunks)
