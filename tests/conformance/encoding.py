"""The special objects of the official process test vectors ↔ values of this package."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.xr import ODCExtensionDa  # noqa: F401  (registers the .odc accessor)

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray

_TRAILING_COMMA = re.compile(r",(\s*[\]}])")


def read(path: Path) -> Any:
    """A JSON file that may hold NaN and infinities, and commas after the last item."""
    return json.loads(_TRAILING_COMMA.sub(r"\1", path.read_text(encoding="utf-8")))


def decode(value: Any, folder: Path) -> Any:
    """A value of a test vector as this package takes it; cubes become eager DataArrays."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            return decode(read(folder / value["$ref"]), folder)
        match value.get("type"):
            case "nodata":
                return None
            case "datetime":
                return value["value"]
            case "labeled-array":
                entries = value["data"]
                return LabeledArray(
                    [e["key"] for e in entries], [decode(e["value"], folder) for e in entries]
                )
            case "datacube":
                return to_cube(value)
        return {k: decode(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v, folder) for v in value]
    return value


def to_cube(encoded: Mapping[str, Any]) -> xr.DataArray:
    """The DataArray that a ``datacube`` object describes."""
    dims = list(encoded["order"])
    specs = encoded["dimensions"]
    shape = [len(specs[d]["values"]) for d in dims]
    data = _values(encoded.get("data"), shape)
    array = xr.DataArray(data, dims=dims, coords={d: _labels(specs[d]) for d in dims})
    for d in dims:
        if cube.dimension_type(array, d) != specs[d]["type"]:
            array.coords[d].attrs[cube.TYPE] = specs[d]["type"]
    systems = [s["reference_system"] for s in specs.values() if s.get("axis") in ("x", "y")]
    if systems and systems[0]:
        array = array.odc.assign_crs(systems[0])
    if np.issubdtype(array.dtype, np.integer) and isinstance(encoded.get("nodata"), int):
        array.attrs[cube.NODATA] = encoded["nodata"]
    return array


def _values(data: Any, shape: list[int]) -> np.ndarray:
    if data is None:
        return np.zeros(shape)
    if not shape:
        return np.array(np.nan)
    array = np.asarray(data, dtype=object)
    array = np.where(array == None, np.nan, array)  # noqa: E711  (elementwise)
    numbers = np.asarray(array.tolist())
    return numbers.reshape(shape)


def _labels(spec: Mapping[str, Any]) -> Any:
    values = spec["values"]
    if spec["type"] == "temporal" and all("T" in str(v) for v in values):
        times = pd.to_datetime(values, utc=True, format="ISO8601").tz_localize(None)
        return times.to_numpy().astype("datetime64[ns]")
    return np.asarray(values)


def chunked(value: Any) -> Any:
    """The same value with every cube in it backed by dask, in chunks of two along each dimension."""
    if isinstance(value, xr.DataArray):
        return value.chunk({d: min(2, max(1, n)) for d, n in value.sizes.items()})
    if isinstance(value, Mapping):
        return {k: chunked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [chunked(v) for v in value]
    return value


# --- JSON arrays and numbers as parts of a cube --------------------------------------------------

_PIXELS = xr.DataArray(np.ones((2, 3)), dims=("y", "x"))


def in_cube(value: Any) -> xr.DataArray | None:
    """A JSON number or array of numbers, the same in every pixel of a small cube; None where it can't be.

    NaN can't: in a cube it is no-data. Integers beyond the exact ones of float64 can't either.
    """
    if _is_number(value):
        return _PIXELS * float(value)
    if not isinstance(value, list) or not value or not all(v is None or _is_number(v) for v in value):
        return None
    numbers = xr.DataArray([math.nan if v is None else float(v) for v in value], dims=ARRAY)
    return _PIXELS * numbers


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isnan(value) and (math.isinf(value) or abs(value) < 2**53)


def out_of_cube(result: Any) -> Any:
    """The value or array of one pixel of a cube made from `in_cube`, all pixels being checked to be equal."""
    if not isinstance(result, xr.DataArray):
        return result
    dims = [d for d in result.dims if d in ("y", "x")]
    values = result.transpose(..., *dims).values
    pixels = values.reshape(*values.shape[: values.ndim - len(dims)], -1)
    first = pixels[..., 0]
    if not all(_same(first, pixels[..., i]) for i in range(pixels.shape[-1])):
        raise AssertionError("the pixels differ")
    return first.tolist()


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
