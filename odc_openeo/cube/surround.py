"""Put the pixels of a part of a job where they are in the whole: what is around them is there in form only.

Cubes of a part thus have the grid, the labels and the type of the whole, and each process does what it does
in the whole. Pixels outside of the part are a few large chunks that refuse to be computed: should a part
need one of them, it is noticed, before anything is computed, by `needs_outside`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

OUTSIDE: Final = "outside-part"
"""How the names of layers begin whose tasks refuse to be computed."""


_LIMITS: Final = "limits_of_part"
"""Annotation of a layer of what is outside: size, first and last + 1 index of axes that a part limits."""

LONGEST_INSIDE: Final = 4096
"""Pixels: longer chunks at the ends of a cube of a part are what is outside; loads make shorter ones."""


class OutsidePart(RuntimeError):
    """A part of a job needs pixels that are not in it."""


def surround_window(inner: da.Array, shape: tuple[int, int], window: tuple[slice, slice]) -> da.Array:
    """Make an array ``(..., *shape)`` that has ``inner`` in a window of its last two axes, and nothing else.

    The chunks of ``inner`` stay; what is outside is one chunk on each side.
    """
    leading = inner.shape[:-2]
    return _surround(inner, (*leading, *shape), (*(slice(0, n) for n in leading), *window))


def _surround(inner: da.Array, shape: tuple[int, ...], spans: tuple[slice, ...]) -> da.Array:
    ends = [(span.start, size - span.stop) for span, size in zip(spans, shape, strict=True)]
    if not any(before or after for before, after in ends):
        return inner
    axes = [
        ((before,) * (before > 0)) + tuple(chunks) + ((after,) * (after > 0))
        for (before, after), chunks in zip(ends, inner.chunks, strict=True)
    ]
    token = tokenize(inner.name, shape, spans)
    name, outside = f"surround-{token}", f"{OUTSIDE}-{token}"
    tasks: dict[Any, Any] = {}
    refusals: dict[Any, Any] = {}
    for index in itertools.product(*(range(len(chunks)) for chunks in axes)):
        place = [i - (before > 0) for i, (before, _) in zip(index, ends, strict=True)]
        if all(0 <= i < count for i, count in zip(place, inner.numblocks, strict=True)):
            tasks[(name, *index)] = (inner.name, *place)
        else:
            size = tuple(chunks[i] for chunks, i in zip(axes, index, strict=True))
            refusals[(outside, *size)] = (refuse_computation,)
            tasks[(name, *index)] = (outside, *size)
    limits = [(n, s.start, s.stop) for n, s in zip(shape, spans, strict=True) if s != slice(0, n)]
    layer = MaterializedLayer(refusals, collection_annotations={_LIMITS: limits})
    graph = HighLevelGraph(
        {**inner.dask.layers, name: tasks, outside: layer},
        {**inner.dask.dependencies, name: {inner.name, outside}, outside: set()},
    )
    return da.Array(graph, name, tuple(axes), meta=inner._meta)


def apply_inside(function: Callable[[da.Array], da.Array], array: da.Array) -> da.Array:
    """Apply a function that keeps the shape, and changes chunks, to what of an array is not outside of a
    part.

    Changing the chunks of everything would mix pixels of a part with those around it.
    """
    if not needs_outside(array.dask.layers):
        return function(array)
    spans = _find_spans(array)
    if all(span == slice(0, size) for span, size in zip(spans, array.shape, strict=True)):
        return function(array)
    return _surround(function(array[spans]), array.shape, spans)


def _find_spans(array: da.Array) -> tuple[slice, ...]:
    """The part of an array that is inside; axes were dropped, moved or cut since it was surrounded."""
    edges = [{0, *itertools.accumulate(chunks)} for chunks in array.chunks]
    for name, layer in array.dask.layers.items():
        if not name.startswith(OUTSIDE):
            continue
        left = list((layer.collection_annotations or {}).get(_LIMITS, ()))
        spans = []
        for size, ends in zip(array.shape, edges, strict=True):
            limit = next((one for one in left if one[0] == size and ends >= {*one[1:]}), None)
            if limit is not None:
                left.remove(limit)
            spans.append(slice(0, size) if limit is None else slice(*limit[1:]))
        if any(span != slice(0, size) for span, size in zip(spans, array.shape, strict=True)):
            return tuple(spans)
    return tuple(map(_find_inside, array.chunks))


def _find_inside(chunks: tuple[int, ...]) -> slice:
    """From the first to the last chunk along an axis, but for the long ones at its ends."""
    ends = list(chunks)
    before = ends.pop(0) if len(ends) > 1 and ends[0] > LONGEST_INSIDE else 0
    after = ends.pop() if len(ends) > 1 and ends[-1] > LONGEST_INSIDE else 0
    return slice(before, sum(chunks) - after)


def refuse_computation() -> np.ndarray:
    """Refuse to compute pixels outside of a part.

    Raises:
        OutsidePart: always.
    """
    raise OutsidePart("a part of the job needs pixels outside of it")


def needs_outside(layers: Iterable[str]) -> bool:
    """Return whether a graph without needless tasks, of which these are the layers, needs what is outside."""
    return any(name.startswith(OUTSIDE) for name in layers)
