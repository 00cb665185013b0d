"""Geometries: GeoJSON and vector cubes as geopandas frames, and their reprojection.

A vector cube is an xarray object with an xvec geometry dimension. The attributes of each geometry (GeoJSON
properties, the feature's ``id``) are kept in coordinates along that dimension.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the accessor)
from shapely.geometry import shape

from odc_openeo import cube
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs

LONLAT: Final = pyproj.CRS.from_epsg(4326)
GEOMETRY_TYPES: Final = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
)
POLYGONS: Final = frozenset({"Polygon", "MultiPolygon"})
ID: Final = "id"


# --- Reading -------------------------------------------------------------------------------------


def from_geojson(data: Any, process: str, parameter: str, *, collections: bool = False) -> gpd.GeoDataFrame:
    """GeoJSON as a frame: one row per Feature (or bare geometry), one column per property.

    The CRS is longitude and latitude unless the obsolete member ``crs`` names another one. ``collections``
    allows GeometryCollections. A Feature without geometry becomes an empty geometry.

    Raises:
        ProcessParameterInvalid: it is not GeoJSON, of an unsupported type, or has an invalid geometry.
    """
    try:
        features = _get_features(data)
        shapes = [_parse_shape(f.get("geometry"), collections) for f in features]
        crs = _parse_declared_crs(data)
        _check_valid(shapes)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        shapely.errors.ShapelyError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason) from error
    return gpd.GeoDataFrame(_tabulate_properties(features), geometry=shapes, crs=crs)


def read_geometries(
    value: Any, process: str, parameter: str, types: frozenset[str] | None = None
) -> gpd.GeoDataFrame:
    """Read the geometries of a parameter that accepts GeoJSON or a vector cube into a frame.

    Raises:
        ProcessParameterInvalid: it is neither, has no geometry, or a non-empty one that is not of ``types``.
    """

    def make_error(reason: str) -> ProcessParameterInvalid:
        return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)

    if cube.is_cube(value):
        if find_geometry_dimension(value) is None:
            raise make_error("it must be a vector cube or GeoJSON, but it is a cube without geometries.")
        frame = to_frame(value)
    elif isinstance(value, Mapping):
        frame = from_geojson(value, process, parameter)
    else:
        raise make_error("it must be a vector cube or GeoJSON.")
    if frame.empty:
        raise make_error("it holds no geometry.")
    unsupported = set(frame.geometry[~frame.geometry.is_empty].geom_type) - (types or GEOMETRY_TYPES)
    if unsupported:
        supported = ", ".join(sorted(types or GEOMETRY_TYPES))
        raise make_error(
            f"geometries of type {', '.join(sorted(unsupported))} are not supported here; give {supported}."
        )
    return frame


def _get_features(data: Any) -> list[Mapping[str, Any]]:
    if not isinstance(data, Mapping):
        raise ValueError("it must be a GeoJSON object.")
    kind = data.get("type")
    if kind == "FeatureCollection":
        features = data.get("features")
        if not isinstance(features, list) or not all(
            isinstance(f, Mapping) and f.get("type") == "Feature" for f in features
        ):
            raise ValueError("the 'features' of a FeatureCollection must be an array of Features.")
        return features
    if kind == "Feature":
        return [data]
    return [{"type": "Feature", "geometry": data}]


def _parse_shape(geometry: Any, collections: bool) -> Any:
    if geometry is None:
        return shapely.GeometryCollection()
    if not isinstance(geometry, Mapping):
        raise ValueError("the 'geometry' of a Feature must be an object or null.")
    kind = geometry.get("type")
    if kind not in GEOMETRY_TYPES and not (collections and kind == "GeometryCollection"):
        raise ValueError(
            f"the GeoJSON type {kind!r} is not supported. "
            f"Use {', '.join(sorted(GEOMETRY_TYPES))}, Feature or FeatureCollection."
        )
    parsed = shape(dict(geometry))
    if not np.isfinite(shapely.get_coordinates(parsed)).all():
        raise ValueError(f"the coordinates of the {kind} must be finite numbers.")
    return parsed


def _parse_declared_crs(data: Mapping[str, Any]) -> pyproj.CRS:
    declared = data.get("crs")
    if declared is None:
        return LONLAT
    name = declared["properties"]["name"] if isinstance(declared, Mapping) else declared
    try:
        crs = parse_crs(name)
    except CrsRefusedError as error:
        raise ValueError(f"the CRS {name!r} is not known. Leave out 'crs' for lon/lat.") from error
    return LONLAT if crs.to_epsg() == 4326 or crs.to_authority() == ("OGC", "CRS84") else crs


def _check_valid(shapes: Sequence[Any]) -> None:
    for number, geometry in enumerate(shapes):
        if not shapely.is_valid(geometry):
            reason = shapely.is_valid_reason(geometry)
            raise ValueError(f"geometry number {number} is not valid: {reason}. Repair it first.")


def _tabulate_properties(features: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = [dict(f.get("properties") or {}) for f in features]
    frame = pd.DataFrame(rows, index=range(len(rows)))
    if ID not in frame.columns and any(f.get(ID) is not None for f in features):
        frame[ID] = [f.get(ID) for f in features]
    renamed = {c: f"property_{c}" for c in frame.columns if c == cube.GEOMETRY}
    return frame.rename(columns=renamed)


# --- Vector cubes --------------------------------------------------------------------------------


def find_geometry_dimension(data: cube.Cube) -> str | None:
    """The name of the first dimension that holds geometries, None if there is none."""
    dimensions = [d for d in data.dims if d in data.xvec.geom_coords_indexed]
    return str(dimensions[0]) if dimensions else None


def to_frame(data: cube.Cube, dimension: str | None = None) -> gpd.GeoDataFrame:
    """The geometries of a vector cube with the coordinates along them, but without the cube's values."""
    name = dimension or find_geometry_dimension(data)
    if name is None:
        raise ValueError("the cube has no geometries")
    geometries = data.coords[name]
    columns = {str(k): c.values for k, c in data.coords.items() if c.dims == (name,) and k != name}
    return gpd.GeoDataFrame(columns, geometry=list(geometries.values), crs=get_crs(data, name))


