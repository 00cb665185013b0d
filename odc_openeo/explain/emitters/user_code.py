"""Calls of user-defined functions."""

from __future__ import annotations

from typing import Any, Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.explain.calls import ELEMENT, Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_call, write_literal, write_string
from odc_openeo.explain.emitters.array_operands import write_array
from odc_openeo.explain.snippets import user_functions
from odc_openeo.explain.user_code import find_entry, include_source
from odc_openeo.processes.user_code import read_source

PIXELS: Final = ("pixel", "window")
"""Dimensions of programs that user code gets as ``pixels``."""


@emits("run_udf")
def write_run_udf(call: Call) -> Operand:
    """The user's own function in the program, called on the whole cube."""
    data = _get_cube(call)
    source = read_source(call.env.catalog.config, str(call.env.user), call.json("udf"))
    entry, annotation = find_entry(source)
    run = call.helper(_choose_call(call, entry, annotation))
    name = include_source(call.program, source, entry)
    dimension = data.dimension
    code, given = data.code, dimension
    if dimension in PIXELS:
        code, given = f'{data.atom}.rename({dimension}="pixels")', "pixels"
    is_reduced = ARRAY in data.value.dims and _find_parent(call) != "apply_dimension"
    if is_reduced and ARRAY in call.value.dims:
        call.value = call.value.isel({ARRAY: 0}, drop=True)
    value: Any = call.value
    options = {"reduced": write_string(str(given))} if is_reduced else {}
    context = call["context"].code if call.json("context") is not None else "{}"
    result = write_call(run, name, code, context, **options)
    result += _write_labels(value, source)
    return Operand(result, value, dimension if ARRAY in value.dims else None)


def _find_parent(call: Call) -> str | None:
    """The process whose child process it is in."""
    if len(call.writer.scopes) < 2:
        return None
    inner, outer = call.writer.scopes[-1], call.writer.scopes[-2]
    node = outer.graph.nodes.get(inner.path.rstrip(".").rpartition(".")[2])
    return None if node is None else str(node.process_id)


def _get_cube(call: Call) -> Operand:
    data = call["data"]
    if isinstance(data.value, list | tuple) and any(map(cube.is_cube, data.value)):
        data = write_array(call, data)
        return Operand(data.code, data.value, ELEMENT)
    if not isinstance(data.value, xr.DataArray) or not isinstance(call.value, xr.DataArray):
        raise NoProgram("what it gets or gives is not a cube of values; call your function here.")
    if cube.GEOMETRY in data.value.dims:
        raise NoProgram("it gets geometries; call your function here.")
    if ARRAY in data.value.dims and data.dimension is None:
        return Operand(data.code, data.value, ELEMENT)
    return data


def _choose_call(call: Call, entry: str, annotation: str) -> Any:
    if entry == "apply_timeseries":
        if call.json("data").sizes.get(cube.T) is None and call["data"].dimension != cube.T:
            raise NoProgram("it gets series along 't', which the cube does not have.")
        return user_functions.run_on_series
    if entry == "apply_udf_data":
        return user_functions.run_on_udf_data
    if "DataCube" in annotation:
        return user_functions.run_on_wrapped_cube
    return user_functions.run_on_cube


def _write_labels(value: Any, source: str) -> str:
    """The labels of bands that the code announces."""
    if "apply_metadata" not in source or cube.BANDS not in getattr(value, "coords", {}):
        return ""
    return f".assign_coords(bands={write_literal(cube.labels(value, cube.BANDS))})"
