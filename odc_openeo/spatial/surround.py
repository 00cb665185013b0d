"""Put the pixels of a part of a job where they are in the whole: what is around them is there in form only.

Cubes of a part thus have the grid, the labels and the type of the whole, and each process does what it does in
the whole. Pixels outside of the part are a few large chunks that refuse to be computed: should a part need one
of them, it is noticed, before anything is computed, by `needs_outside`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

OUTSIDE: Final = "outside-part"
"""How the names of layers begin whose tasks refuse to be computed."""


class OutsidePart(RuntimeError):
    """A part of a job needs pixels that are not in it."""


def surround_window(inner: da.Array, shape: tuple[int, int], window: tuple[slice, slice]) -> da.Array:
    """Make an array ``(..., *shape)`` that has ``inner`` in a window of its last two axes, and nothing else.

    The chunks of ``inner`` stay; what is outside is one chunk on each side.
    """
    sides = [
        (span.start, chunks, size - span.stop)
        for span, chunks, size in zip(window, inner.chunks[-2:], shape, strict=True)
    ]
    if not any(before or after for before, _, after in sides):
        return inner
    axes = [((b,) * (b > 0)) + tuple(c) + ((a,) * (a > 0)) for b, c, a in sides]
    token = tokenize(inner.name, shape, window)
    name, outside = f"surround-{token}", f"{OUTSIDE}-{token}"
    places = [_number_chunks(chunks, before) for before, chunks, _ in sides]
    tasks: dict[Any, Any] = {}
    refusals: dict[Any, Any] = {}
    leading = inner.chunks[:-2]
    for index in itertools.product(*(range(len(c)) for c in (*leading, *axes))):
        *before, row, column = index
        place = places[0].get(row), places[1].get(column)
        if None not in place:
            tasks[(name, *index)] = (inner.name, *before, *place)
            continue
        size = tuple(chunks[i] for chunks, i in zip((*leading, *axes), index, strict=True))
        refusals[(outside, *size)] = (refuse_computation,)
        tasks[(name, *index)] = (outside, *size)
    graph = HighLevelGraph(
        {**inner.dask.layers, name: tasks, outside: refusals},
        {**inner.dask.dependencies, name: {inner.name, outside}, outside: set()},
    )
    return da.Array(graph, name, (*leading, *axes), meta=inner._meta)


def _number_chunks(chunks: tuple[int, ...], before: int) -> dict[int, int]:
    """The numbers of the chunks of a window, by those along the axis that has a chunk before them or not."""
    return {i + (before > 0): i for i in range(len(chunks))}


def refuse_computation() -> np.ndarray:
    """Refuse to compute pixels outside of a part.

    Raises:
        OutsidePart: always.
    """
    raise OutsidePart("a part of the job needs pixels outside of it")


def needs_outside(layers: Iterable[str]) -> bool:
    """Return whether a graph without needless tasks, of which these are the layers, needs what is outside."""
    return any(name.startswith(OUTSIDE) for name in layers)
