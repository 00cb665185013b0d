"""Selections by NumPy keys: slices, positions, arrays of positions, and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from openeo_xarray.array import RecordedArray
from openeo_xarray.build import drop, take, take_points
from openeo_xarray.errors import UnsupportedOperation


def index_array(array: RecordedArray, key: Any) -> RecordedArray:
    """Select with a key as NumPy does."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(part, RecordedArray) for part in parts):
        raise UnsupportedOperation(
            "a selection by values that are not computed", "use .where(), or compute the indexer first"
        )
    parts = [
        np.flatnonzero(p) if isinstance(p, np.ndarray) and p.dtype == bool and p.ndim == 1 else p
        for p in parts
    ]
    parts = _expand_ellipsis(parts, array.ndim)
    arrays = [p for p in parts if isinstance(p, np.ndarray | list) and np.ndim(p) > 0]
    if len(arrays) > 1 and not _are_orthogonal(arrays):
        return _index_points(array, parts)
    return _index_outer(
        array, [np.ravel(p) if isinstance(p, np.ndarray | list) and np.ndim(p) > 0 else p for p in parts]
    )


def _expand_ellipsis(parts: list[Any], ndim: int) -> list[Any]:
    given = sum(p is not None and p is not Ellipsis for p in parts)
    rest = [slice(None)] * (ndim - given)
    for k, part in enumerate(parts):
        if part is Ellipsis:
            return parts[:k] + rest + parts[k + 1 :]
    return parts + rest


def _are_orthogonal(arrays: Sequence[Any]) -> bool:
    """Whether arrays of positions select rows and columns, not points: each varies along one axis."""
    shapes = [np.shape(a) for a in arrays]
    if len({len(shape) for shape in shapes}) > 1 or len(shapes[0]) < len(arrays):
        return False
    varying = [tuple(k for k, size in enumerate(shape) if size > 1) for shape in shapes]
    return all(len(v) <= 1 for v in varying) and len({v for v in varying if v}) == sum(map(bool, varying))


def _index_outer(array: RecordedArray, parts: Sequence[Any]) -> RecordedArray:
    node, position = array.node, 0
    layout: list[str | None] = []
    for part in parts:
        if part is None:
            layout.append(None)
            continue
        name = array.layout[position]
        size = array.shape[position]
        position += 1
        indices, scalar = _list_positions(part, size)
        if name is not None:
            node = take(node, name, indices)
            if scalar:
                node = drop(node, name)
        elif len(indices) != 1:
            raise UnsupportedOperation("repeating an axis of length one by a selection", "broadcast instead")
        if not scalar:
            layout.append(name)
    return RecordedArray(node, tuple(layout))


def _list_positions(part: Any, size: int) -> tuple[list[int], bool]:
    """The positions that a part of a key selects, and whether the axis goes."""
    if isinstance(part, slice):
        return list(range(*part.indices(size))), False
    scalar = np.ndim(part) == 0
    positions = [int(i) for i in np.ravel(part)]
    if any(not -size <= i < size for i in positions):
        raise IndexError(f"index out of bounds for an axis of {size} labels")
    return [i % size for i in positions], scalar


def _index_points(array: RecordedArray, parts: Sequence[Any]) -> RecordedArray:
    """Pixels at pairs of positions along y and x."""
    chosen = {array.layout[k]: p for k, p in enumerate(parts) if isinstance(p, np.ndarray | list)}
    if set(chosen) != {"x", "y"} or any(np.ndim(p) != 1 for p in chosen.values()):
        raise UnsupportedOperation(
            f"a selection of points along {', '.join(map(str, chosen))}", "points have one x and one y each"
        )
    rows, _ = _list_positions(chosen["y"], len(array.node.dims["y"]))
    columns, _ = _list_positions(chosen["x"], len(array.node.dims["x"]))
    if len(rows) != len(columns):
        raise IndexError("indexers of x and y differ in length")
    rest = [slice(None) if array.layout[k] in chosen else p for k, p in enumerate(parts)]
    selected = _index_outer(array, rest)
    places = [k for k, name in enumerate(selected.layout) if name in chosen]
    at = places[0] if places[1] == places[0] + 1 else 0
    layout: list[str | None] = [name for name in selected.layout if name not in chosen]
    layout.insert(at, "geometry")
    return RecordedArray(take_points(selected.node, rows, columns, "geometry"), tuple(layout))
