"""Comparisons of JSON values by the rules of openEO."""

import math


def is_nan(x):
    """Whether a JSON value is the number NaN."""
    return isinstance(x, float) and math.isnan(x)


def is_infinite(x):
    """Whether a JSON value is an infinite number."""
    return isinstance(x, float) and math.isinf(x)


def is_valid(x):
    """Whether a JSON value is neither null nor NaN nor infinite."""
    return x is not None and not (isinstance(x, float) and not math.isfinite(x))


def are_equal(x, y):
    """Whether two JSON values are equal: types are not converted, null equals nothing."""
    if isinstance(x, bool) or isinstance(y, bool):
        return x is y
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return x == y
    return isinstance(x, str) and isinstance(y, str) and x == y
