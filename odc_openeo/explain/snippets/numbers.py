"""Numbers where Python and numpy differ from openEO."""

import decimal

import numpy as np


def modulo(x, y):
    """The remainder with the sign of y; infinite for y = 0."""
    remainder = np.where(np.isinf(y) & np.isfinite(x), x, np.mod(x, y))
    remainder = np.where((np.equal(y, 0)) & (np.abs(x) > 0), np.copysign(np.inf, x), remainder)
    cube = next((v for v in (x + y * 0, y + x * 0) if hasattr(v, "dims")), None)
    return float(remainder) if cube is None else cube.copy(data=remainder)


def round_decimal(x, digits):
    """Round half to even by the decimal digits of a number."""
    if not np.isfinite(x):
        return x
    step = decimal.Decimal(1).scaleb(-digits)
    context = decimal.Context(prec=1000, rounding=decimal.ROUND_HALF_EVEN)
    return float(decimal.Decimal(repr(x)).quantize(step, context=context))
