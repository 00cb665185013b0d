"""Child processes on cubes: on each value, along a dimension, on all pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.explain.calls import ELEMENT, Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_by_name, write_literal, write_string
from odc_openeo.explain.emitters.array_elements import write_selection
from odc_openeo.explain.emitters.array_operands import needs_json, write_array
from odc_openeo.explain.emitters.dimensions import write_labels
from odc_openeo.processes.filters import find_band_positions


@emits("apply")
def write_apply(call: Call) -> str:
    """The process on the whole cube: it works value by value."""
    _refuse_tables(call)
    result = call.inline("process", x=call["data"], context=call["context"])
    return spread(call, result, call["data"])


def _refuse_tables(call: Call) -> None:
    if isinstance(call["data"].value, xr.Dataset):
        raise NoProgram("it works on each property of a vector cube.")


@emits("reduce_dimension")
def write_reduce_dimension(call: Call) -> str:
    """The reducer, along the dimension."""
    _refuse_tables(call)
    dimension = call.json("dimension")
    result = call.inline("reducer", data=replace(call["data"], dimension=dimension), context=call["context"])
    return spread(call, result, call["data"])


@emits("reduce_spatial")
def write_reduce_spatial(call: Call) -> str:
    """The reducer, along all pixels."""
    data = call["data"]
    code = f'{data.atom}.stack(pixel=["y", "x"], create_index=False)'
    stacked = call.assign("pixels", code)
    result = call.inline("reducer", data=Operand(stacked, None, "pixel"), context=call["context"])
    return spread(call, result, data)


def spread(call: Call, result: Operand, like: Operand, drop: str | None = None) -> str:
    """The result of a child process on all pixels: a constant, or one without some dimensions, is spread."""
    dims = set(map(str, call.value.dims))
    if result.is_cube and set(map(str, result.value.dims)) == dims:
        return result.code
    gone = [str(d) for d in like.value.dims if d not in dims]
    target = f"{like.atom}{write_by_name('.isel', dict.fromkeys(gone, '0'))}" if gone else like.code
    if result.is_cube:
        return f"xr.broadcast({result.code}, {target})[0]"
    if result.value is None:
        return f"xr.full_like({target}, np.nan, dtype=float)"
    kind = "bool" if isinstance(result.value, bool) else "float"
    if isinstance(result.value, str):
        raise NoProgram("it gives strings.")
    return f"xr.full_like({target}, {result.code}, dtype={kind})"


@emits("apply_dimension")
def write_apply_dimension(call: Call) -> str:
    """The process along the dimension; new labels are counted from 0."""
    _refuse_tables(call)
    data, dimension = call["data"], call.json("dimension")
    target = call.json("target_dimension") or dimension
    result = call.inline("process", data=replace(data, dimension=dimension), context=call["context"])
    code, name = _write_elements(call, result, data, dimension)
    if target != dimension and target in data.value.dims:
        outer = write_string(target)
        code = (
            f'{code}.rename({{{outer}: "outer"}})'
            f'.stack({{{outer}: ["outer", {write_string(name)}]}}, create_index=False)'
            f'.drop_vars(["outer", {write_string(name)}], errors="ignore")'
        )
    elif name != target:
        code = f"{code}.rename({{{write_string(name)}: {write_string(target)}}})"
    same = target == dimension and call.value.sizes[target] == data.value.sizes[dimension]
    if same and dimension in data.value.coords:
        return f"{code}.assign_coords({{{write_string(target)}: {data.atom}[{write_string(dimension)}]}})"
    if not same:
        return f"{code}.assign_coords({{{write_string(target)}: {_write_new_labels(call.value, target)}}})"
    return code


def _write_new_labels(data: xr.DataArray, dimension: str) -> str:
    """Numbers, unless user code gave the labels."""
    count = data.sizes[dimension]
    is_counted = dimension not in data.coords or data.coords[dimension].values.tolist() == list(range(count))
    return f"range({count})" if is_counted else write_labels(data, dimension)


def _write_elements(call: Call, result: Operand, data: Operand, dimension: str) -> tuple[str, str]:
    """The array that a child process gave, and the dimension along which it is; a single value has one."""
    value = result.value
    like = f"{data.atom}{write_selection('isel', dimension, '0')}"
    if isinstance(value, xr.DataArray) and ARRAY in value.dims:
        name = result.dimension or ELEMENT
        code = result.atom
        if len(value.dims) < len(data.value.dims):
            code = f"xr.broadcast({code}, {like}, exclude=[{write_string(name)}])[0]"
        return code, name
    if isinstance(value, list | LabeledArray):
        array = write_array(call, result) if not needs_json(result) else _write_json_array(call, result)
        return f"xr.broadcast({array.code}, {like})[0]", ELEMENT
    if isinstance(value, xr.DataArray):
        code = result.atom
        if len(value.dims) < len(data.value.dims) - 1:
            code = f"xr.broadcast({code}, {like})[0]"
        return f"{code}.expand_dims({write_string(dimension)})", dimension
    constant = "np.nan" if value is None else result.code
    return f"xr.full_like({like}, {constant}, dtype=float).expand_dims({write_string(dimension)})", dimension


def _write_json_array(call: Call, result: Operand) -> Operand:
    values = list(result.value.values) if isinstance(result.value, LabeledArray) else list(result.value)
    numbers = [float("nan") if v is None else v for v in values]
    return Operand(f"xr.DataArray({write_literal(numbers)}, dims={write_string(ELEMENT)})", None, ELEMENT)


@emits("ndvi")
def write_ndvi(call: Call) -> str:
    """The two bands by their labels, and the index of them."""
    data = call["data"]
    dimension = cube.get_bands_dimension(data.value)
    bands = {name: _assign_band(call, data, dimension, name) for name in ("nir", "red")}
    index = f"({bands['nir']} - {bands['red']}) / ({bands['nir']} + {bands['red']})"
    if not call.has("target_band"):
        return index
    new = call.assign("ndvi", index)
    label = f"[{write_string(call.json('target_band'))}]"
    labelled = f"{new}.expand_dims({{{write_string(dimension)}: {label}}})"
    return f"xr.concat([{data.code}, {labelled}], dim={write_string(dimension)})"


def _assign_band(call: Call, data: Operand, dimension: str, name: str) -> str:
    (position,) = find_band_positions(data.value, dimension, call.json(name))
    label: Any = cube.labels(data.value, dimension)[position]
    return call.assign(name, f"{data.atom}{write_selection('sel', dimension, write_literal(label))}")
