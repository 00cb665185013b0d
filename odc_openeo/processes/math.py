"""Mathematical processes on single numbers: constants, arithmetic, rounding, logarithms and trigonometry.

All of them accept JSON numbers or cubes (value by value). Null, or no-data in a cube, yields the same.
"""

from __future__ import annotations

import decimal
import math
from functools import partial
from typing import Annotated, Any

import numpy as np
import xarray as xr

from odc_openeo.cube.elementwise import apply_ieee, as_float, elementwise, has_cube
from odc_openeo.errors import MinMaxSwapped
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import AnyValue, Integer, NumberOrNull

_NULLABLE = {"type": ["number", "null"]}

Numeric = float | None | xr.DataArray
# The published schemas say "number" or set bounds, but null and numbers out of bounds are accepted as well.
Number = Annotated[Numeric, Schema({"type": "number"}, accepts=_NULLABLE)]
IntegerOrNull = Annotated[Numeric, Schema({"type": ["integer", "null"]})]


def _bounded_schema(**bounds: float) -> Schema:
    return Schema({**_NULLABLE, **bounds}, accepts=_NULLABLE)


NotNegative = Annotated[Numeric, _bounded_schema(minimum=0)]
OneToOne = Annotated[Numeric, _bounded_schema(minimum=-1, maximum=1)]


# --- Constants -----------------------------------------------------------------------------------


@process(categories=["math > constants", "math > exponential & logarithmic"], examples=[Example({}, math.e)])
def e() -> Number:
    """Euler's number.

    The base of the natural logarithm, about 2.71828, as a 64 bit floating-point number.

    Returns:
        The number e.
    """
    return math.e


@process(categories=["math > constants", "math > trigonometric"], examples=[Example({}, math.pi)])
def pi() -> Number:
    """Pi.

    The ratio of the circumference of a circle to its diameter, about 3.14159, as a 64 bit floating-point
    number.

    Returns:
        The number π.
    """
    return math.pi


@process(categories=["math > constants"], experimental=True)
def nan() -> Any:
    """Not a number.

    The floating-point value NaN. In JSON arrays NaN is a value and not the same as null; in cubes of floats
    NaN marks no-data.

    Returns:
        NaN.
    """
    return math.nan


@process(
    categories=["math > constants"],
    examples=[Example({"x": 5}, 5), Example({"x": ["a", None]}, ["a", None])],
    raw_values_of=("x",),
)
def constant(x: AnyValue) -> AnyValue:
    """A constant.

    Returns its argument unchanged. Use it to define a value that several places of a process refer to.

    Args:
        x: The value.

    Returns:
        The unchanged value.
    """
    return x


# --- Arithmetic ----------------------------------------------------------------------------------


@process(
    categories=["math"],
    examples=[
        Example({"x": 5, "y": 2.5}, 7.5),
        Example({"x": -2, "y": -4}, -6),
        Example({"x": 1, "y": None}, None),
    ],
)
def add(x: NumberOrNull, y: NumberOrNull) -> NumberOrNull:
    """Sum of two numbers.

    Adds `x` and `y`. If one of them is no-data, so is the result.

    Args:
        x: The first number.
        y: The second number.

    Returns:
        The sum.
    """
    return elementwise(lambda a, b: a + b, np.add, x, y)


@process(categories=["math"], examples=[Example({"x": 5, "y": 2.5}, 2.5), Example({"x": None, "y": 1}, None)])
def subtract(x: NumberOrNull, y: NumberOrNull) -> NumberOrNull:
    """Difference of two numbers.

    Subtracts `y` from `x`. If one of them is no-data, so is the result.

    Args:
        x: The minuend.
        y: The subtrahend.

    Returns:
        The difference.
    """
    return elementwise(lambda a, b: a - b, np.subtract, x, y)


