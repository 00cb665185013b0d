"""Processes that help to find faults in processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.process import Environment, Example, Schema, process
from odc_openeo.processes.schemas import AnyValue, String

_LEVELS: Final = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_LONGEST: Final = 100

Level = Annotated[str, Schema({"type": "string", "enum": ["error", "warning", "info", "debug"]})]


@process(categories=["development"], examples=[Example({"data": [1, 2], "message": "so far"}, [1, 2])])
def inspect(
    data: AnyValue, message: String = "", code: String = "User", level: Level = "info", *, env: Environment
) -> AnyValue:
    """Write to the log.

    Logs a value and gives it back unchanged. Of data cubes the dimensions and types are logged, not the
    values, for these are not computed yet.

    Args:
        data: The value to log.
        message: A text to go with it.
        code: A label by which the entries can be found in the log.
        level: The severity.

    Returns:
        The value, unchanged.
    """
    env.log.log(_LEVELS[level], message or "inspect", extra={"code": code, "data": summary(data)})
    return data


def summary(value: Any) -> Any:
    """A value as JSON for the log, shortened if it is long; cubes are described, not computed."""
    if isinstance(value, xr.DataArray):
        return _of_cube(value)
    if isinstance(value, xr.Dataset):
        return {name: _of_cube(variable) for name, variable in list(value.data_vars.items())[:_LONGEST]}
    if isinstance(value, cube.LabeledArray):
        return [{"label": k, "value": summary(v)} for k, v in zip(value.labels, value.values, strict=True)][
            :_LONGEST
        ]
    if isinstance(value, Mapping):
        return {str(k): summary(v) for k, v in list(value.items())[:_LONGEST]}
    if isinstance(value, list | tuple):
        shown = [summary(v) for v in value[:_LONGEST]]
        return shown if len(value) <= _LONGEST else [*shown, f"… {len(value) - _LONGEST} more"]
    return value if isinstance(value, bool | int | float | str | type(None)) else f"<{type(value).__name__}>"


def _of_cube(data: xr.DataArray) -> dict[str, Any]:
    dimensions = [
        {
            "name": str(name),
            "type": cube.dimension_type(data, name),
            "size": size,
            "labels": [str(v) for v in cube.labels(data, str(name))[:5]],
        }
        for name, size in data.sizes.items()
    ]
    return {"data type": str(data.dtype), "dimensions": dimensions}
