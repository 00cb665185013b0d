"""A cube without its values, which keeps everything else: dimensions, labels, type, attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo.cube import nodata

Bounds = tuple[tuple[int, int], ...]
"""The first index and the one after the last, along each dimension."""


def strip_values(data: xr.DataArray) -> xr.DataArray:
    """Return the cube with lazy zeros as values; nothing of the graph is left that would compute them."""
    zeros = da.zeros(data.shape, dtype=data.dtype, chunks=data.shape)
    return data.copy(data=zeros).assign_coords({name: c.compute() for name, c in _list_lazy(data)})


def _list_lazy(data: xr.DataArray) -> list[tuple[str, xr.DataArray]]:
    return [(str(name), coord) for name, coord in data.coords.items() if coord.chunks is not None]


def fill_values(skeleton: xr.DataArray, blocks: Mapping[Bounds, Any]) -> xr.DataArray:
    """Return the skeleton with values of lazy or computed ``blocks``; what no block has is no-data.

    The bounds of blocks are those of a grid: along each dimension two blocks have the same or none at all.
    """
    spans = [sorted({bounds[axis] for bounds in blocks}) for axis in range(skeleton.ndim)]
    edges = [_complete_spans(axis_spans, n) for axis_spans, n in zip(spans, skeleton.shape, strict=True)]
    nested = _nest_blocks(skeleton, blocks, edges, ())
    return skeleton.copy(data=da.block(nested))


def _complete_spans(spans: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Add the gaps between spans, where all blocks are missing."""
    complete, end = [], 0
    for start, stop in spans:
        if start > end:
            complete.append((end, start))
        complete.append((start, stop))
        end = stop
    return [*complete, (end, length)] if end < length else complete


def _nest_blocks(
    skeleton: xr.DataArray,
    blocks: Mapping[Bounds, Any],
    edges: Sequence[Sequence[tuple[int, int]]],
    chosen: Bounds,
) -> Any:
    if len(chosen) < skeleton.ndim:
        spans = edges[len(chosen)]
        return [_nest_blocks(skeleton, blocks, edges, (*chosen, span)) for span in spans]
    if chosen in blocks:
        return blocks[chosen]
    part = skeleton.isel({d: slice(*s) for d, s in zip(skeleton.dims, chosen, strict=True)})
    return make_missing(part).data


def make_missing(skeleton: xr.DataArray) -> xr.DataArray:
    """Return the skeleton with no-data everywhere: that of each band, NaN, or zeros where there is none."""
    missing = nodata(skeleton)
    if isinstance(missing, xr.DataArray):
        return (skeleton + missing.astype(skeleton.dtype)).transpose(*skeleton.dims)
    if missing is None:
        missing = np.nan if skeleton.dtype.kind in "fc" else 0
    return skeleton.copy(data=da.full(skeleton.shape, missing, dtype=skeleton.dtype, chunks=skeleton.shape))
