"""The JSON Schemas of parameters that take geometries, grids and resampling methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import xarray as xr

from odc_openeo.registry.process import Schema
from odc_openeo.registry.schemas import ANY_JSON, GEOMETRY, SPATIAL, child_process_schema, datacube_schema

POLYGON: Final = {"type": "geometry", "geometry_type": ["Polygon", "MultiPolygon"]}
POINT: Final = {"type": "geometry", "geometry_type": ["Point", "MultiPoint"]}
GEOJSON: Final = {
    "title": "GeoJSON",
    "type": "object",
    "subtype": "geojson",
    "description": "Better loaded with load_geojson. GeometryCollections are not supported.",
    "deprecated": True,
}


def _make_vector_schema(dimension: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": "Vector Data Cube", **datacube_schema(dimension)}


VectorInput = Mapping[str, Any] | xr.Dataset | xr.DataArray
Geometries = Annotated[VectorInput, Schema([_make_vector_schema(GEOMETRY), GEOJSON])]
Polygons = Annotated[VectorInput, Schema([_make_vector_schema(POLYGON), GEOJSON])]
PolygonCube = Annotated[
    VectorInput, Schema(datacube_schema(POLYGON), accepts=[datacube_schema(POLYGON), GEOJSON])
]
GeometryCube = Annotated[xr.Dataset | xr.DataArray, Schema(datacube_schema(GEOMETRY))]
GeometryInput = Annotated[
    VectorInput, Schema(datacube_schema(GEOMETRY), accepts=[datacube_schema(GEOMETRY), GEOJSON])
]
"""Published as a vector cube; GeoJSON, as some clients send it, is taken as well."""
PointCube = Annotated[xr.Dataset | xr.DataArray, Schema(datacube_schema(POINT))]

Replacement = Annotated[
    bool | float | str | None,
    Schema([{"type": "number"}, {"type": "boolean"}, {"type": "string"}, {"type": "null"}]),
]

CORNERS: Final = ["lower-left", "upper-left", "lower-right", "upper-right"]
Corner = Annotated[str, Schema({"type": "string", "enum": CORNERS})]

ANY_VALUES: Final = {"type": "array", "items": ANY_JSON}
PixelReducer = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"data": (ANY_VALUES, "The values of the pixels, in no particular order.")}, ANY_JSON
    ),
]
SUBCUBE: Final = datacube_schema(SPATIAL)
