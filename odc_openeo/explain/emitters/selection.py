"""Parts of cubes: by boxes, intervals and labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from odc_openeo import cube
from odc_openeo.cube.instants import parse_interval
from odc_openeo.explain.calls import Call, Operand, emits
from odc_openeo.explain.code import write_call, write_literal, write_string
from odc_openeo.explain.emitters.dimensions import write_date_labels
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.boxes import Box


@emits("filter_temporal")
def write_filter_temporal(call: Call) -> str:
    """The times from the start on, before the end."""
    data = call["data"]
    names = (
        [call.json("dimension")] if call.has("dimension") else cube.dimensions_of_type(data.value, "temporal")
    )
    start, end = parse_interval(call.json("extent"), "filter_temporal", "extent")
    code = data.atom
    for name in names:
        condition = write_within(f"{data.atom}[{write_string(name)}]", start, end)
        if data.value.coords[name].dtype.kind != "M":
            kept = write_literal(call.value.coords[name].values.tolist())
            code = f"{code}.sel({{{write_string(name)}: {kept}}})"
        elif condition:
            code = f"{code}.isel({{{write_string(name)}: {condition}}})"
    return code


def write_within(times: str, start: Any, end: Any) -> str:
    """The condition that times are in a half-open interval; empty if it has no limit."""
    parts = [
        f"({times} {operator} {write_time(limit)})"
        for operator, limit in ((">=", start), ("<", end))
        if limit is not None
    ]
    return (parts[0] if len(parts) == 1 else " & ".join(parts)) if parts else ""


def write_time(time: Any) -> str:
    text = str(np.datetime64(time, "us")).removesuffix(".000000").removesuffix("T00:00:00")
    return f"np.datetime64({write_string(text)})"


@emits("filter_labels")
def write_filter_labels(call: Call) -> str:
    """The labels for which a function is true."""
    data, dimension = call["data"], call.json("dimension")
    function = call.define("condition", "value", wish="keep_label")
    if dimension not in data.value.coords:
        labels = f"range({data.atom}.sizes[{write_string(dimension)}])"
    else:
        values, source = data.value.coords[dimension].values, f"{data.atom}[{write_string(dimension)}]"
        labels = (
            write_date_labels(source, values) if values.dtype.kind == "M" else f"{source}.values.tolist()"
        )
    kept = call.assign("kept", f"[i for i, label in enumerate({labels}) if {function}(label)]")
    return f"{data.atom}.isel({{{write_string(dimension)}: {kept}}})"


@emits("filter_bbox")
def write_filter_bbox(call: Call) -> str:
    """The pixels whose centres are in the box, in the reference system of the cube."""
    data = call["data"]
    if vector_cubes.find_geometry_dimension(data.value) is not None:
        return _filter_geometries(call, data)
    box = Box.parse(call.json("extent"), "filter_bbox", "extent").bounding_box
    if box.crs == data.value.odc.crs:
        edges = [write_literal(float(v)) for v in box.bbox]
    else:
        corners = ", ".join(write_literal(float(v)) for v in box.bbox)
        outline = f"odc_box({corners}, {write_string(str(box.crs))})"
        edge = call.assign(
            "box", f"{outline}.to_crs({data.atom}.odc.crs, resolution={_choose_step(box)}).boundingbox"
        )
        edges = [f"{edge}.left", f"{edge}.bottom", f"{edge}.right", f"{edge}.top"]
    left, bottom, right, top = edges
    selections = {"x": _write_slice(data, "x", left, right), "y": _write_slice(data, "y", bottom, top)}
    if "z" in data.value.dims and ("base" in call.json("extent") or "height" in call.json("extent")):
        extent = call.json("extent")
        low, high = (write_literal(extent.get(name)) for name in ("base", "height"))
        selections["z"] = _write_slice(data, "z", low, high)
    return write_call(f"{data.atom}.sel", **selections)


def _choose_step(box: Any) -> str:
    """Points along the outline of a box, so that its curved edges are those of the box in the cube."""
    size = max(box.right - box.left, box.top - box.bottom)
    return repr(float(size / 100) or 1.0)


def _write_slice(data: Operand, dimension: str, low: str, high: str) -> str:
    labels = data.value[dimension].values
    descending = labels.size > 1 and labels[0] > labels[-1]
    return f"slice({high}, {low})" if descending else f"slice({low}, {high})"


def _filter_geometries(call: Call, data: Operand) -> str:
    name = vector_cubes.find_geometry_dimension(data.value)
    box = Box.parse(call.json("extent"), "filter_bbox", "extent").bounding_box
    crs = vector_cubes.get_crs(data.value, str(name))
    corners = ", ".join(write_literal(float(v)) for v in box.bbox)
    series = f"gpd.GeoSeries([shapely.box({corners})], crs={write_string(str(box.crs))})"
    area = f"{series}.to_crs({write_string(str(crs))})[0]"
    kept = call.assign("area", area)
    label = write_string(str(name))
    return f"{data.atom}.isel({{{label}: [g.within({kept}) for g in {data.atom}[{label}].values]}})"
