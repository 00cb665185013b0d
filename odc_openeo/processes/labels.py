"""Labels of dimensions: from JSON values to xarray coordinates, and back to positions along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import IncompatibleDataCubes, ProcessParameterInvalid
from odc_openeo.processes.instants import parse_instant

RESERVED: Final = frozenset(
    {cube.ARRAY, cube.NODATA, cube.COMMON_NAME, cube.WAVELENGTH, cube.VARIABLE, "spatial_ref"}
)
"""Names of what cubes hold beside their dimensions."""
_OF_TYPE: Final = {cube.GEOMETRY: "geometry", cube.X: "spatial", cube.Y: "spatial"}


def check_name(name: str, type_: str, process: str, parameter: str) -> None:
    """Check the name that a user gives to a dimension of a type.

    Raises:
        ProcessParameterInvalid: it stands for something else in a cube.
    """
    if name in RESERVED:
        reason = f"{name!r} is the name of something else in a data cube. Choose another name."
    elif not name or not name.isprintable() or "/" in name:
        reason = f"{name!r} is not a valid name of a dimension. Use printable characters other than '/'."
    elif name in _OF_TYPE and _OF_TYPE[name] != type_:
        reason = f"{name!r} is for dimensions of type {_OF_TYPE[name]!r}, not {type_!r}. Choose another name."
    else:
        return
    raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)


def coordinate(dimension: str, labels: Sequence[Any], type_: str) -> xr.DataArray:
    """The coordinate of a dimension of an openEO type; dates of temporal dimensions become
    ``datetime64[ns]``."""
    values = _times(labels) if type_ == "temporal" else None
    return typed(xr.DataArray(_array(labels) if values is None else values, dims=dimension), dimension, type_)


def typed(coord: xr.DataArray, dimension: str, type_: str) -> xr.DataArray:
    """The coordinate with its openEO type noted, if name and values alone would tell another one."""
    bare = coord.copy()
    bare.attrs = {k: v for k, v in coord.attrs.items() if k != cube.TYPE}
    probe = xr.DataArray(np.zeros(bare.sizes[dimension]), dims=dimension, coords={dimension: bare})
    if cube.dimension_type(probe, dimension) != type_:
        bare.attrs[cube.TYPE] = type_
    return bare


def index(data: cube.Cube, dimension: str) -> pd.Index:
    """The labels of a dimension as they are stored, to look positions up.

    Raises:
        IncompatibleDataCubes: a label occurs twice.
    """
    values = data.coords[dimension].values if dimension in data.coords else np.arange(data.sizes[dimension])
    found = pd.Index(values)
    if not found.is_unique:
        raise IncompatibleDataCubes(reason=f"dimension '{dimension}' has the same label several times.")
    return found


def position(labels: Sequence[Any], label: Any) -> int | None:
    """Where a label (as the client writes it) is among the JSON labels of a dimension, None if nowhere."""
    wanted = _canonical(label)
    return next((i for i, found in enumerate(labels) if _canonical(found) == wanted), None)


def _canonical(label: Any) -> tuple[str, Any]:
    if isinstance(label, str):
        instant = parse_instant(label)
        return ("text", label) if instant is None else ("time", instant)
    return "number", label


def _times(labels: Sequence[Any]) -> np.ndarray | None:
    instants = [parse_instant(label) if isinstance(label, str) else None for label in labels]
    if not instants or any(i is None for i in instants):
        return None
    return np.array(instants, dtype="datetime64[ns]")


def _array(labels: Sequence[Any]) -> np.ndarray:
    kinds = {isinstance(label, str) for label in labels}
    return np.array(list(labels), dtype=object) if len(kinds) > 1 else np.array(list(labels))
