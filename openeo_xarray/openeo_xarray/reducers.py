"""Reducers: child processes that make one value of an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openeo.internal.graph_building import PGNode

from openeo_xarray.elementwise import Value, call

Reducer = Callable[[Value, dict[str, Any]], Value]
SEPARABLE = ("sum", "min", "max", "any", "all", "product")
"""Reducers that may be applied to one dimension after the other."""


def _simple(process: str) -> Reducer:
    return lambda data, options: call(process, data=data, ignore_nodata=bool(options.get("skipna")))


def _variance(data: Value, options: dict[str, Any]) -> Value:
    """The variance with the divisor n - ddof, of which openEO has n - 1 only."""
    skipna, ddof = bool(options.get("skipna")), options.get("ddof", 0)
    if ddof == 1:
        return call("variance", data=data, ignore_nodata=skipna)
    mean = call("mean", data=data, ignore_nodata=skipna)
    deviation = call("subtract", x={"from_parameter": "x"}, y={"from_parameter": "context"})
    square = call("power", base=deviation, p=2)
    squares = PGNode("array_apply", arguments={"data": data, "process": child(square), "context": mean})
    total = call("mean", data=squares, ignore_nodata=skipna)
    if ddof == 0:
        return total
    count = call("count", data=data) if skipna else call("count", data=data, condition=True)
    factor = call("divide", x=count, y=call("subtract", x=count, y=ddof))
    return call("multiply", x=total, y=factor)


def _deviation(data: Value, options: dict[str, Any]) -> Value:
    if options.get("ddof", 0) == 1:
        return call("sd", data=data, ignore_nodata=bool(options.get("skipna")))
    return call("sqrt", x=_variance(data, options))


def _quantile(data: Value, options: dict[str, Any]) -> Value:
    quantiles = call(
        "quantiles", data=data, probabilities=[options["q"]], ignore_nodata=bool(options.get("skipna"))
    )
    return call("array_element", data=quantiles, index=0)


def _position(process: str) -> Reducer:
    def build(data: Value, options: dict[str, Any]) -> Value:
        extreme = call(process, data=data, ignore_nodata=bool(options.get("skipna")))
        return call("array_find", data=data, value=extreme)

    return build


def _span(data: Value, options: dict[str, Any]) -> Value:
    greatest, least = _simple("max")(data, options), _simple("min")(data, options)
    return call("subtract", x=greatest, y=least)


REDUCERS: dict[str, Reducer] = {
    **{name: _simple(name) for name in ("mean", "sum", "min", "max", "median", "product", "first", "last")},
    "any": lambda data, options: call("any", data=data, ignore_nodata=True),
    "all": lambda data, options: call("all", data=data, ignore_nodata=True),
    "variance": _variance,
    "sd": _deviation,
    "quantile": _quantile,
    "argmax": _position("max"),
    "argmin": _position("min"),
    "range": _span,
    "element": lambda data, options: call("array_element", data=data, index=options["index"]),
}


def child(value: Value) -> dict[str, Any]:
    """A child process that returns a value."""
    return {"process_graph": value}


def make_reducer(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The child process of a reducer."""
    return child(REDUCERS[name]({"from_parameter": "data"}, options))
