"""The JSON Schemas of parameters, as annotations for the signatures of processes.

Types, subtypes, enums and bounds are those of the process specification; descriptions are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import xarray as xr

from odc_openeo.cube import LabeledArray
from odc_openeo.registry.process import Schema

ANY_JSON: dict[str, Any] = {"description": "Any data type."}

JsonArray = Sequence[Any] | LabeledArray | xr.DataArray
Scalar = bool | int | float | str | None | xr.DataArray

AnyValue = Annotated[Any, Schema(ANY_JSON)]
Number = Annotated[float | xr.DataArray, Schema({"type": "number"})]
NumberOrNull = Annotated[float | None | xr.DataArray, Schema({"type": ["number", "null"]})]
Integer = Annotated[int, Schema({"type": "integer"})]
Boolean = Annotated[bool, Schema({"type": "boolean"})]
BooleanField = Annotated[bool | xr.DataArray, Schema({"type": "boolean"})]
BooleanOrNull = Annotated[bool | None | xr.DataArray, Schema({"type": ["boolean", "null"]})]
String = Annotated[str, Schema({"type": "string"})]
StringOrNull = Annotated[str | None, Schema({"type": ["string", "null"]})]
Comparable = Annotated[Scalar, Schema({"type": ["number", "boolean", "string", "null"]})]
Numbers = Annotated[JsonArray, Schema({"type": "array", "items": {"type": ["number", "null"]}})]
Booleans = Annotated[JsonArray, Schema({"type": "array", "items": {"type": ["boolean", "null"]}})]
Array = Annotated[JsonArray, Schema({"type": "array", "items": {"description": "Any data type is allowed."}})]


def datacube_schema(*dimensions: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Make the schema of a data cube with the given dimensions, e.g. ``{"type": "temporal"}``."""
    schema: dict[str, Any] = {"type": "object", "subtype": "datacube"}
    if dimensions:
        schema["dimensions"] = [dict(d) for d in dimensions]
    return {**more, **schema}


SPATIAL = {"type": "spatial", "axis": ["x", "y"]}
TEMPORAL = {"type": "temporal"}
BANDS = {"type": "bands"}
GEOMETRY = {"type": "geometry"}

Cube = Annotated[xr.DataArray | xr.Dataset, Schema(datacube_schema())]
SpatialCube = Annotated[xr.DataArray, Schema(datacube_schema(SPATIAL))]
TemporalCube = Annotated[xr.DataArray, Schema(datacube_schema(TEMPORAL))]
BandsCube = Annotated[xr.DataArray, Schema(datacube_schema(BANDS))]
VectorCube = Annotated[xr.Dataset, Schema(datacube_schema(GEOMETRY))]


def child_process_schema(
    parameters: Mapping[str, tuple[Any, str]], returns: Any, text: str = "The value to be set.", **more: Any
) -> Schema:
    """Make the schema of a child process; parameters are ``{name: (schema, text)}``, plus ``context``."""
    described: list[dict[str, Any]] = [
        {"name": name, "description": prose, "schema": schema} for name, (schema, prose) in parameters.items()
    ]
    described.append(
        {
            "name": "context",
            "description": "Additional data passed by the user.",
            "schema": ANY_JSON,
            "optional": True,
            "default": None,
        }
    )
    result = {"description": text, "schema": returns}
    return Schema(
        {**more, "type": "object", "subtype": "process-graph", "parameters": described, "returns": result}
    )


LABELED_ARRAY = {"type": "array", "subtype": "labeled-array", "items": {"description": "Any data type."}}
ANY_ARRAY = {"type": "array", "items": {"description": "Any data type."}}

LabeledReducer = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"data": (LABELED_ARRAY, "The values along the dimension, with their labels.")}, ANY_JSON
    ),
]
Reducer = Annotated[
    Callable[..., Any], child_process_schema({"data": (ANY_ARRAY, "The values to reduce.")}, ANY_JSON)
]

EPSG = {"title": "EPSG Code", "type": "integer", "subtype": "epsg-code", "minimum": 1000, "examples": [3857]}
WKT2 = {"title": "WKT2", "type": "string", "subtype": "wkt2-definition"}

BOUNDING_BOX: dict[str, Any] = {
    "type": "object",
    "subtype": "bounding-box",
    "required": ["west", "south", "east", "north"],
    "properties": {
        "west": {"description": "The western edge (smallest first coordinate).", "type": "number"},
        "south": {"description": "The southern edge (smallest second coordinate).", "type": "number"},
        "east": {"description": "The eastern edge (largest first coordinate).", "type": "number"},
        "north": {"description": "The northern edge (largest second coordinate).", "type": "number"},
        "base": {
            "description": "The lower end of the third axis.",
            "type": ["number", "null"],
            "default": None,
        },
        "height": {
            "description": "The upper end of the third axis.",
            "type": ["number", "null"],
            "default": None,
        },
        "crs": {
            "description": "The reference system of the edges: an EPSG code or WKT2; longitude and "
            "latitude (4326) if left out.",
            "anyOf": [EPSG, WKT2],
            "default": 4326,
        },
    },
}
BoundingBox = Annotated[Mapping[str, Any], Schema(BOUNDING_BOX)]
