"""Functions of single values: what NumPy calls them, their dtype, and the processes that say the same.

NaN is what openEO calls no-data. Calculations keep it in both worlds. Comparisons do not: NumPy says false
(`!=`: true), openEO says no-data, so a test for no-data is added wherever a value may be NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from openeo.internal.graph_building import PGNode

from openeo_xarray.nodes import Node

Value = Any
"""A scalar, a reference to a parameter, or a node of a child process."""


@dataclass(frozen=True)
class Argument:
    """A value inside a child process, and the dtype that NumPy would have for it."""

    value: Value
    dtype: np.dtype[Any]

    @property
    def may_be_nodata(self) -> bool:
        return self.dtype.kind == "f" and not _is_number(self.value)


Builder = Callable[..., Value]


def _is_number(value: Value) -> bool:
    if value is None:
        return False
    return isinstance(value, bool | int | float) and not (isinstance(value, float) and math.isnan(value))


def call(process: str, /, **arguments: Value) -> PGNode:
    """A call of a process."""
    return PGNode(process, arguments=arguments)


def is_nodata(argument: Argument) -> Value:
    """Whether a value is missing."""
    return call("is_nodata", x=argument.value) if argument.may_be_nodata else False


def _unary(process: str) -> Builder:
    return lambda a: call(process, x=a.value)


def _binary(process: str) -> Builder:
    return lambda a, b: call(process, x=a.value, y=b.value)


def _chain(*processes: tuple[str, dict[str, Value]]) -> Builder:
    """Processes one after the other, each with `x` and constants."""

    def build(a: Argument) -> Value:
        value = a.value
        for process, constants in processes:
            value = call(process, x=value, **constants)
        return value

    return build


def _compare(process: str, nodata_is: bool = False) -> Builder:
    """A comparison that NumPy answers with a boolean for NaN as well."""

    def build(a: Argument, b: Argument) -> Value:
        result = call(process, x=_as_number(a), y=_as_number(b))
        for argument in (a, b):
            if argument.may_be_nodata:
                missing = call("is_nodata", x=argument.value)
                if nodata_is:
                    result = call("or", x=missing, y=result)
                else:
                    result = call("and", x=call("not", x=missing), y=result)
        return result

    return build


def _as_number(a: Argument) -> Value:
    """A value to compare or calculate with: booleans are 0 and 1 for NumPy, but no numbers for openEO."""
    if a.dtype.kind != "b":
        return a.value
    if isinstance(a.value, bool):
        return int(a.value)
    return call("if", value=a.value, accept=1, reject=0)


def _numbers(builder: Builder) -> Builder:
    """A function of numbers, with booleans made numbers."""
    return lambda *arguments: builder(*(Argument(_as_number(a), a.dtype) for a in arguments))


def as_boolean(a: Argument) -> Value:
    """Whether a value is true for NumPy: NaN is."""
    if a.dtype.kind == "b":
        return a.value
    return _compare("neq", nodata_is=True)(a, Argument(0, np.dtype("int64")))


def _logic(process: str) -> Builder:
    return lambda a, b: call(process, x=as_boolean(a), y=as_boolean(b))


def _where(condition: Argument, yes: Argument, no: Argument) -> Value:
    if isinstance(condition.value, bool):
        return (yes if condition.value else no).value
    both_boolean = yes.dtype.kind == no.dtype.kind == "b"
    accept, reject = (_as_branch(a.value if both_boolean else _as_number(a)) for a in (yes, no))
    return call("if", value=as_boolean(condition), accept=accept, reject=reject)


def _as_branch(value: Value) -> Value:
    """A branch of `if`. No-data are NaN here, as some back-ends take null for a branch that is not given."""
    return call("nan") if value is None else to_json(value)


def to_json(value: Value) -> Value:
    """A constant as JSON has it: NaN is no-data, and infinity what a logarithm gives."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            infinity = call("ln", x=0)
            return infinity if value < 0 else call("multiply", x=-1, y=infinity)
    return value


def _extreme(process: str, ignore: bool) -> Builder:
    return lambda a, b: call(process, data=[a.value, b.value], ignore_nodata=ignore)


def _isin(a: Argument, *values: Argument) -> Value:
    tests = [call("eq", x=_as_number(a), y=value.value) for value in values if not math.isnan(value.value)]
    result = call("any", data=tests, ignore_nodata=True) if tests else False
    return call("and", x=call("not", x=is_nodata(a)), y=result) if a.may_be_nodata else result


def _nodata_test(a: Argument) -> Value:
    if a.may_be_nodata:
        return call("is_nodata", x=a.value)
    return call("neq", x=_as_number(a), y=_as_number(a))


def _to_integer(a: Argument) -> Value:
    return call("int", x=a.value) if a.dtype.kind == "f" else _as_number(a)


def _floor_divide(a: Argument, b: Argument) -> Value:
    return call("floor", x=call("divide", x=a.value, y=b.value))


def _remainder(a: Argument, b: Argument) -> Value:
    return call("subtract", x=a.value, y=call("multiply", x=_floor_divide(a, b), y=b.value))


def _is_infinite(a: Argument) -> Value:
    finite = call("multiply", x=a.value, y=0)
    test = call("and", x=call("is_nodata", x=finite), y=call("not", x=call("is_nodata", x=a.value)))
    return test if a.may_be_nodata else _nodata_test(a)


def _is_finite(a: Argument) -> Value:
    if not a.may_be_nodata:
        return call("not", x=_nodata_test(a))
    return call("not", x=call("is_nodata", x=call("multiply", x=a.value, y=0)))


