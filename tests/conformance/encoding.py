"""The special objects of the official process test vectors ↔ values of this package."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import json5
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.xr import ODCExtensionDa  # noqa: F401  (registers the .odc accessor)

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d($|T)")
JSON: Final = (".json", ".json5")


def read(path: Path) -> Any:
    """What a file holds: JSON with NaN and infinities, or JSON5; other files are text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix not in JSON:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # Fifty times as slow.
        return json5.loads(text)


def decode(value: Any, folder: Path) -> Any:
    """A value of a test vector as this package takes it; cubes become eager DataArrays."""
    if isinstance(value, Mapping):
        if "process_graph" in value:
            return _in_graph(value)
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


def _in_graph(value: Any) -> Any:
    """A child process with the special objects that stand for plain JSON values replaced by these."""
    if isinstance(value, Mapping):
        if value == {"type": "nodata"}:
            return None
        if value.keys() == {"type", "value"} and value["type"] == "datetime":
            return value["value"]
        return {k: _in_graph(v) for k, v in value.items()}
    return [_in_graph(v) for v in value] if isinstance(value, list) else value


def to_cube(encoded: Mapping[str, Any]) -> xr.DataArray:
    """The DataArray that a ``datacube`` object describes."""
    dims = list(encoded["order"])
    specs = encoded["dimensions"]
    shape = [len(specs[d]["values"]) for d in dims]
    nodata = _nodata(encoded.get("nodata"))
    data = _values(encoded.get("data"), shape)
    if data.dtype.kind == "f" and nodata is not None:
        data = np.where(data == nodata, np.nan, data)
    array = xr.DataArray(data, dims=dims, coords={d: _labels(specs[d]) for d in dims})
    for d in dims:
        if cube.dimension_type(array, d) != specs[d]["type"]:
            array.coords[d].attrs[cube.TYPE] = specs[d]["type"]
    systems = [s.get("reference_system") for s in specs.values() if s.get("axis") in ("x", "y")]
    if systems and systems[0]:
        array = array.odc.assign_crs(systems[0])
    if np.issubdtype(array.dtype, np.integer) and isinstance(nodata, int):
        array.attrs[cube.NODATA] = nodata
    return array


def _nodata(declared: Any) -> int | float | None:
    """The no-data value, which may be the only member of an array."""
    result = declared[0] if isinstance(declared, list) and len(declared) == 1 else declared
    return result if isinstance(result, int | float) else None


def _values(data: Any, shape: list[int]) -> np.ndarray:
    if data is None:
        return np.zeros(shape)
    numbers = np.asarray(_numbers(data)) if shape or data != [] else np.array(np.nan)
    return numbers.reshape(shape)


def _numbers(data: Any) -> Any:
    if isinstance(data, list):
        return [_numbers(item) for item in data]
    return math.nan if data is None or data == {"type": "nodata"} else data


def _labels(spec: Mapping[str, Any]) -> Any:
    values = [decode(v, Path()) for v in spec["values"]]
    if spec["type"] == "temporal" and all(_INSTANT.match(str(v)) for v in values):
        times = pd.to_datetime(values, utc=True, format="ISO8601").tz_localize(None)
        return times.to_numpy().astype("datetime64[ns]")
    texts = [isinstance(v, str) for v in values]
    return np.asarray(values, dtype=object if any(texts) and not all(texts) else None)


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
    array = values.shape[: values.ndim - len(dims)]
    pixels = values.reshape(*array, math.prod(values.shape[len(array) :]))
    first = pixels[..., 0]
    if not all(_same(first, pixels[..., i]) for i in range(pixels.shape[-1])):
        raise AssertionError("the pixels differ")
    return first.tolist()


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
