"""Labels of dimensions: from JSON values to xarray coordinates, and back to positions along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.instants import find_instants, parse_instant
from odc_openeo.errors import IncompatibleDataCubes, ProcessParameterInvalid

RESERVED: Final = frozenset(
    {
        cube.ARRAY,
        cube.NODATA,
        cube.COMMON_NAME,
        cube.WAVELENGTH,
        cube.VARIABLE,
        cube.SPATIAL_REF,
        *cube.PACKING,
    }
)
"""Names that cubes use for things other than dimensions."""
_TYPES_BY_NAME: Final = {cube.GEOMETRY: "geometry", cube.X: "spatial", cube.Y: "spatial"}


def check_name(name: str, type_: str, process: str, parameter: str) -> None:
    """Check the name that a user gives to a dimension of a type.

    Raises:
        ProcessParameterInvalid: it is reserved for something else in a cube, or not printable.
    """
    if name in RESERVED:
        reason = f"{name!r} is the name of something else in a data cube. Choose another name."
    elif not name or not name.isprintable() or "/" in name:
        reason = f"{name!r} is not a valid name of a dimension. Use printable characters other than '/'."
    elif name in _TYPES_BY_NAME and _TYPES_BY_NAME[name] != type_:
        expected = _TYPES_BY_NAME[name]
        reason = f"{name!r} is for dimensions of type {expected!r}, not {type_!r}. Choose another name."
    else:
        return
    raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)


def make_coordinate(
    dimension: str, labels: Sequence[Any], type_: str, period: str | None = None
) -> xr.DataArray:
    """The coordinate of a dimension; the dates of temporal dimensions become ``datetime64[ns]``.

    ``period`` is the kind of the calendar periods that the labels stand for, if they do.
    """
    values = _parse_times(labels) if type_ == "temporal" and period is None else None
    coord = xr.DataArray(_label_array(labels) if values is None else values, dims=dimension)
    if period is not None:
        coord.attrs[cube.PERIOD] = period
    return with_type(coord, dimension, type_)


def with_type(coord: xr.DataArray, dimension: str, type_: str) -> xr.DataArray:
    """Record the openEO type in the coordinate if its name and values alone would imply another one."""
    bare = coord.copy()
    bare.attrs = {k: v for k, v in coord.attrs.items() if k != cube.TYPE}
    probe = xr.DataArray(np.zeros(bare.sizes[dimension]), dims=dimension, coords={dimension: bare})
    if cube.dimension_type(probe, dimension) != type_:
        bare.attrs[cube.TYPE] = type_
    return bare


def get_index(data: cube.Cube, dimension: str) -> pd.Index:
    """The labels of a dimension as they are stored, to look up positions.

    Raises:
        IncompatibleDataCubes: a label occurs twice.
    """
    values = data.coords[dimension].values if dimension in data.coords else np.arange(data.sizes[dimension])
    labels = pd.Index(values)
    if not labels.is_unique:
        raise IncompatibleDataCubes(reason=f"dimension '{dimension}' has the same label several times.")
    return labels


def unify_times(one: xr.DataArray, other: xr.DataArray, dimension: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Label a temporal dimension of two cubes by instants if its labels are of different kinds.

    Months and dates are, say, or months and weeks. Labels that stand for no instants stay as they are.
    """
    coords = [c.coords.get(dimension) for c in (one, other)]
    kinds = [None if c is None else (c.dtype.kind == "M", c.attrs.get(cube.PERIOD)) for c in coords]
    temporal = all(cube.dimension_type(c, dimension) == "temporal" for c in (one, other))
    if not temporal or kinds[0] == kinds[1]:
        return one, other
    first, second = (None if c is None else find_instants(c) for c in coords)
    if first is None or second is None:
        return one, other
    return _with_times(one, dimension, first), _with_times(other, dimension, second)


def _with_times(data: xr.DataArray, dimension: str, times: np.ndarray) -> xr.DataArray:
    return data.assign_coords({dimension: (dimension, times.astype("datetime64[ns]"))})


def drop_single_label(data: Any, dimension: str) -> Any:
    """Drop a dimension with a single label; a no-data value of that band becomes that of the cube."""
    dropped = data.isel({dimension: 0}, drop=True)
    missing = data.coords.get(cube.NODATA)
    if isinstance(dropped, xr.DataArray) and missing is not None and dimension in missing.dims:
        value = missing.isel({dimension: 0})
        return cube.with_nodata(dropped, value.item() if not value.dims else value)
    return dropped


def find_position(labels: Sequence[Any], label: Any) -> int | None:
    """The position of a label (as the client writes it) among the JSON labels of a dimension, or None."""
    target = _canonical_label(label)
    return next((i for i, candidate in enumerate(labels) if _canonical_label(candidate) == target), None)


def _canonical_label(label: Any) -> tuple[str, Any]:
    if isinstance(label, str):
        instant = parse_instant(label)
        return ("text", label) if instant is None else ("time", instant)
    return "number", label


def _parse_times(labels: Sequence[Any]) -> np.ndarray | None:
    instants = [parse_instant(label) if isinstance(label, str) else None for label in labels]
    if not instants or any(i is None for i in instants):
        return None
    return np.array(instants, dtype="datetime64[ns]")


def _label_array(labels: Sequence[Any]) -> np.ndarray:
    kinds = {isinstance(label, str) for label in labels}
    return np.array(list(labels), dtype=object) if len(kinds) > 1 else np.array(list(labels))
