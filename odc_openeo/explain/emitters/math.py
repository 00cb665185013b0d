"""Arithmetic: operators and functions of numpy, which do the same for numbers and for cubes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from odc_openeo.explain.calls import Call, Operand, emits
from odc_openeo.explain.code import wrap_operand
from odc_openeo.explain.snippets import numbers

OPERATORS: Final = {"add": "+", "subtract": "-", "multiply": "*"}
FUNCTIONS: Final = {
    "absolute": "abs",
    "sgn": "np.sign",
    "sqrt": "np.sqrt",
    "ln": "np.log",
    "sin": "np.sin",
    "cos": "np.cos",
    "tan": "np.tan",
    "arcsin": "np.arcsin",
    "arccos": "np.arccos",
    "arctan": "np.arctan",
    "sinh": "np.sinh",
    "cosh": "np.cosh",
    "tanh": "np.tanh",
    "arsinh": "np.arcsinh",
    "arcosh": "np.arccosh",
    "artanh": "np.arctanh",
    "floor": "np.floor",
    "ceil": "np.ceil",
    "int": "np.trunc",
}
CONSTANTS: Final = {"e": "np.e", "pi": "np.pi", "nan": "np.nan"}


def write_number(call: Call, operand: Operand) -> str:
    """A number or cube as an operand; null beside a cube is NaN."""
    if operand.value is None and not operand.is_nullable and call.is_cube:
        return "np.nan"
    return wrap_operand(operand.code)


def pass_null(call: Call, operands: Sequence[Operand], code: str) -> Operand:
    """The code, or null where an operand is null; cubes have NaN instead."""
    if call.is_cube:
        return Operand(code, call.value)
    nullable = [o for o in operands if not o.is_cube and (o.value is None or o.is_nullable)]
    if not nullable:
        return Operand(code, call.value)
    tests = " or ".join(dict.fromkeys(f"{o.operand} is None" for o in nullable))
    return Operand(f"None if {tests} else {code}", call.value, is_nullable=True)


def _is_zero_possible(operand: Operand) -> bool:
    return operand.is_nullable or not (isinstance(operand.value, int | float) and operand.value)


@emits(*CONSTANTS)
def write_constant(call: Call) -> str:
    return CONSTANTS[call.node.process_id]


@emits("constant")
def write_value(call: Call) -> str:
    return call["x"].code


@emits(*OPERATORS)
def write_operator(call: Call) -> Operand:
    x, y = call["x"], call["y"]
    code = f"{write_number(call, x)} {OPERATORS[call.node.process_id]} {write_number(call, y)}"
    return pass_null(call, [x, y], code)


@emits("divide")
def write_division(call: Call) -> Operand:
    """The operator; numpy's division where Python would raise an error for zero."""
    x, y = call["x"], call["y"]
    code = f"{write_number(call, x)} / {write_number(call, y)}"
    if not call.is_cube and _is_zero_possible(y):
        code = f"np.float64({x.code}) / {y.operand}"
    return pass_null(call, [x, y], code)


@emits("mod")
def write_modulo(call: Call) -> Operand:
    x, y = call["x"], call["y"]
    numeric = isinstance(y.value, int | float) and not y.is_nullable
    if numeric and y.value != 0 and math.isfinite(y.value) and (call.is_cube or _is_finite(x)):
        code = f"{write_number(call, x)} % {y.operand}"
    else:
        code = f"{call.helper(numbers.modulo)}({write_number(call, x)}, {write_number(call, y)})"
    return pass_null(call, [x, y], code)


def _is_finite(operand: Operand) -> bool:
    return isinstance(operand.value, int | float) and math.isfinite(operand.value)


@emits("power")
def write_power(call: Call) -> Operand:
    base, p = call["base"], call["p"]
    if not call.is_cube:
        whole = all(isinstance(o.value, int) and not o.is_nullable for o in (base, p)) and p.value >= 0
        code = f"{base.operand} ** {p.operand}" if whole else f"np.float_power({base.code}, {p.code})"
        return pass_null(call, [base, p], code)
    code = f"{write_number(call, base)} ** {write_number(call, p)}"
    always = base.is_cube and isinstance(p.value, int | float) and p.value != 0 and p.value == p.value
    if always:
        return Operand(code, call.value)
    tests = [f"{o.atom}.notnull()" for o in (base, p) if o.is_cube]
    if not all(o.is_cube or (o.value is not None and o.value == o.value) for o in (base, p)):
        tests.append("False")
    return Operand(f"({code}).where({' & '.join(tests)})", call.value)


