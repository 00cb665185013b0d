"""Evaluate one part of a job: the lazy value of the whole, of which only what the part needs is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from odc_openeo.cube.budget import Budget
from odc_openeo.formats import Output
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.parts.model import JobSplit, Part
from odc_openeo.registry.environment import Environment


def evaluate_part(
    process: Mapping[str, Any],
    env: Environment,
    split: JobSplit,
    part: Part,
    graph_limits: GraphLimits | None = None,
) -> tuple[Any, list[Output]]:
    """Evaluate a part lazily; its grid, labels, type and attributes are those of the whole, cut.

    Returns:
        The value of the part, and the outputs that the graph saves, with the data of the part.
    """
    own = replace(env, outputs=[], loads=[], budget=Budget())
    value = evaluate(process, own, limits=graph_limits)
    if split.is_whole:
        return value, own.outputs
    outputs = [replace(output, data=_cut_part(output.data, split, part)) for output in own.outputs]
    return (value if outputs else _cut_part(value, split, part)), outputs


def _cut_part(data: xr.DataArray, split: JobSplit, part: Part) -> xr.DataArray:
    spans: dict[str, slice] = {}
    if part.window is not None and split.template.spatial_dims is not None:
        rows, columns = split.template.spatial_dims
        spans |= {rows: slice(*part.window.rows), columns: slice(*part.window.columns)}
    return data.isel(spans)
