"""Comparisons: operators, which give NaN where a cube has no data, and null for null."""

from __future__ import annotations

from typing import Final

import xarray as xr

from odc_openeo.cube.elementwise import is_boolean
from odc_openeo.explain.calls import Call, Operand, emits
from odc_openeo.explain.emitters.math import pass_null
from odc_openeo.explain.snippets import comparison

OPERATORS: Final = {"eq": "==", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OR_EQUAL: Final = ("gte", "lte")


def get_kind(operand: Operand) -> str:
    """The openEO type of a value, or of the values of a cube."""
    value = operand.value
    if value is None:
        return "null"
    if is_boolean(value):
        return "boolean"
    if isinstance(value, str) or (isinstance(value, xr.DataArray) and value.dtype.kind in "OUST"):
        return "string"
    return "number" if isinstance(value, xr.DataArray | int | float) else "other"


def mask_nodata(call: Call, operands: list[Operand], condition: str) -> str:
    """A condition on cubes that is NaN where one of them is."""
    cubes = [o for o in operands if o.is_cube]
    if any(o.value is None for o in operands):
        return f"xr.full_like({cubes[0].code}, np.nan, dtype=float)"
    if call.value.dtype.kind in "bOUS":
        return condition
    valid = " & ".join(dict.fromkeys(f"{o.atom}.notnull()" for o in cubes))
    return f"xr.where({valid}, {condition}, np.nan)"


@emits(*OPERATORS)
def write_comparison(call: Call) -> Operand:
    x, y = call["x"], call["y"]
    name = call.node.process_id
    return (
        Operand(mask_nodata(call, [x, y], _write_condition(call, name, x, y)), call.value)
        if (call.is_cube)
        else pass_null(call, [x, y], _write_condition(call, name, x, y))
    )


def _write_condition(call: Call, name: str, x: Operand, y: Operand) -> str:
    kinds = {get_kind(x), get_kind(y)} - {"null"}
    nullable = x.is_nullable or y.is_nullable
    if name in ("eq", "neq"):
        return _write_equality(call, name, x, y, kinds)
    if nullable and not call.is_cube and kinds != {"number"}:
        kinds = {"number"}
    if kinds <= {"number"}:
        return f"{x.operand} {OPERATORS[name]} {y.operand}"
    if name in OR_EQUAL:
        return _write_equality(call, "eq", x, y, kinds)
    return _write_constant(call, x, y, False)


def _write_equality(call: Call, name: str, x: Operand, y: Operand, kinds: set[str]) -> str:
    differs = name == "neq"
    if call.has("delta") and kinds == {"number"}:
        near = f"abs({x.operand} - {y.operand}) <= {call['delta'].operand}"
        equal = (
            f"({x.operand} == {y.operand}) | ({near})"
            if call.is_cube
            else f"{x.operand} == {y.operand} or {near}"
        )
        inverted = f"~({equal})" if call.is_cube else f"not ({equal})"
        return inverted if differs else equal
    if kinds == {"string"} and "case_sensitive" in call.parameters and call["case_sensitive"].value is False:
        if call.is_cube:
            code = f"{_fold_cube(x)} {OPERATORS[name]} {_fold_cube(y)}"
        else:
            code = f"{x.atom}.casefold() {OPERATORS[name]} {y.atom}.casefold()"
        return code
    if len(kinds) > 1 or "other" in kinds:
        return _write_constant(call, x, y, differs)
    return f"{x.operand} {OPERATORS[name]} {y.operand}"


def _fold_cube(operand: Operand) -> str:
    return f"{operand.atom}.str.casefold()" if operand.is_cube else f"{operand.atom}.casefold()"


def _write_constant(call: Call, x: Operand, y: Operand, value: bool) -> str:
    """The result of comparing values of different types."""
    if not call.is_cube:
        return repr(value)
    cubes = [o.operand for o in (x, y) if o.is_cube]
    return f"xr.full_like({' + '.join(cubes)}, {value}, dtype=bool)"


@emits("between")
def write_between(call: Call) -> Operand:
    x, low, high = call["x"], call["min"], call["max"]
    below = "<" if call.json("exclude_max") else "<="
    kinds = {get_kind(o) for o in (x, low, high)} - {"null"}
    if call.is_cube:
        code = f"({x.operand} >= {low.operand}) & ({x.operand} {below} {high.operand})"
        if kinds != {"number"}:
            code = _write_constant(call, x, x, False)
        return Operand(mask_nodata(call, [x, low, high], code), call.value)
    code = f"{low.operand} <= {x.operand} {below} {high.operand}" if kinds <= {"number"} else "False"
    return pass_null(call, [x, low, high], code)


FIELDS: Final = {"is_nan": "np.isnan", "is_valid": "np.isfinite", "is_infinite": "np.isinf"}


@emits(*FIELDS)
def write_field_test(call: Call) -> str:
    x = call["x"]
    name = call.node.process_id
    if call.is_cube:
        if x.value.dtype.kind == "f" or (name == "is_valid" and x.can_miss):
            return f"{FIELDS[name]}({x.code})"
        return f"xr.full_like({x.code}, {name == 'is_valid'}, dtype=bool)"
    if isinstance(x.value, int | float) and not isinstance(x.value, bool) and not x.is_nullable:
        return f"{FIELDS[name]}({x.code})"
    return f"{call.helper(getattr(comparison, name))}({x.code})"


@emits("is_nodata")
def write_is_nodata(call: Call) -> str:
    x = call["x"]
    return f"{x.atom}.isnull()" if call.is_cube else f"{x.operand} is None"