@emits(*FUNCTIONS)
def write_function_call(call: Call) -> Operand:
    x = call["x"]
    function = FUNCTIONS[call.node.process_id]
    code = f"{function}({x.code})"
    is_nan = isinstance(x.value, float) and math.isnan(x.value)
    if call.node.process_id == "int" and not call.is_cube and (is_nan or x.is_nullable):
        code = f"None if np.isnan({x.code}) else {code}"
    return pass_null(call, [x], code)


@emits("exp")
def write_exponential(call: Call) -> Operand:
    return pass_null(call, [call["p"]], f"np.exp({call['p'].code})")


@emits("log")
def write_logarithm(call: Call) -> Operand:
    x, base = call["x"], call["base"]
    if base.value in (2, 10) and not base.is_cube:
        return pass_null(call, [x, base], f"np.log{base.value:g}({write_number(call, x)})")
    code = f"np.log({write_number(call, x)}) / np.log({write_number(call, base)})"
    return pass_null(call, [x, base], code)


@emits("arctan2")
def write_arctan2(call: Call) -> Operand:
    y, x = call["y"], call["x"]
    return pass_null(call, [y, x], f"np.arctan2({write_number(call, y)}, {write_number(call, x)})")


@emits("round")
def write_round(call: Call) -> Operand:
    """Numpy's rounding, to even; numbers in JSON by their decimal digits."""
    x, p = call["x"], call["p"]
    if not call.is_cube and (x.is_nullable or isinstance(x.value, float)):
        return pass_null(call, [x], f"{call.helper(numbers.round_decimal)}({x.code}, {p.code})")
    if isinstance(x.value, int):
        return Operand(f"round({x.code}, {p.code})", call.value)
    digits = f", {p.code}" if p.value else ""
    return pass_null(call, [x], f"np.round({x.code}{digits})")


@emits("clip")
def write_clip(call: Call) -> Operand:
    x, low, high = call["x"], call["min"], call["max"]
    if call.is_cube and x.is_cube:
        return Operand(f"{x.atom}.clip({low.code}, {high.code})", call.value)
    code = f"np.clip({x.code}, {low.code}, {high.code})"
    return pass_null(call, [x, low, high], code)


@emits("linear_scale_range")
def write_scaling(call: Call) -> Operand:
    x = call["x"]
    names = ("inputMin", "inputMax", "outputMin", "outputMax")
    low, high, target_low, target_high = (call[name] for name in names)
    if (
        all(isinstance(o.value, int | float) and not o.is_nullable for o in (low, high))
        and low.value <= high.value
    ):
        limits = f"{low.code}, {high.code}"
    else:
        limits = f"np.minimum({low.code}, {high.code}), np.maximum({low.code}, {high.code})"
    clipped = f"np.clip({write_number(call, x)}, {limits})"
    share = f"({clipped} - {low.operand}) / ({high.operand} - {low.operand})"
    if not call.is_cube and low.value == high.value:
        share = f"np.float64({clipped} - {low.operand}) / ({high.operand} - {low.operand})"
    code = f"{share} * ({target_high.operand} - {target_low.operand}) + {target_low.operand}"
    if target_low.value == 0 and not target_low.is_cube:
        code = f"{share} * {target_high.operand}"
    return pass_null(call, [x, low, high, target_low, target_high], code)


@emits("normalized_difference")
def write_normalized_difference(call: Call) -> Operand:
    x, y = call["x"], call["y"]
    a, b = write_number(call, x), write_number(call, y)
    if call.is_cube:
        return Operand(f"({a} - {b}) / ({a} + {b})", call.value)
    return pass_null(call, [x, y], f"np.float64({a} - {b}) / ({a} + {b})")
