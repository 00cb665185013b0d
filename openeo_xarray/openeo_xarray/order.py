"""The order of labels: arrays may have another one than their cubes.

Reversing or sorting an array changes no cube: values are matched by label. Cubes have their times in
ascending order, and x and y as they are loaded. What depends on the order of values must know where both
differ.
"""

from __future__ import annotations

import numpy as np

from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import Load, Node, list_children


def list_cube_order(node: Node, dim: str) -> list[int]:
    """The positions of the labels of a dimension in the order of the cube."""
    axis = node.dims[dim]
    positions = list(range(len(axis)))
    if axis.kind == "time":
        return np.argsort(axis.labels, kind="stable").tolist()
    if axis.kind in ("x", "y") and len(axis) > 1:
        loaded = find_loaded_labels(node, axis.kind)
        if loaded is not None and (loaded[1] > loaded[0]) != (axis.labels[1] > axis.labels[0]):
            return positions[::-1]
    return positions


def find_loaded_labels(node: Node, kind: str) -> np.ndarray | None:
    """The coordinates of a load below a node."""
    seen, todo = set(), [node]
    while todo:
        current = todo.pop()
        if isinstance(current, Load):
            return next((a.labels for a in current.axes if a.kind == kind and len(a) > 1), None)
        if current.key not in seen:
            seen.add(current.key)
            todo += list_children(current)
    return None


def check_order(node: Node, dim: str, operation: str) -> None:
    """Refuse what depends on the order of values where array and cube have another one.

    Raises:
        UnsupportedOperation: the array is reversed or sorted in another way than its cube.
    """
    order = list_cube_order(node, dim)
    if order != sorted(order):
        raise UnsupportedOperation(
            f"{operation} along {dim} in another order than that of the collection",
            "do it before the labels are reversed or sorted",
        )
