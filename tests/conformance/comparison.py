"""Compare results with the expected values of the official vectors (their README: 1e-10 unless said)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import LabeledArray

_DATE = re.compile(r"^\d{4}-\d\d-\d\d$")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d")


def difference(actual: Any, expected: Any, delta: float, nan_is_null: bool = False) -> str | None:
    """What is different, None if nothing is. Expected cubes are DataArrays (see ``encoding``)."""
    if isinstance(expected, xr.DataArray):
        return _cube_difference(actual, expected, delta)
    if isinstance(expected, LabeledArray):
        return _labelled_difference(actual, expected, delta)
    if isinstance(expected, list):
        return _list_difference(actual, expected, delta, nan_is_null)
    if isinstance(expected, Mapping):
        return _object_difference(actual, expected, delta, nan_is_null)
    return None if _equal(actual, expected, delta, nan_is_null) else f"got {actual!r}, not {expected!r}"


def _equal(actual: Any, expected: Any, delta: float, nan_is_null: bool) -> bool:
    missing = [
        v is None or (nan_is_null and isinstance(v, float) and math.isnan(v)) for v in (actual, expected)
    ]
    if nan_is_null and all(v is None or (isinstance(v, float) and math.isnan(v)) for v in (actual, expected)):
        return True
    if any(missing):
        return all(missing)
    if isinstance(expected, bool) or isinstance(actual, bool):
        return actual == expected and (nan_is_null or type(actual) is type(expected))
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return _close(actual, expected, delta)
    if isinstance(expected, str) and isinstance(actual, str) and _TIME.match(expected):
        return _time(actual) == _time(expected)
    return type(actual) is type(expected) and bool(actual == expected)


def _time(text: str) -> Any:
    """The instant that a text names, the text itself if it names none; local times stay local."""
    try:
        return pd.Timestamp(text)
    except ValueError:
        return text


def _close(actual: float, expected: float, delta: float) -> bool:
    if isinstance(actual, int) and isinstance(expected, int):
        return abs(actual - expected) <= delta
    if math.isnan(expected) or math.isinf(expected):
        return (math.isnan(actual) and math.isnan(expected)) or actual == expected
    return abs(actual - expected) <= delta + 1e-15 * abs(expected)


def _list_difference(actual: Any, expected: list[Any], delta: float, nan_is_null: bool) -> str | None:
    if isinstance(actual, LabeledArray):
        actual = list(actual.values)
    if not isinstance(actual, list | tuple) or len(actual) != len(expected):
        return f"got {actual!r}, not {expected!r}"
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        difference_found = difference(a, e, delta, nan_is_null)
        if difference_found:
            return f"[{i}] {difference_found}"
    return None


def _object_difference(
    actual: Any, expected: Mapping[str, Any], delta: float, nan_is_null: bool
) -> str | None:
    if not isinstance(actual, Mapping) or actual.keys() != expected.keys():
        return f"got {actual!r}, not {expected!r}"
    for name, value in expected.items():
        difference_found = difference(actual[name], value, delta, nan_is_null)
        if difference_found:
            return f"{name}: {difference_found}"
    return None


def _labelled_difference(actual: Any, expected: LabeledArray, delta: float) -> str | None:
    if not isinstance(actual, LabeledArray) or list(actual.labels) != list(expected.labels):
        return f"got {actual!r}, not {expected!r}"
    return _list_difference(list(actual.values), list(expected.values), delta, False)


def _cube_difference(actual: Any, expected: xr.DataArray, delta: float) -> str | None:
    if not isinstance(actual, xr.DataArray):
        return f"got {actual!r}, not a cube"
    if actual.dims != expected.dims:
        return f"dimensions {actual.dims}, not {expected.dims}"
    for name in expected.dims:
        difference_found = _dimension_difference(actual, expected, str(name))
        if difference_found:
            return f"dimension {name}: {difference_found}"
    if expected.odc.crs is not None and actual.odc.crs != expected.odc.crs:
        return f"reference system {actual.odc.crs}, not {expected.odc.crs}"
    return None if expected.attrs.get("irrelevant") else _value_difference(actual, expected, delta)


def _dimension_difference(actual: xr.DataArray, expected: xr.DataArray, name: str) -> str | None:
    types = cube.dimension_type(actual, name), cube.dimension_type(expected, name)
    if types[0] != types[1]:
        return f"type {types[0]}, not {types[1]}"
    labels = [cube.labels(side, name) for side in (actual, expected)]
    if types[0] == "temporal":
        # Dates may be written without the time of midnight.
        labels = [[f"{v}T00:00:00Z" if _DATE.match(str(v)) else v for v in side] for side in labels]
    return _list_difference(*labels, 1e-6, False)


def _value_difference(actual: xr.DataArray, expected: xr.DataArray, delta: float) -> str | None:
    got, want = cube.decode(actual).values, cube.decode(expected).values
    if np.allclose(got, want, rtol=0, atol=delta, equal_nan=True):
        return None
    return f"values {got.tolist()}, not {want.tolist()}"
