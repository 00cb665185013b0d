"""The plan of an evaluated graph: what it loads and from where, what each node gives, what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import LabeledArray, is_cube
from odc_openeo.explain.parts import write_split
from odc_openeo.graph import Graph
from odc_openeo.graph.estimate import Estimate
from odc_openeo.graph.plan import sort_topologically
from odc_openeo.graph.trace import Trace
from odc_openeo.registry.demand import Demand
from odc_openeo.spatial.reference_system_names import name_crs

MOST_LABELS = 20


def describe_plan(graph: Graph, trace: Trace, estimate: Estimate) -> dict[str, Any]:
    """Describe the plan as JSON: ``loads``, ``steps`` (nodes in their order), ``duplicates``, ``estimate``.

    Bytes are those in memory, before anything is reduced or compressed.
    """
    plan = trace.plans[""]
    return {
        "loads": list(_describe_loads(graph, trace)),
        "steps": [_describe_step(graph, trace, id_) for id_ in sort_topologically(graph)],
        "duplicates": dict(plan.duplicates),
        "estimate": {
            "datasets": estimate.datasets,
            "pixels": estimate.pixels,
            "input_bytes": estimate.input_bytes,
            "output_bytes": estimate.output_bytes,
            "tasks": estimate.tasks,
        },
    }


def _describe_step(graph: Graph, trace: Trace, id_: str) -> dict[str, Any]:
    node = graph.nodes[id_]
    return {
        "node": id_,
        "process": node.process_id,
        "after": sorted(node.dependencies),
        "gives": describe_value(trace.values[id_]) if id_ in trace.values else None,
        "result": id_ == graph.result,
    }


def describe_value(value: Any) -> dict[str, Any]:
    """Describe a value: dimensions, sizes and the type of numbers of a cube; the type of anything else."""
    if isinstance(value, xr.Dataset):
        return {"type": "vector cube", "dimensions": {str(d): n for d, n in value.sizes.items()}}
    if isinstance(value, xr.DataArray):
        return {
            "type": "cube",
            "dimensions": {str(d): _as_integer(n) for d, n in value.sizes.items()},
            "dtype": value.dtype.name,
        }
    if isinstance(value, LabeledArray | list | tuple):
        return {"type": "array"}
    names = {
        bool: "boolean",
        int: "number",
        float: "number",
        str: "string",
        type(None): "null",
        dict: "object",
    }
    return {"type": names.get(type(value), "object")}


def _as_integer(size: Any) -> int | None:
    """Sizes that only the values tell are NaN."""
    return None if size != size else int(size)


def _describe_loads(graph: Graph, trace: Trace) -> Iterator[dict[str, Any]]:
    for path, volumes in trace.loads.items():
        value = trace.values.get(path)
        top = path.partition(".")[0]
        yield {
            "node": path,
            "process": _find_process(graph, path),
            **(_describe_cube(value) if isinstance(value, xr.DataArray) else {}),
            "collections": sorted({volume.collection for volume in volumes}),
            "datasets": sum(volume.datasets for volume in volumes),
            "pixels": sum(volume.pixels for volume in volumes),
            "bytes": sum(volume.bytes for volume in volumes),
            "pushed_down": _describe_demand(_find_demand(trace, path)) if is_cube(value) and top else [],
        }


def _find_process(graph: Graph, path: str) -> str | None:
    """The process of a node, in the graph or in the definitions that it calls."""
    nodes: Mapping[str, Any] = graph.nodes
    node: Any = None
    for name in path.split("."):
        node = nodes.get(name)
        if node is None:
            return None
        inner = [node.definition.graph] if node.definition else []
        nodes = {k: v for g in inner for k, v in g.nodes.items()}
    return str(node.process_id)


def _find_demand(trace: Trace, path: str) -> Demand:
    scope, _, id_ = path.rpartition(".")
    plan = trace.plans.get(f"{scope}." if scope else "")
    return plan.get_demand(id_) if plan is not None else Demand()


def _describe_cube(data: xr.DataArray) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if data.odc.geobox is not None:
        geobox = data.odc.geobox
        described |= {
            "bbox": [float(v) for v in geobox.boundingbox.bbox],
            "crs": name_crs(geobox.crs),
            "resolution": [abs(float(geobox.resolution.x)), abs(float(geobox.resolution.y))],
            "width": geobox.shape.x,
            "height": geobox.shape.y,
        }
    for name, key in ((cube.T, "times"), (cube.BANDS, "bands")):
        if name in data.dims:
            described[key] = _shorten_labels(cube.labels(data, name))
    return described


def _shorten_labels(labels: Sequence[Any]) -> dict[str, Any] | list[Any]:
    if len(labels) <= MOST_LABELS:
        return list(labels)
    return {"count": len(labels), "first": labels[0], "last": labels[-1]}


def _describe_demand(demand: Demand) -> list[str]:
    """Say in words what the rest of the graph narrows a load to."""
    described = []
    if demand.boxes is not None:
        described.append(f"the area of {_count(len(demand.boxes), 'box', 'boxes')} that later steps need")
    if demand.interval is not None:
        start, end = demand.interval
        described.append(f"the time from {start or 'the beginning'} to {end or 'the end'}")
    if demand.bands is not None:
        described.append(f"the bands {', '.join(demand.bands)}")
    if demand.grid is not None:
        described.append("the coarser pixels that a later step resamples to, where files have overviews")
    return described


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def describe_in_words(plan: Mapping[str, Any], incomplete: Sequence[Mapping[str, str]]) -> str:
    """Write a plan as text, a line per load and per step."""
    lines = ["Loads:" if plan["loads"] else "Nothing is loaded."]
    lines += [f"- {_load_in_words(load)}" for load in plan["loads"]]
    lines += ["", "Steps:"]
    lines += [f"{number}. {_step_in_words(step)}" for number, step in enumerate(plan["steps"], 1)]
    for copy, original in plan["duplicates"].items():
        lines.append(f"- {copy} computes the same as {original}: it runs once.")
    estimate = plan["estimate"]
    lines += [
        "",
        f"It reads about {format_bytes(estimate['input_bytes'])} of pixels from {estimate['datasets']:,} "
        f"datasets, in {estimate['tasks']:,} tasks; the results take "
        f"{format_bytes(estimate['output_bytes'])} in memory.",
        write_split(plan["parts"]),
    ]
    if incomplete:
        lines += ["", "The program leaves out:"]
        lines += [f"- {note['node']} ({note['process']}): {note['reason']}" for note in incomplete]
    return "\n".join(_keep_printable(line) for line in lines) + "\n"


def _keep_printable(line: str) -> str:
    """A line without control characters, which ids of nodes may hold."""
    return "".join(c if c.isprintable() else "?" for c in line)


def _load_in_words(load: Mapping[str, Any]) -> str:
    parts = [f"{load['node']} ({load['process']}): {', '.join(load['collections'])}"]
    if "bbox" in load:
        west, south, east, north = load["bbox"]
        x, y = load["resolution"]
        parts.append(
            f"{load['width']} x {load['height']} pixels of {x:g} x {y:g} in {load['crs']} "
            f"({west:g}, {south:g} to {east:g}, {north:g})"
        )
    for key in ("times", "bands"):
        if key in load:
            parts.append(_labels_in_words(key, load[key]))
    parts.append(f"{_count(load['datasets'], 'dataset', 'datasets')}, {format_bytes(load['bytes'])}")
    text = "; ".join(parts) + "."
    return text + (f" Narrowed to {' and '.join(load['pushed_down'])}." if load["pushed_down"] else "")


def _labels_in_words(key: str, labels: Any) -> str:
    if isinstance(labels, Mapping):
        return f"{labels['count']} {key} from {labels['first']} to {labels['last']}"
    return f"{key} {', '.join(map(str, labels))}"


def _step_in_words(step: Mapping[str, Any]) -> str:
    after = f" of {', '.join(step['after'])}" if step["after"] else ""
    gives = step["gives"]
    if gives is None:
        return f"{step['node']}: {step['process']}{after}, not needed"
    sizes = " x ".join(f"{d} {n if n is not None else '?'}" for d, n in gives.get("dimensions", {}).items())
    shape = f" ({sizes}; {gives['dtype']})" if "dtype" in gives and sizes else f" ({sizes})" if sizes else ""
    result = ", the result" if step["result"] else ""
    return f"{step['node']}: {step['process']}{after} gives a {gives['type']}{shape}{result}"


def format_bytes(size: float) -> str:
    """Write a number of bytes with a binary prefix."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