@process(
    categories=["math"], examples=[Example({"x": 5, "y": 2.5}, 12.5), Example({"x": 1, "y": None}, None)]
)
def multiply(x: NumberOrNull, y: NumberOrNull) -> NumberOrNull:
    """Product of two numbers.

    Multiplies `x` by `y`. If one of them is no-data, so is the result.

    Args:
        x: The first factor.
        y: The second factor.

    Returns:
        The product.

    Raises:
        MultiplicandMissing: A multiplication needs at least two numbers.
    """
    return elementwise(lambda a, b: a * b, np.multiply, x, y)


@process(categories=["math"], examples=[Example({"x": 5, "y": 2.5}, 2), Example({"x": -2, "y": 4}, -0.5)])
def divide(x: NumberOrNull, y: NumberOrNull) -> NumberOrNull:
    """Quotient of two numbers.

    Divides `x` by `y`. Division by zero is not an error: it gives infinity with the sign of `x`, and NaN for
    0 / 0. If one of the numbers is no-data, so is the result.

    Args:
        x: The dividend.
        y: The divisor.

    Returns:
        The quotient.

    Raises:
        DivisionByZero: Never raised by this back-end; division by zero gives infinity or NaN.
    """
    return elementwise(_divide_scalars, np.divide, x, y)


def _divide_scalars(x: float, y: float) -> float:
    if y == 0:
        return _divide_by_zero(x)
    if isinstance(x, int) and isinstance(y, int) and x % y == 0:
        return x // y
    return x / y


def _divide_by_zero(x: float) -> float:
    return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x)


@process(
    categories=["math"],
    examples=[
        Example({"x": 27, "y": 5}, 2),
        Example({"x": -27, "y": 5}, 3),
        Example({"x": 27, "y": None}, None),
    ],
)
def mod(x: NumberOrNull, y: NumberOrNull) -> NumberOrNull:
    """Remainder of a division.

    The remainder when `x` is divided by `y`. It has the sign of `y`, for integers and fractions alike. For
    `y` = 0 the result is infinity with the sign of `x`, or NaN if `x` is 0 as well. An infinite `y` leaves a
    finite `x` unchanged. If one of the numbers is no-data, so is the result.

    Args:
        x: The dividend.
        y: The divisor.

    Returns:
        The remainder.

    Raises:
        DivisionByZero: Never raised by this back-end; division by zero gives infinity or NaN.
    """
    return elementwise(_mod_scalars, _mod_blocks, x, y)


def _mod_scalars(x: float, y: float) -> float:
    if y == 0:
        return _divide_by_zero(x)
    if math.isnan(x) or math.isinf(x):
        return math.nan
    return x if math.isinf(y) else x % y


def _mod_blocks(x: Any, y: Any) -> Any:
    remainder = np.where(np.isinf(y) & np.isfinite(x), x, np.mod(x, y))
    result = np.where((y == 0) & (np.abs(x) > 0), np.copysign(np.inf, x), remainder)
    return result.astype(np.result_type(x, y), copy=False)


@process(
    categories=["math", "math > exponential & logarithmic"],
    examples=[
        Example({"base": 3, "p": 3}, 27),
        Example({"base": 5, "p": -1}, 0.2),
        Example({"base": 1, "p": None}, None),
    ],
)
def power(base: NumberOrNull, p: NumberOrNull) -> NumberOrNull:
    """Power of a number.

    Raises `base` to the power of `p`. A negative base with a fractional exponent gives NaN. If one of the
    numbers is no-data, so is the result.

    Args:
        base: The base.
        p: The exponent.

    Returns:
        The power.
    """
    return elementwise(_power_scalars, _power_blocks, base, p)


def _power_scalars(base: float, p: float) -> float:
    are_integers = isinstance(base, int) and isinstance(p, int)
    if are_integers and p >= 0 and int(base).bit_length() * p <= 1000:
        return int(base) ** int(p)
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(as_float(base)), np.float64(as_float(p))))