BUILDERS: dict[str, Builder] = {
    "add": _numbers(_binary("add")),
    "subtract": _numbers(_binary("subtract")),
    "multiply": _numbers(_binary("multiply")),
    "divide": _numbers(_binary("divide")),
    "floor_divide": _numbers(_floor_divide),
    "remainder": _numbers(_remainder),
    "power": _numbers(lambda a, b: call("power", base=a.value, p=b.value)),
    "arctan2": _numbers(lambda a, b: call("arctan2", y=a.value, x=b.value)),
    "hypot": _numbers(
        lambda a, b: call(
            "sqrt",
            x=call("add", x=call("power", base=a.value, p=2), y=call("power", base=b.value, p=2)),
        )
    ),
    "minimum": _numbers(_extreme("min", ignore=False)),
    "maximum": _numbers(_extreme("max", ignore=False)),
    "fmin": _numbers(_extreme("min", ignore=True)),
    "fmax": _numbers(_extreme("max", ignore=True)),
    "negative": _numbers(_chain(("multiply", {"y": -1}))),
    "positive": lambda a: a.value,
    "absolute": _numbers(_unary("absolute")),
    "sign": _numbers(_unary("sgn")),
    "sqrt": _numbers(_unary("sqrt")),
    "square": _numbers(lambda a: call("power", base=a.value, p=2)),
    "reciprocal": _numbers(lambda a: call("divide", x=1, y=a.value)),
    "exp": _numbers(lambda a: call("exp", p=a.value)),
    "exp2": _numbers(lambda a: call("power", base=2, p=a.value)),
    "expm1": _numbers(lambda a: call("subtract", x=call("exp", p=a.value), y=1)),
    "log": _numbers(_unary("ln")),
    "log1p": _numbers(_chain(("add", {"y": 1}), ("ln", {}))),
    "log2": _numbers(_chain(("log", {"base": 2}))),
    "log10": _numbers(_chain(("log", {"base": 10}))),
    "floor": _numbers(_unary("floor")),
    "ceil": _numbers(_unary("ceil")),
    "trunc": _numbers(_unary("int")),
    "rint": _numbers(_unary("round")),
    "round": _numbers(lambda a, digits: call("round", x=a.value, p=digits.value)),
    "deg2rad": _numbers(_chain(("multiply", {"y": math.pi / 180}))),
    "rad2deg": _numbers(_chain(("multiply", {"y": 180 / math.pi}))),
    "sin": _numbers(_unary("sin")),
    "cos": _numbers(_unary("cos")),
    "tan": _numbers(_unary("tan")),
    "arcsin": _numbers(_unary("arcsin")),
    "arccos": _numbers(_unary("arccos")),
    "arctan": _numbers(_unary("arctan")),
    "sinh": _numbers(_unary("sinh")),
    "cosh": _numbers(_unary("cosh")),
    "tanh": _numbers(_unary("tanh")),
    "arcsinh": _numbers(_unary("arsinh")),
    "arccosh": _numbers(_unary("arcosh")),
    "arctanh": _numbers(_unary("artanh")),
    "equal": _compare("eq"),
    "not_equal": _compare("neq", nodata_is=True),
    "less": _compare("lt"),
    "less_equal": _compare("lte"),
    "greater": _compare("gt"),
    "greater_equal": _compare("gte"),
    "logical_and": _logic("and"),
    "logical_or": _logic("or"),
    "logical_xor": _logic("xor"),
    "logical_not": lambda a: call("not", x=as_boolean(a)),
    "isnan": _nodata_test,
    "isfinite": _is_finite,
    "isinf": _is_infinite,
    "where": _where,
    "isin": _isin,
    "to_boolean": as_boolean,
    "to_integer": _to_integer,
    "to_float": _as_number,
    "lookup": lambda a, table: call("array_element", data=table.value, index=a.value),
}
"""Builders of child processes, by the names of NumPy where NumPy has one."""

BITWISE = {
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "invert": "logical_not",
}
"""Operators of booleans; those of integers can't be expressed."""

RESULTS: dict[str, Callable[..., Any]] = {
    "to_boolean": lambda a: np.asarray(a).astype(bool),
    "to_float": lambda a: np.asarray(a).astype(np.float64),
    "to_integer": lambda a: np.asarray(a).astype(np.int64),
    "isin": lambda a, *values: np.isin(a, values),
    "lookup": lambda a, table: np.asarray(table)[np.asarray(a, int)],
}
"""Functions that NumPy has under another name."""


def evaluate_constants(function: str, values: Sequence[Any]) -> Any:
    """Apply a function to values that the client has."""
    with np.errstate(all="ignore"):
        return RESULTS.get(function, getattr(np, function, None))(*values)  # type: ignore[misc]


def find_dtype(function: str, arguments: Sequence[Node]) -> np.dtype[Any]:
    """Find the dtype of a result by applying the function to one element of each dtype."""
    samples = [_make_sample(a) for a in arguments]
    return np.dtype(np.asarray(evaluate_constants(function, samples)).dtype)


def _make_sample(node: Node) -> Any:
    """A value of the dtype of a node. Scalars of Python keep their weak type."""
    values = getattr(node, "values", None)
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return values.item() if getattr(node, "weak", False) else values[()]
    return np.ones(1, node.dtype)


def build_value(function: str, arguments: Sequence[Argument]) -> Value:
    """Call the processes that say a function of values."""
    return BUILDERS[function](*(Argument(to_json(a.value), a.dtype) for a in arguments))
