"""Reductions of all pixels in two stages: statistics of each part, then one value of those of all parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.graph import evaluate
from odc_openeo.parts.model import Stage
from odc_openeo.registry.environment import Environment

REDUCTION: Final = "reduce_spatial"
STATISTIC: Final = "__statistic__"
"""The first dimension of the values of parts."""

REDUCERS: Final = frozenset({"count", "max", "mean", "min", "sum"})
"""Those whose values of parts can be combined."""

DATA: Final = {"from_parameter": "data"}


def find_reduction(process: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Find a reduction of all pixels at the end of a process: the node that it reduces, and its reducer's
    node.

    None if there is none, if its values of parts can't be combined, or if it is not all that is done.
    """
    nodes = process["process_graph"]
    end = next((node for node in nodes.values() if node.get("result")), None)
    if end is not None and end["process_id"] == "save_result":
        end = nodes.get(_get_reference(end["arguments"].get("data")))
    if end is None or end["process_id"] != REDUCTION or end.get("namespace"):
        return None
    source = _get_reference(end["arguments"].get("data"))
    reducer = list(((end["arguments"].get("reducer") or {}).get("process_graph") or {}).values())
    if source is None or len(reducer) != 1 or reducer[0]["process_id"] not in REDUCERS:
        return None
    arguments = reducer[0].get("arguments", {})
    options = {name: value for name, value in arguments.items() if name != "data"}
    if arguments.get("data") != DATA or not all(isinstance(v, bool | None) for v in options.values()):
        return None
    return source, {"process_id": reducer[0]["process_id"], "arguments": dict(arguments)}


def _get_reference(value: Any) -> str | None:
    return value.get("from_node") if isinstance(value, Mapping) and len(value) == 1 else None


def cut_process(process: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the process whose result is that of an inner node."""
    nodes = process["process_graph"]
    needed: set[str] = set()
    waiting = [source]
    while waiting:
        id_ = waiting.pop()
        if id_ not in needed:
            needed.add(id_)
            waiting += _iterate_references(nodes[id_]["arguments"])
    kept = {
        id_: {
            **{k: v for k, v in node.items() if k != "result"},
            **({"result": True} if id_ == source else {}),
        }
        for id_, node in nodes.items()
        if id_ in needed
    }
    return {**process, "process_graph": kept}


def _iterate_references(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("from_node"), str):
            yield value["from_node"]
        elif "process_graph" not in value:
            for item in value.values():
                yield from _iterate_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _iterate_references(item)


def reduce_part(stage: Stage, pixels: xr.DataArray) -> xr.DataArray:
    """Compute the statistics of a part lazily, along the first dimension: value and, of means, count."""
    value = _reduce_pixels(pixels, stage.reducer)
    parts = [value]
    if stage.reducer["process_id"] == "mean":
        parts.append(_reduce_pixels(pixels, _make_counter(stage.reducer)))
    dtype = np.result_type(*(part.dtype for part in parts)) if len(parts) > 1 else value.dtype
    stacked = da.stack([da.asarray(part.transpose(*value.dims).data).astype(dtype) for part in parts])
    return xr.DataArray(stacked, dims=(STATISTIC, *value.dims), coords=value.coords, attrs=value.attrs)


def _make_counter(reducer: Mapping[str, Any]) -> dict[str, Any]:
    """The node that counts the pixels of a mean."""
    ignores = reducer["arguments"].get("ignore_nodata", True) is not False
    return {"process_id": "count", "arguments": {"data": DATA, **({} if ignores else {"condition": True})}}


def _reduce_pixels(pixels: xr.DataArray, reducer: Mapping[str, Any]) -> xr.DataArray:
    graph = {"only": {**reducer, "result": True}}
    call = {
        "process_id": REDUCTION,
        "arguments": {"data": DATA, "reducer": {"process_graph": graph}},
        "result": True,
    }
    schema = {"type": "object", "subtype": "datacube"}
    parameters = [{"name": "data", "description": "The pixels.", "schema": schema}]
    process = {"process_graph": {"reduce": call}, "parameters": parameters}
    value: xr.DataArray = evaluate(process, Environment(), {"data": pixels})
    return value


def combine_statistics(stage: Stage, values: Sequence[xr.DataArray]) -> xr.DataArray:
    """Combine the statistics of parts, in memory, to the value of all pixels."""
    first = values[0].isel({STATISTIC: 0})
    if stage.reducer["process_id"] == "mean":
        means, counts = (np.stack([value.values[i] for value in values]) for i in (0, 1))
        with np.errstate(invalid="ignore"):
            totals = np.where(counts > 0, means * counts, 0).sum(axis=0)
            return first.copy(data=(totals / counts.sum(axis=0)).astype(stage.dtype))
    stacked = np.stack([value.values[0] for value in values], axis=-1)[..., np.newaxis]
    pixels = xr.DataArray(stacked, dims=(*first.dims, cube.Y, cube.X), coords=first.coords, attrs=first.attrs)
    reducer = (
        {**stage.reducer, "process_id": "sum"} if stage.reducer["process_id"] == "count" else stage.reducer
    )
    arguments = {k: v for k, v in reducer["arguments"].items() if k != "condition"}
    combined = _reduce_pixels(pixels, {**reducer, "arguments": arguments})
    return first.copy(data=combined.transpose(*first.dims).values.astype(stage.dtype))
