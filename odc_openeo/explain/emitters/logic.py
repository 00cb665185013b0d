"""Logic of three values: true, false and no-data, which is NaN in cubes."""

from __future__ import annotations

from typing import Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_string
from odc_openeo.explain.emitters.array_operands import list_values, needs_json, write_array
from odc_openeo.explain.snippets import logic

OPERATORS: Final = {"and": "&", "or": "|", "xor": "^"}
WORDS: Final = {"and": "and", "or": "or", "xor": "!="}
HELPERS: Final = {"and": logic.both, "or": logic.either, "xor": logic.exactly_one}


def _is_certain(operand: Operand) -> bool:
    value = operand.value
    return value.dtype == bool if isinstance(value, xr.DataArray) else isinstance(value, bool)


@emits(*OPERATORS)
def write_logic(call: Call) -> str:
    name = call.node.process_id
    x, y = call["x"], call["y"]
    if y.code == "None" and call.node.uses.get("y") and y.value is None:
        return x.code  # Decided by x: y was not evaluated.
    if all(map(_is_certain, (x, y))) and not (x.is_nullable or y.is_nullable):
        operator = OPERATORS[name] if call.is_cube else WORDS[name]
        return f"{x.operand} {operator} {y.operand}"
    if call.is_cube:
        return f"{call.helper(HELPERS[name])}({_write_truth(call, x)}, {_write_truth(call, y)})"
    return f"{call.helper(getattr(logic, f'{name}_json'))}({x.code}, {y.code})"


def _write_truth(call: Call, operand: Operand) -> str:
    """A boolean as a number: 1, 0 or NaN."""
    if operand.value is None:
        return "np.nan"
    if operand.is_cube and not _is_certain(operand) and operand.value.attrs.get(cube.TYPE) != "boolean":
        return f"({operand.operand} != 0).where({operand.atom}.notnull())"
    return operand.code


@emits("not")
def write_not(call: Call) -> str:
    x = call["x"]
    if call.is_cube:
        return f"~{x.operand}" if _is_certain(x) else f"1 - {_write_truth(call, x)}"
    if isinstance(x.value, bool) and not x.is_nullable:
        return f"not {x.operand}"
    return f"None if {x.operand} is None else not {x.operand}"


@emits("any", "all")
def write_any_all(call: Call) -> str:
    name, data = call.node.process_id, call["data"]
    ignore = call.json("ignore_nodata") is not False
    if needs_json(data):
        values = list_values(call, data)
        if ignore:
            return f"{'True in ' if name == 'any' else 'False not in '}{values}"
        return f"{call.helper(getattr(logic, f'{name}_of'))}({values})"
    array = write_array(call, data)
    dimension = write_string(array.dimension or "element")
    if array.value.dtype == bool:
        return f"{array.atom}.{name}({dimension})"
    if ignore:
        test = f"({array.operand} == 1)" if name == "any" else f"({array.operand} != 0)"
        if array.value.attrs.get(cube.TYPE) != "boolean" and name == "any":
            test = f"(({array.operand} != 0) & {array.atom}.notnull())"
        return f"{test}.{name}({dimension})"
    helper = logic.any_along if name == "any" else logic.all_along
    return f"{call.helper(helper)}({_write_truth(call, array)}, {dimension})"


@emits("if")
def write_if(call: Call) -> Operand | str:
    """A choice per pixel, or between two values; what is not chosen is not evaluated."""
    value, accept, reject = call["value"], call["accept"], call["reject"]
    if not value.is_cube:
        missing = [name for name in ("accept", "reject") if _is_unevaluated(call, name)]
        if value.is_nullable:
            if missing:
                raise NoProgram("one of its branches is never needed here.")
            return f"{accept.code} if {value.operand} else {reject.code}"
        chosen = accept if value.value is True else reject
        if missing or chosen.is_cube:
            return Operand(chosen.code, call.value, chosen.dimension)
        return f"{accept.code} if {value.code} else {reject.code}"
    condition = value.code if _is_certain(value) else f"{value.operand} == 1"
    if not _is_certain(value) and value.value.attrs.get(cube.TYPE) != "boolean":
        condition = f"({value.operand} != 0) & {value.atom}.notnull()"
    branches = [_write_branch(call, branch) for branch in (accept, reject)]
    dimension = next((b.dimension for b in branches if b.dimension), None)
    return Operand(f"xr.where({condition}, {branches[0].code}, {branches[1].code})", call.value, dimension)


def _is_unevaluated(call: Call, name: str) -> bool:
    return bool(call.node.uses.get(name)) and call[name].code == "None"


def _write_branch(call: Call, branch: Operand) -> Operand:
    if branch.value is None:
        return Operand("np.nan", None)
    return write_array(call, branch) if isinstance(branch.value, list) else branch