def _power_blocks(base: Any, p: Any) -> Any:
    # In IEEE 754, NaN to the power of 0 and 1 to the power of NaN are 1; here NaN is no-data and stays NaN.
    return np.where(np.isnan(base) | np.isnan(p), np.nan, np.power(base, p))


@process(categories=["math"], examples=[Example({"x": -0.4}, 0.4), Example({"x": None}, None)])
def absolute(x: NumberOrNull) -> Annotated[Numeric, _bounded_schema(minimum=0)]:
    """Absolute value.

    The distance of `x` from zero. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The absolute value.
    """
    return elementwise(abs, np.abs, x)


@process(categories=["math"], examples=[Example({"x": -2}, -1), Example({"x": 3.5}, 1), Example({"x": 0}, 0)])
def sgn(
    x: NumberOrNull,
) -> Annotated[Numeric, Schema({"type": ["number", "null"], "enum": [-1, 0, 1, None]})]:
    """Sign of a number.

    1 for positive numbers, -1 for negative ones, 0 for zero. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The sign.
    """
    return elementwise(_sign_of_scalar, np.sign, x)


def _sign_of_scalar(x: float) -> float:
    return math.nan if math.isnan(x) else (x > 0) - (x < 0)


@process(
    categories=["math"],
    examples=[
        Example({"x": -5, "min": -1, "max": 1}, -1),
        Example({"x": 10.001, "min": 1, "max": 10}, 10),
        Example({"x": None, "min": 0, "max": 1}, None),
    ],
    raw_values_of=("x",),
)
def clip(x: NumberOrNull, min: Number, max: Number) -> NumberOrNull:
    """Limit a number to a range.

    Numbers below `min` become `min`, numbers above `max` become `max`. No-data stays no-data.

    Args:
        x: A number.
        min: The lower limit.
        max: The upper limit.

    Returns:
        The number within the limits.

    Raises:
        MinMaxSwapped: The minimum is larger than the maximum.
    """
    if not has_cube(min, max) and min is not None and max is not None and min > max:
        raise MinMaxSwapped(min=min, max=max)
    return elementwise(_clip_scalar, np.clip, x, min, max)


def _clip_scalar(x: float, low: float, high: float) -> float:
    if math.isnan(x) or math.isnan(low) or math.isnan(high):
        return math.nan
    return low if x < low else high if x > high else x


@process(
    categories=["math"],
    examples=[
        Example({"x": 0.3, "inputMin": -1, "inputMax": 1, "outputMin": 0, "outputMax": 255}, 165.75),
        Example({"x": 25.5, "inputMin": 0, "inputMax": 255}, 0.1),
        Example({"x": 1.12, "inputMin": 0, "inputMax": 1, "outputMax": 255}, 255, title="Clipped"),
    ],
)
def linear_scale_range(
    x: NumberOrNull,
    inputMin: Number,  # noqa: N803  (names of the specification)
    inputMax: Number,  # noqa: N803
    outputMin: Number = 0,  # noqa: N803
    outputMax: Number = 1,  # noqa: N803
) -> NumberOrNull:
    """Transform a number linearly from one range to another.

    `x` is clipped to the input range first, so that the result is always within the output range:
    `(x - inputMin) / (inputMax - inputMin) * (outputMax - outputMin) + outputMin`. No-data stays no-data.

    Args:
        x: A number.
        inputMin: The start of the input range.
        inputMax: The end of the input range.
        outputMin: The start of the output range.
        outputMax: The end of the output range.

    Returns:
        The transformed number.
    """
    return apply_ieee(_scale_linearly, x, inputMin, inputMax, outputMin, outputMax)


def _scale_linearly(x: Any, input_min: Any, input_max: Any, output_min: Any, output_max: Any) -> Any:
    clipped = (
        np.clip(x, np.minimum(input_min, input_max), np.maximum(input_min, input_max))
        if _needs_numpy(input_min, input_max)
        else np.clip(x, min(input_min, input_max), max(input_min, input_max))
    )
    return (clipped - input_min) / (input_max - input_min) * (output_max - output_min) + output_min


