"""Gather single pixels from lazy rasters, reading only the chunks that hold them.

Arrays here have their rows and columns last: ``(..., y, x)``. Results have the pixels along one last axis:
``(..., pixel)``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np


def gather_pixels(array: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    """Take the pixels at the given rows and columns, in this order; lazy if the array is.

    There is one task per chunk that holds any of the pixels (and per chunk along the other axes); the result
    has one chunk along the last axis.
    """
    if not isinstance(array, da.Array):
        return array[..., rows, columns]
    y_ends, x_ends = np.cumsum(array.chunks[-2]), np.cumsum(array.chunks[-1])
    block = np.searchsorted(y_ends, rows, "right") * len(x_ends) + np.searchsorted(x_ends, columns, "right")
    order = np.argsort(block, kind="stable")
    numbers, starts = np.unique(block[order], return_index=True)
    parts = []
    for number, members in zip(numbers, np.split(order, starts[1:]), strict=True):
        y, x = divmod(int(number), len(x_ends))
        top, left = y_ends[y] - array.chunks[-2][y], x_ends[x] - array.chunks[-1][x]
        take = partial(_take_pixels, rows=rows[members] - top, columns=columns[members] - left)
        parts.append(_map_pixels(array.blocks[..., y, x], take, len(members)))
    if len(parts) == 1:
        return parts[0]
    joined = da.concatenate(parts, axis=-1)
    return joined.rechunk({joined.ndim - 1: -1})[..., np.argsort(order, kind="stable")]


def gather_block(array: da.Array, y: int, x: int, mask: np.ndarray) -> da.Array:
    """Take the pixels of one chunk where the mask (of the chunk's shape) is true."""
    pick = partial(_take_packed, bits=np.packbits(mask), shape=mask.shape)
    return _map_pixels(array.blocks[..., y, x], pick, int(mask.sum()))


def _map_pixels(block: da.Array, pick: Any, count: int) -> da.Array:
    axes = [block.ndim - 2, block.ndim - 1]
    chunks = (*block.chunks[:-2], (count,))
    return block.map_blocks(pick, chunks=chunks, drop_axis=axes, new_axis=axes[0], dtype=block.dtype)


def _take_pixels(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return block[..., rows, columns]


def _take_packed(block: np.ndarray, bits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.unpackbits(bits, count=shape[0] * shape[1]).astype(bool).reshape(shape)
    return block[..., mask]