def get_crs(data: cube.Cube, dimension: str) -> pyproj.CRS:
    """The CRS of the geometries along a dimension: longitude and latitude if none is recorded."""
    crs = data.xindexes[dimension].crs  # type: ignore[attr-defined]
    return LONLAT if crs is None else crs


def make_geometry_coordinates(
    frame: gpd.GeoDataFrame, taken: Sequence[Hashable] = (), dimension: str = cube.GEOMETRY
) -> dict[str, Any]:
    """The coordinates of a geometry dimension: the geometries and all other columns of the frame.

    A column whose name is in ``taken`` (names already used in the cube) becomes ``property_NAME``.
    """
    coordinates: dict[str, Any] = {dimension: (dimension, frame.geometry.to_numpy())}
    for name in frame.columns.drop(frame.geometry.name):
        key = f"property_{name}" if name in taken or name == dimension else str(name)
        coordinates[key] = (dimension, frame[name].to_numpy())
    return coordinates


def index_geometries(data: Any, crs: Any, dimension: str = cube.GEOMETRY) -> Any:
    """Turn a coordinate of geometries into a geometry dimension of the given CRS."""
    indexed = data.xvec.set_geom_indexes(dimension, crs=crs)
    indexed.coords[dimension].attrs[cube.TYPE] = "geometry"
    return indexed


def from_frame(frame: gpd.GeoDataFrame) -> xr.Dataset:
    """A vector cube without values: the geometries, and the other columns as coordinates along them."""
    return index_geometries(xr.Dataset(coords=make_geometry_coordinates(frame)), frame.crs)