def _needs_numpy(*values: Any) -> bool:
    # NumPy also handles NaN among scalars, which min() and max() don't propagate.
    return any(isinstance(v, np.ndarray) or math.isnan(v) for v in values)


@process(
    categories=["math > indices", "vegetation indices"],
    examples=[Example({"x": 3, "y": 1}, 0.5), Example({"x": 1, "y": 1}, 0)],
)
def normalized_difference(
    x: Number, y: Number
) -> Annotated[Numeric, Schema({"type": "number", "minimum": -1, "maximum": 1})]:
    """Normalised difference of two bands.

    `(x - y) / (x + y)`, as in the NDVI (near-infrared, red) or the NDWI (green, near-infrared). NaN if
    both are 0. If one of the numbers is no-data, so is the result.

    Args:
        x: The value of the first band.
        y: The value of the second band.

    Returns:
        The normalised difference.
    """
    return apply_ieee(_normalized_difference, x, y)


def _normalized_difference(x: Any, y: Any) -> Any:
    return (x - y) / (x + y)


# --- Rounding ------------------------------------------------------------------------------------


def _round_unless_integer(on_json: Any, on_blocks: Any, x: Any) -> Any:
    """Round to whole numbers; cubes of integers stay as they are, with dtype and no-data value."""
    if isinstance(x, xr.DataArray) and np.issubdtype(x.dtype, np.integer):
        return x
    return elementwise(on_json, on_blocks, x)


@process(
    categories=["math", "math > rounding"],
    examples=[Example({"x": 3.5}, 3), Example({"x": -3.5}, -3), Example({"x": None}, None)],
)
def int_(x: NumberOrNull) -> IntegerOrNull:
    """Integer part of a number.

    Rounds towards zero by dropping the fraction. NaN has no integer part and gives no-data; infinity stays
    infinite.

    Args:
        x: A number.

    Returns:
        The integer part.
    """
    return _round_unless_integer(_integer_part, np.trunc, x)


def _integer_part(x: float) -> float | None:
    if math.isnan(x):
        return None
    return x if math.isinf(x) else int(x)


@process(categories=["math > rounding"], examples=[Example({"x": 3.5}, 4), Example({"x": -3.5}, -3)])
def ceil(x: NumberOrNull) -> IntegerOrNull:
    """Round up.

    The smallest integer that is not below `x`. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The number rounded up.
    """
    return _round_unless_integer(partial(_if_finite, math.ceil), np.ceil, x)


@process(categories=["math > rounding"], examples=[Example({"x": 3.5}, 3), Example({"x": -3.5}, -4)])
def floor(x: NumberOrNull) -> IntegerOrNull:
    """Round down.

    The largest integer that is not greater than `x`. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The number rounded down.
    """
    return _round_unless_integer(partial(_if_finite, math.floor), np.floor, x)


def _if_finite(function: Any, x: float) -> float:
    return function(x) if math.isfinite(x) else x


@process(
    categories=["math > rounding"],
    examples=[
        Example({"x": 3.56, "p": 1}, 3.6),
        Example({"x": -2.5}, -2),
        Example({"x": 0.35, "p": 1}, 0.4),
        Example({"x": 1234.5, "p": -2}, 1200),
    ],
)
def round_(x: NumberOrNull, p: Integer = 0) -> NumberOrNull:
    """Round to a number of digits.

    Rounds to `p` digits after the decimal point; ties are rounded to the even neighbour. Numbers are rounded
    as written in decimal: 0.35 is a tie, although its binary representation is slightly smaller. No-data
    stays no-data.

    Args:
        x: A number.
        p: The number of digits after the decimal point; negative to round to tens (-1), hundreds (-2), …

    Returns:
        The rounded number.
    """
    digits = int(p)
    if digits >= 0:
        return _round_unless_integer(partial(_round_half_even, digits), partial(np.round, decimals=digits), x)
    return elementwise(partial(_round_half_even, digits), partial(np.round, decimals=digits), x)


