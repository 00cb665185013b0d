"""Arenas: shared memory through which arrays go to the process of user code and back.

An arena is mapped once and used for all calls of a process: fresh pages cost more than the copy into them.
It is sparse: pages exist once they are written to. It is sealed, so that the other side can neither shrink
it, which would crash this one, nor make it larger.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from odc_openeo.udf.child.main import ALIGNMENT

SMALLEST: Final = 16 * 2**20
"""Bytes for the input in an arena, at least."""
MOST_ARRAYS: Final = 1000
MOST_DIMENSIONS: Final = 16
DTYPES: Final = {
    np.dtype(name).str: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
"""The types of elements that may come back, by their name in messages."""


class ReplyInvalid(Exception):
    """A process of user code sent a message that is not valid; the text says why."""


def measure_arrays(arrays: Sequence[np.ndarray]) -> int:
    """Return the bytes that arrays take in an arena."""
    return sum(_round_up(values.nbytes) for values in arrays)


class Arena:
    """One arena; close it after use."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create("odc-openeo-udf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._memory = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise

    def write(self, arrays: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Copy arrays to the start of the arena; return their descriptions."""
        descriptions, offset = [], 0
        for values in arrays:
            dtype = values.dtype.newbyteorder("=")
            target = np.ndarray(values.shape, dtype=dtype, buffer=self._memory, offset=offset)
            np.copyto(target, values)
            descriptions.append({"dtype": dtype.str, "shape": list(values.shape), "offset": offset})
            offset += _round_up(values.nbytes)
        return descriptions

    def read(self, descriptions: Any, start: int, room: int) -> list[np.ndarray]:
        """Copy the arrays that the other side describes out of ``room`` bytes from ``start`` on.

        Raises:
            ReplyInvalid: they are not there, or of other types than those that are allowed.
        """
        if not isinstance(descriptions, list) or len(descriptions) > MOST_ARRAYS:
            raise ReplyInvalid(f"it describes no list of at most {MOST_ARRAYS} arrays")
        views = [self._find_view(description, start, start + room) for description in descriptions]
        # Arrays may lie upon each other; together they must not be more than their room.
        if sum(view.nbytes for view in views) > room:
            raise ReplyInvalid("its arrays take more bytes than they may")
        return [np.array(view) for view in views]

    def _find_view(self, description: Any, start: int, end: int) -> np.ndarray:
        if not isinstance(description, Mapping) or set(description) != {"dtype", "shape", "offset"}:
            raise ReplyInvalid("it describes an array without dtype, shape and offset")
        name, shape, offset = description["dtype"], description["shape"], description["offset"]
        dtype = DTYPES.get(name) if isinstance(name, str) else None
        if dtype is None:
            raise ReplyInvalid(f"its arrays are of type {str(name)[:20]}, not of numbers or booleans")
        if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(map(_is_size, shape)):
            raise ReplyInvalid("the shape of an array is not valid")
        if not _is_size(offset) or offset % ALIGNMENT or offset < start:
            raise ReplyInvalid("the place of an array is not valid")
        if offset + math.prod(shape) * dtype.itemsize > end:
            raise ReplyInvalid("an array ends beyond the memory it may be in")
        view: np.ndarray = np.ndarray(tuple(shape), dtype=dtype, buffer=self._memory, offset=offset)
        # A byte of a boolean may have any value on the other side.
        return view.view(np.uint8) != 0 if dtype == np.bool_ else view

    def close(self) -> None:
        """Unmap the arena; its memory is free once the other side has ended."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        with contextlib.suppress(BufferError):
            self._memory.close()


def _is_size(value: Any) -> bool:
    # Small enough that no product of sizes is computed with huge integers.
    return type(value) is int and 0 <= value < 2**48


def _round_up(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
