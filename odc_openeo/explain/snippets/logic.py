"""Logic with three values: in cubes 1, 0 and NaN, in JSON true, false and null."""

import numpy as np
import xarray as xr


def both(x, y):
    """And: false if one is false, else NaN if one is NaN."""
    return xr.where((x == 0) | (y == 0), 0, x * y)


def either(x, y):
    """Or: true if one is true, else NaN if one is NaN."""
    return xr.where((x == 1) | (y == 1), 1, x * y)


def exactly_one(x, y):
    """Exclusive or: NaN if one is NaN."""
    return xr.where(np.isnan(x * y), np.nan, x != y)


def and_json(x, y):
    """And: false if one is false, else null if one is null."""
    if x is False or y is False:
        return False
    return None if x is None or y is None else True


def or_json(x, y):
    """Or: true if one is true, else null if one is null."""
    if x is True or y is True:
        return True
    return None if x is None or y is None else False


def xor_json(x, y):
    """Exclusive or: null if one is null."""
    return None if x is None or y is None else x is not y


def any_of(values):
    """Whether one is true; null if that depends on nulls."""
    if True in values:
        return True
    return None if None in values else False


def all_of(values):
    """Whether all are true; null if that depends on nulls."""
    if False in values:
        return False
    return None if None in values else True


def any_along(data, dimension):
    """Whether one is true; NaN if that depends on NaN."""
    uncertain = data.isnull().any(dimension)
    return xr.where((data == 1).any(dimension), 1, xr.where(uncertain, np.nan, 0))


def all_along(data, dimension):
    """Whether all are true; NaN if that depends on NaN."""
    uncertain = data.isnull().any(dimension)
    return xr.where((data == 0).any(dimension), 0, xr.where(uncertain, np.nan, 1))