def _round_half_even(digits: int, x: float) -> float:
    if isinstance(x, int):
        return round(x, digits) if -1000 < digits < 0 else x if digits >= 0 else 0
    if not math.isfinite(x) or digits > 400:
        return x
    if digits < -400:
        return 0.0
    context = decimal.Context(prec=1000, rounding=decimal.ROUND_HALF_EVEN)
    return float(
        decimal.Decimal(repr(float(x))).quantize(decimal.Decimal(1).scaleb(-digits), context=context)
    )


# --- Exponential and logarithmic -----------------------------------------------------------------


@process(
    categories=["math", "math > exponential & logarithmic"],
    examples=[Example({"x": 9}, 3), Example({"x": None}, None)],
)
def sqrt(x: NumberOrNull) -> NumberOrNull:
    """Square root.

    The number whose square is `x`; NaN for negative numbers. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The square root.
    """
    return apply_ieee(np.sqrt, x)


@process(
    categories=["math > exponential & logarithmic"],
    examples=[Example({"p": 0}, 1), Example({"p": None}, None)],
)
def exp(p: NumberOrNull) -> Annotated[Numeric, Schema({"type": ["number", "null"], "minimumExclusive": 0})]:
    """Exponential function.

    Raises Euler's number to the power of `p`. No-data stays no-data.

    Args:
        p: The exponent.

    Returns:
        The power of e.
    """
    return apply_ieee(np.exp, p)


@process(categories=["math > exponential & logarithmic"], examples=[Example({"x": 1}, 0)])
def ln(x: NotNegative) -> NumberOrNull:
    """Natural logarithm.

    The power to which Euler's number must be raised to give `x`. The logarithm of 0 is -infinity, that of a
    negative number is NaN. No-data stays no-data.

    Args:
        x: A non-negative number.

    Returns:
        The logarithm.
    """
    return apply_ieee(np.log, x)


@process(
    categories=["math > exponential & logarithmic"],
    examples=[
        Example({"x": 10, "base": 10}, 1),
        Example({"x": 4, "base": 2}, 2),
        Example({"x": 1, "base": 16}, 0),
    ],
)
def log(x: NotNegative, base: NumberOrNull) -> NumberOrNull:
    """Logarithm.

    The power to which `base` must be raised to give `x`. The logarithm of 0 is infinite, that of a negative
    number is NaN. If one of the numbers is no-data, so is the result.

    Args:
        x: A non-negative number.
        base: The base.

    Returns:
        The logarithm.
    """
    return apply_ieee(_log_to_base, x, base)


def _log_to_base(x: Any, base: Any) -> Any:
    if np.ndim(base) == 0 and base in (2, 10):
        return np.log2(x) if base == 2 else np.log10(x)
    return np.asarray(np.log(x) / np.log(base), np.result_type(x, base))


# --- Trigonometry --------------------------------------------------------------------------------


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def sin(x: NumberOrNull) -> OneToOne:
    """Sine.

    The sine of an angle in radians. No-data stays no-data.

    Args:
        x: An angle in radians.

    Returns:
        The sine.
    """
    return apply_ieee(np.sin, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 1)])
def cos(x: NumberOrNull) -> OneToOne:
    """Cosine.

    The cosine of an angle in radians. No-data stays no-data.

    Args:
        x: An angle in radians.

    Returns:
        The cosine.
    """
    return apply_ieee(np.cos, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def tan(x: NumberOrNull) -> NumberOrNull:
    """Tangent.

    The tangent of an angle in radians: its sine divided by its cosine. No-data stays no-data.

    Args:
        x: An angle in radians.

    Returns:
        The tangent.
    """
    return apply_ieee(np.tan, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def arcsin(x: OneToOne) -> NumberOrNull:
    """Arc sine.

    The angle from -π/2 to π/2 whose sine is `x`; NaN if `x` is not from -1 to 1. No-data stays no-data.

    Args:
        x: A number from -1 to 1.

    Returns:
        The angle in radians.
    """
    return apply_ieee(np.arcsin, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 1}, 0)])
