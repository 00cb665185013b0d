"""Loading from the Open Data Cube index with datacube, from STAC with odc-stac."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.catalog import resolve_bands
from odc_openeo.cube.instants import parse_interval
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import join_items, write_call, write_literal, write_string
from odc_openeo.explain.emitters.zones import mask_outside
from odc_openeo.explain.snippets import cubes
from odc_openeo.graph import Graph
from odc_openeo.spatial.boxes import is_box


@emits("load_collection")
def write_load_collection(call: Call) -> str:
    """Load the part that the service loads, on its grid, as floats with NaN for no-data."""
    data: xr.DataArray = call.value
    catalog = call.env.catalog
    product = catalog.get_product(call.json("id"))
    labels = cube.labels(data, cube.BANDS)
    bands = {b.label: b for b in resolve_bands(product.bands, call.json("bands")) if b.label in labels}
    if any(band.extra_dimension for band in bands.values()):
        raise NoProgram("its bands have an extra dimension, which datacube loads by an index of its own.")
    if "dc = datacube.Datacube()" not in call.program.lines:
        call.add_line("dc = datacube.Datacube()")
    selection = {"product": write_string(product.name), "time": _write_time(call.json("temporal_extent"))}
    grid = call.assign("grid", write_geobox(data.odc.geobox))
    names = [bands[label].name for label in labels]
    loading = {
        **selection,
        "measurements": write_literal(names),
        "like": grid,
        "group_by": None if product.groupby == "time" else write_string(product.groupby),
    }
    if call.has("properties"):
        loading = _filter_datasets(call, selection, grid, loading)
    loaded = call.assign("dataset", write_call("dc.load", **{k: v for k, v in loading.items() if v}))
    code = _write_cube(call, loaded, [bands[label] for label in labels], labels, data)
    extent = call["spatial_extent"]
    if extent.value is None or is_box(extent.value):
        return code
    return mask_outside(call, call.assign("data", code), extent, "spatial_extent")


def _write_time(extent: Sequence[str | None] | None) -> str | None:
    """The interval as datacube has it, whose end belongs to it."""
    if extent is None:
        return None
    start, end = parse_interval(extent, "load_collection", "temporal_extent")
    ends = [start, None if end is None else end - np.timedelta64(1, "us")]
    return join_items("(", [write_instant(end) for end in ends], ")")


def write_instant(time: Any) -> str:
    """A time as a string."""
    if time is None:
        return "None"
    text = str(np.datetime64(time, "us"))
    return write_string(text.removesuffix(".000000").removesuffix("T00:00:00"))


def _filter_datasets(
    call: Call, selection: dict[str, Any], grid: str, loading: dict[str, Any]
) -> dict[str, Any]:
    """Choose the datasets whose metadata meet the conditions."""
    finding = {k: v for k, v in {**selection, "like": grid}.items() if v}
    datasets = call.assign("datasets", write_call("dc.find_datasets", **finding))
    conditions = [
        (name, define_condition(call, name, graph))
        for name, graph in call.operands["properties"].value.items()
    ]
    tests = " and ".join(
        f'{function}(dataset.metadata_doc["properties"].get({write_string(name)}))'
        for name, function in conditions
    )
    call.add_line(f"{datasets} = [dataset for dataset in {datasets} if {tests}]")
    kept = {k: v for k, v in loading.items() if k != "time"}
    return {"datasets": datasets, **{k: v for k, v in kept.items() if k != "product"}}


def define_condition(call: Call, name: str, graph: Graph) -> str:
    """Write the condition on a property as a function; metadata may lack the property."""
    constants = [v for node in graph.nodes.values() for v in node.arguments.values()]
    sample = "" if any(isinstance(v, str) for v in constants) else 0
    call.writer.probe_graph(call, graph, {"value": sample})
    template = Operand("", None, None, is_nullable=True)
    return str(call.writer.define_graph(call, graph, ("value",), f"accept_{name}", template))


def write_geobox(geobox: GeoBox) -> str:
    """A grid by its box and resolution, or by its transformation where these don't give the same one."""
    crs = write_string(f"EPSG:{geobox.crs.epsg}" if geobox.crs.epsg else geobox.crs.to_wkt())
    a, b, c, d, e, f = list(geobox.transform)[:6]
    height, width = geobox.shape.yx
    bounds = [c, f + e * height, c + a * width, f]
    if b == d == 0 and a == -e:
        rounded = [round(value, 9) for value in bounds]
        rebuilt = GeoBox.from_bbox(rounded, geobox.crs, resolution=a, tight=True)
        if rebuilt == geobox:
            box = join_items("(", [_write_number(v) for v in rounded], ")")
            return write_call("GeoBox.from_bbox", box, crs, resolution=_write_number(a), tight="True")
    affine = write_call("Affine", *(_write_number(v) for v in (a, b, c, d, e, f)))
    return write_call("GeoBox", f"({height}, {width})", affine, crs)


def _write_number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


def _write_cube(
    call: Call, loaded: str, bands: Sequence[Any], labels: Sequence[Any], data: xr.DataArray
) -> str:
    """Put the bands of a Dataset along a dimension, in floats in which NaN is no-data."""
    missing = {band.nodata for band in bands}
    number = (
        "float32"
        if all(np.dtype(b.dtype).itemsize <= 2 or b.dtype == "float32" for b in bands)
        else "float64"
    )
    dtype = (
        "float32"
        if data.dtype.itemsize <= 2 and number == "float32"
        else (data.dtype.name if data.dtype.kind == "f" else number)
    )
    plain = [m for m in missing if m is not None and m == m]
    if len(missing) == 1 and not plain:
        stacked = f'{loaded}.to_dataarray("bands")'
    elif len(missing) == 1:
        stacked = f'{loaded}.where({loaded} != {_write_number(plain[0])}).to_dataarray("bands")'
    else:
        stacked = f'{call.helper(cubes.mask_nodata)}({loaded}).to_dataarray("bands")'
    code = f'{stacked}.rename(time="t")'
    names = [band.name for band in bands]
    if names != list(labels):
        code += f".assign_coords(bands={write_literal(list(labels))})"
    dims = {"y": "y", "x": "x"}
    dimensions = data.odc.geobox.dimensions
    if tuple(dimensions) != ("y", "x"):
        dims = dict(zip(("y", "x"), dimensions, strict=True))
        code += f'.rename({dims["y"]}="y", {dims["x"]}="x")'
    return f'{code}.transpose("t", "bands", "y", "x").astype("{dtype}")'
