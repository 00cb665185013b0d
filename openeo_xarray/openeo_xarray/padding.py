"""Padding: what lies before the first and behind the last label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from openeo_xarray.build import SPATIAL, is_nan, make_constant, make_elementwise, select_labels, take
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import Node
from openeo_xarray.order import check_order
from openeo_xarray.windows import shift_pixels


@dataclass(frozen=True)
class Padding:
    """Numbers of labels before and after those of a dimension, and the value that they have."""

    before: int
    after: int
    fill: Any


def settle_padding(node: Node, padding: dict[str, Padding]) -> Node:
    """Make padded labels real ones, as nothing absorbed the padding."""
    for dim, pad in padding.items():
        node = _pad_dimension(node, dim, pad)
    return node


def _pad_dimension(node: Node, dim: str, pad: Padding) -> Node:
    axis = node.dims[dim]
    if axis.kind in SPATIAL:
        return _fill_edges(_move_pixels(node, dim, pad), dim, pad)
    if axis.kind != "time":
        raise UnsupportedOperation(f"padding along {dim}", "it is possible along time")
    indices = [-1] * pad.before + list(range(len(axis))) + [-1] * pad.after
    return _fill_edges(take(node, dim, indices, select_labels(axis, indices)), dim, pad)


def _fill_edges(node: Node, dim: str, pad: Padding) -> Node:
    if is_nan(pad.fill):
        return node
    outside = np.zeros(len(node.dims[dim]), bool)
    outside[: pad.before] = True
    outside[len(outside) - pad.after :] = True
    mask = make_constant(outside, [node.dims[dim]])
    return make_elementwise("where", mask, make_constant(pad.fill), node)


def _move_pixels(node: Node, dim: str, pad: Padding) -> Node:
    """Pixels that were cut at one side and padded at the other are shifted ones."""
    from openeo_xarray.lift import lift_selected

    check_order(node, dim, "padding")
    lifted = lift_selected([node], dim)
    if lifted is not None:
        whole, (indices,) = lifted
        length = len(indices) + pad.before + pad.after
        cut = (indices[0], len(whole.dims[dim]) - 1 - indices[-1])
        if length == len(whole.dims[dim]) and cut in ((0, pad.before), (pad.after, 0)):
            return shift_pixels(whole, dim, pad.before - indices[0])
    raise UnsupportedOperation(
        f"padding along {dim}", "shift() and rolling() are possible; or load a larger box"
    )
