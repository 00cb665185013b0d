"""Convert cubes to other data types."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.elementwise import blockwise
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import same_part
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import Cube

PATTERN: Final = r"^(u?int(?:8|16|32|64)|float(?:32|64))(?:ud(-?\d{1,20}))?$"

DataType = Annotated[str, Schema({"type": "string", "pattern": PATTERN})]


@process(
    categories=["cubes"], experimental=True, needs=same_part("data"), pointwise=True, raw_values_of=("data",)
)
def convert_data_type(data: Cube, data_type: DataType) -> Cube:
    """Convert the values of a cube to another data type.

    Integers may be followed by their no-data value after `ud`: `int16ud32767`. Otherwise they keep the
    no-data value of the cube if it fits, or get the smallest value of signed types and the largest one of
    unsigned types. Fractions are cut off. Values that the type can't hold become no-data. Floats have NaN as
    no-data.

    Args:
        data: A data cube of numbers.
        data_type: `uint8`, `int8`, `uint16`, `int16`, `uint32`, `int32`, `uint64`, `int64`, `float32` or
            `float64`, for integers optionally with a no-data value.

    Returns:
        The data cube with the same dimensions and labels.
    """
    if isinstance(data, xr.Dataset):
        return data.map(convert_data_type, args=(data_type,), keep_attrs=True)
    match = re.fullmatch(PATTERN, data_type)
    if match is None or data.dtype.kind not in "biuf":
        problem = "the cube holds no numbers" if match else f"{data_type!r} is not a data type"
        raise ProcessParameterInvalid(
            process="convert_data_type", parameter="data_type", reason=f"{problem}."
        )
    dtype = np.dtype(match[1])
    if dtype.kind == "f":
        return cube.decode(data).astype(dtype)
    missing = _choose_nodata(data, dtype, match[2])
    valid = cube.valid(data).drop_vars(cube.NODATA, errors="ignore")
    bare = cube.with_nodata(data, None)
    converted = blockwise(partial(_cast_block, dtype=dtype, missing=missing), bare, valid)
    return cube.with_nodata(restore_coordinates(converted.transpose(*data.dims), bare), missing)


def _choose_nodata(data: xr.DataArray, dtype: np.dtype, text: str | None) -> int:
    limits = np.iinfo(dtype)
    if text is not None:
        if limits.min <= int(text) <= limits.max:
            return int(text)
        reason = f"the no-data value {text} does not fit into {dtype}: {limits.min} to {limits.max}."
        raise ProcessParameterInvalid(process="convert_data_type", parameter="data_type", reason=reason)
    present: Any = cube.nodata(data)
    values = np.unique(np.asarray([] if present is None else present, dtype=float))
    if values.size == 1 and np.isfinite(values[0]) and limits.min <= values[0] <= limits.max:
        return int(values[0])
    return int(limits.min if dtype.kind == "i" else limits.max)


def _cast_block(values: np.ndarray, valid: np.ndarray, dtype: np.dtype, missing: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    whole = np.trunc(values) if values.dtype.kind == "f" else values
    # The largest 64-bit integers are not floats: compare with the power of two above them.
    fits = (
        valid
        & (whole >= limits.min)
        & (whole < float(limits.max) + 1 if values.dtype.kind == "f" else whole <= limits.max)
    )
    return np.where(fits, np.where(fits, whole, 0).astype(dtype), dtype.type(missing))
