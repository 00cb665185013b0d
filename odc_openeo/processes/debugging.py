"""Processes for debugging process graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import AnyValue, String

_LEVELS: Final = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_MAX_ITEMS: Final = 100

Level = Annotated[str, Schema({"type": "string", "enum": ["error", "warning", "info", "debug"]})]


@process(
    categories=["development"],
    examples=[Example({"data": [1, 2], "message": "so far"}, [1, 2])],
    raw_values_of=None,
)
def inspect(
    data: AnyValue, message: String = "", code: String = "User", level: Level = "info", *, env: Environment
) -> AnyValue:
    """Write a value to the log.

    Logs a value and returns it unchanged. For data cubes the dimensions and types are logged instead of the
    values, which are not computed yet.

    Args:
        data: The value to log.
        message: A message to log with the value.
        code: A label to find the entries in the log by.
        level: The severity of the log entry.

    Returns:
        The value, unchanged.
    """
    env.log.log(_LEVELS[level], message or "inspect", extra={"code": code, "data": summarize_value(data)})
    return data


def summarize_value(value: Any) -> Any:
    """Convert a value to JSON for the log, shortened if it is long; cubes are described, not computed."""
    if isinstance(value, xr.DataArray):
        return _summarize_cube(value)
    if isinstance(value, xr.Dataset):
        return {
            name: _summarize_cube(variable) for name, variable in list(value.data_vars.items())[:_MAX_ITEMS]
        }
    if isinstance(value, cube.LabeledArray):
        return [
            {"label": k, "value": summarize_value(v)} for k, v in zip(value.labels, value.values, strict=True)
        ][:_MAX_ITEMS]
    if isinstance(value, Mapping):
        return {str(k): summarize_value(v) for k, v in list(value.items())[:_MAX_ITEMS]}
    if isinstance(value, list | tuple):
        summaries = [summarize_value(v) for v in value[:_MAX_ITEMS]]
        return summaries if len(value) <= _MAX_ITEMS else [*summaries, f"… {len(value) - _MAX_ITEMS} more"]
    return value if isinstance(value, bool | int | float | str | type(None)) else f"<{type(value).__name__}>"


def _summarize_cube(data: xr.DataArray) -> dict[str, Any]:
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
