"""Reducers: methods of xarray along the dimension in cubes, numpy on JSON arrays."""

from __future__ import annotations

import math
from typing import Final

from odc_openeo.cube import ARRAY
from odc_openeo.explain.calls import ELEMENT, Call, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.array_operands import get_json_values, list_values, needs_json, write_array
from odc_openeo.explain.snippets import arrays, comparison, cubes

METHODS: Final = {
    "min": "min",
    "max": "max",
    "sum": "sum",
    "product": "prod",
    "mean": "mean",
    "median": "median",
    "sd": "std",
    "variance": "var",
}
NUMPY: Final = {
    "min": "min",
    "max": "max",
    "sum": "sum",
    "product": "np.prod",
    "mean": "np.mean",
    "median": "np.median",
    "sd": "np.std",
    "variance": "np.var",
}


@emits(*METHODS)
def write_reducer(call: Call) -> str:
    """A method of the cube; ``ignore_nodata`` is xarray's ``skipna``."""
    data = call["data"]
    if needs_json(data):
        return _write_json_reducer(call, data)
    array = write_array(call, data)
    name = call.node.process_id
    options = [write_string(array.dimension or ELEMENT)]
    if name in ("sd", "variance"):
        options.append("ddof=1")
    if call.json("ignore_nodata") is False:
        options.append("skipna=False")
    elif name in ("sum", "product"):
        options.append("min_count=1")
    if not array.value.sizes[ARRAY]:
        return f"xr.full_like({array.atom}.sum({options[0]}), np.nan, dtype=float)"
    if array.value.dtype == bool:
        array = Operand(f"{array.atom}.astype(float)", array.value, array.dimension)
    return f"{array.atom}.{METHODS[name]}({', '.join(options)})"


def _write_json_reducer(call: Call, data: Operand) -> str:
    values, name = list_values(call, data), call.node.process_id
    elements = get_json_values(data)
    function = NUMPY[name]
    if name in ("sd", "variance"):
        function = f"lambda valid: {function}(valid, ddof=1)"
    if name == "product" and {math.inf, -math.inf} <= {e for e in elements if isinstance(e, float)}:
        return "np.nan"
    plain = elements and all(isinstance(e, int | float) and e == e for e in elements) and not data.is_nullable
    if plain:
        ddof = ", ddof=1" if name in ("sd", "variance") else ""
        return f"{NUMPY[name]}({values}{ddof})"
    ignore = "" if call.json("ignore_nodata") is not False else ", ignore_nodata=False"
    return f"{call.helper(arrays.reduce_valid)}({function}, {values}{ignore})"


@emits("extrema")
def write_extrema(call: Call) -> Operand:
    data = call["data"]
    skip = call.json("ignore_nodata") is not False
    if needs_json(data):
        values, helper = list_values(call, data), call.helper(arrays.reduce_valid)
        ignore = "" if skip else ", ignore_nodata=False"
        return Operand(f"[{helper}(min, {values}{ignore}), {helper}(max, {values}{ignore})]", call.value)
    array = write_array(call, data)
    options = f"{write_string(array.dimension or ELEMENT)}{'' if skip else ', skipna=False'}"
    ends = f"[{array.atom}.min({options}), {array.atom}.max({options})]"
    return Operand(f"xr.concat({ends}, dim={write_string(ELEMENT)})", call.value, ELEMENT)


@emits("quantiles")
def write_quantiles(call: Call) -> Operand:
    data = call["data"]
    given = call.json("probabilities") if call.has("probabilities") else call.json("q")
    fractions = [i / int(given) for i in range(1, int(given))] if isinstance(given, int | float) else given
    skip = call.json("ignore_nodata") is not False
    if needs_json(data):
        ignore = "" if skip else ", ignore_nodata=False"
        values = list_values(call, data)
        code = f"{call.helper(arrays.find_quantiles)}({values}, {write_literal(fractions)}{ignore})"
        return Operand(code, call.value)
    array = write_array(call, data)
    options = "" if skip else ", skipna=False"
    dimension = write_string(array.dimension or ELEMENT)
    quantiles = f"{array.atom}.quantile({write_literal(fractions)}, {dimension}{options})"
    code = f'{quantiles}.rename(quantile="element").drop_vars("element")'
    return Operand(code, call.value, ELEMENT)


@emits("first", "last")
def write_end(call: Call) -> str:
    """The first element with data: those after it are filled back into gaps."""
    data, name = call["data"], call.node.process_id
    ignore = call.json("ignore_nodata") is not False
    position = 0 if name == "first" else -1
    if needs_json(data):
        values = list_values(call, data)
        if ignore:
            helper = arrays.first_valid if name == "first" else arrays.last_valid
            return f"{call.helper(helper)}({values})"
        return f"{values}[{position}]" if get_json_values(data) else "None"
    array = write_array(call, data)
    dimension = array.dimension or ELEMENT
    if not array.value.sizes[ARRAY]:
        return f"xr.full_like({array.atom}.sum({write_string(dimension)}), np.nan, dtype=float)"
    if not ignore or not array.can_miss:
        return f"{array.atom}.isel({{{write_string(dimension)}: {position}}}, drop=True)"
    along = cubes.first_along if name == "first" else cubes.last_along
    return f"{call.helper(along)}({array.code}, {write_string(dimension)})"


@emits("count")
def write_count(call: Call) -> str:
    data = call["data"]
    condition = call.operands.get("condition")
    if needs_json(data):
        values = list_values(call, data)
        if condition is not None and condition.value is True:
            return f"len({values})"
        if call.has_child("condition"):
            function = call.define(
                "condition", "x", wish="is_counted", is_nullable=None in get_json_values(data)
            )
            return f"sum({function}(value) is True for value in {values})"
        return f"sum({call.helper(comparison.is_valid)}(value) for value in {values})"
    array = write_array(call, data)
    dimension = write_string(array.dimension or ELEMENT)
    if condition is not None and condition.value is True:
        pixels = f"{array.atom}.isel({{{dimension}: 0}}, drop=True)"
        return f"xr.full_like({pixels}, {array.value.sizes[ARRAY]}, dtype=int)"
    if call.has_child("condition"):
        result = call.inline("condition", x=Operand(array.code, None), context=call["context"])
        if not result.is_cube:
            raise ValueError
        return f"({result.operand} == 1).sum({dimension})"
    return f"np.isfinite({array.code}).sum({dimension})"
