"""JSON arrays with nulls."""

import math

import numpy as np
import pandas as pd

from odc_openeo.explain.snippets.comparison import are_equal


def reduce_valid(function, values, ignore_nodata=True):
    """A statistic of the numbers that are not null; null if there are none."""
    valid = [value for value in values if value is not None]
    if not valid or (len(valid) < len(values) and not ignore_nodata):
        return None
    if any(isinstance(value, float) and math.isnan(value) for value in valid):
        return math.nan
    return function(valid)


def first_valid(values):
    """The first element that is not null."""
    return next((value for value in values if value is not None), None)


def last_valid(values):
    """The last element that is not null."""
    return first_valid(values[::-1])


def find_quantiles(values, fractions, ignore_nodata=True):
    """Quantiles of the numbers that are not null, interpolated linearly."""
    valid = [value for value in values if value is not None]
    if not valid or (len(valid) < len(values) and not ignore_nodata):
        return [None] * len(fractions)
    return np.quantile(valid, fractions).tolist()


def find_positions(values, value):
    """The positions of the elements that equal a value."""
    return [position for position, element in enumerate(values) if are_equal(element, value)]


def fill_gaps(values, places=None):
    """Fill nulls and NaN between numbers by linear interpolation."""
    places = list(range(len(values))) if places is None else places
    valid = [i for i, value in enumerate(values) if value is not None and not math.isnan(value)]
    filled = list(values)
    for left, right in zip(valid, valid[1:]):
        for i in range(left + 1, right):
            share = (places[i] - places[left]) / (places[right] - places[left])
            filled[i] = values[left] * (1 - share) + values[right] * share
    return filled


def accumulate(combine, values, ignore_nodata=True):
    """Running results of combining numbers; nulls are skipped, or end it."""
    results, total = [], None
    for value in values:
        if value is None and not ignore_nodata:
            return results + [None] * (len(values) - len(results))
        if value is not None:
            total = value if total is None else combine(total, value)
        results.append(None if value is None else total)
    return results


def order_list(values, asc=True, nodata=None):
    """The positions of numbers or dates in sorted order; NaN is last."""
    missing = [i for i, value in enumerate(values) if value is None]
    last = [i for i, value in enumerate(values) if isinstance(value, float) and math.isnan(value)]
    keys = [pd.Timestamp(v) if isinstance(v, str) else v for v in values]
    keys = [k.tz_localize("UTC") if isinstance(k, pd.Timestamp) and k.tz is None else k for k in keys]
    ranked = [i for i in range(len(values)) if i not in missing and i not in last]
    ranked = sorted(ranked, key=lambda i: keys[i], reverse=not asc) + last
    return ranked if nodata is None else ranked + missing if nodata else missing + ranked


def sort_list(values, asc=True, nodata=None):
    """Numbers or dates in sorted order; NaN is last."""
    return [values[i] for i in order_list(values, asc, nodata)]