def arccos(x: OneToOne) -> NotNegative:
    """Arc cosine.

    The angle from 0 to π whose cosine is `x`; NaN if `x` is not from -1 to 1. No-data stays no-data.

    Args:
        x: A number from -1 to 1.

    Returns:
        The angle in radians.
    """
    return apply_ieee(np.arccos, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def arctan(x: NumberOrNull) -> NumberOrNull:
    """Arc tangent.

    The angle between -π/2 and π/2 whose tangent is `x`. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The angle in radians.
    """
    return apply_ieee(np.arctan, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def sinh(x: NumberOrNull) -> NumberOrNull:
    """Hyperbolic sine.

    The hyperbolic sine of `x`. No-data stays no-data.

    Args:
        x: A hyperbolic angle in radians.

    Returns:
        The hyperbolic sine.
    """
    return apply_ieee(np.sinh, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 1)])
def cosh(x: NumberOrNull) -> Annotated[Numeric, _bounded_schema(minimum=1)]:
    """Hyperbolic cosine.

    The hyperbolic cosine of `x`, which is never below 1. No-data stays no-data.

    Args:
        x: A hyperbolic angle in radians.

    Returns:
        The hyperbolic cosine.
    """
    return apply_ieee(np.cosh, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def tanh(x: NumberOrNull) -> Annotated[Numeric, _bounded_schema(minimumExclusive=-1, maximumExclusive=1)]:
    """Hyperbolic tangent.

    The hyperbolic tangent of `x`: the hyperbolic sine divided by the hyperbolic cosine. No-data stays
    no-data.

    Args:
        x: A hyperbolic angle in radians.

    Returns:
        The hyperbolic tangent.
    """
    return apply_ieee(np.tanh, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def arsinh(x: NumberOrNull) -> NumberOrNull:
    """Inverse hyperbolic sine.

    The hyperbolic angle whose hyperbolic sine is `x`. No-data stays no-data.

    Args:
        x: A number.

    Returns:
        The hyperbolic angle in radians.
    """
    return apply_ieee(np.arcsinh, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 1}, 0)])
def arcosh(x: NumberOrNull) -> NotNegative:
    """Inverse hyperbolic cosine.

    The non-negative hyperbolic angle whose hyperbolic cosine is `x`; NaN for `x` below 1. No-data
    stays no-data.

    Args:
        x: A number, 1 or more.

    Returns:
        The hyperbolic angle in radians.
    """
    return apply_ieee(np.arccosh, x)


@process(categories=["math > trigonometric"], examples=[Example({"x": 0}, 0)])
def artanh(x: Annotated[Numeric, _bounded_schema(minimumExclusive=-1, maximumExclusive=1)]) -> NumberOrNull:
    """Inverse hyperbolic tangent.

    The hyperbolic angle whose hyperbolic tangent is `x`; infinite for -1 and 1, NaN outside that range.
    No-data stays no-data.

    Args:
        x: A number between -1 and 1.

    Returns:
        The hyperbolic angle in radians.
    """
    return apply_ieee(np.arctanh, x)


@process(
    categories=["math > trigonometric"],
    examples=[Example({"y": 0, "x": 0}, 0), Example({"y": None, "x": 1.5}, None)],
)
def arctan2(y: NumberOrNull, x: NumberOrNull) -> NumberOrNull:
    """Arc tangent of a quotient.

    The angle of the point (`x`, `y`) seen from the origin: the arc tangent of `y / x`, in the quadrant
    determined by the signs of both. If one of the numbers is no-data, so is the result.

    Args:
        y: The dividend.
        x: The divisor.

    Returns:
        The angle in radians, from -π to π.
    """
    return apply_ieee(np.arctan2, y, x)
