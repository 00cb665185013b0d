"""Geometries: GeoJSON and vector cubes as geopandas frames, and their reprojection.

A vector cube is an xarray object with an xvec geometry dimension. The attributes of each geometry (GeoJSON
properties, the feature's ``id``) are kept in coordinates along that dimension.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
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
from odc_openeo.cube.coordinates import RESERVED
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs
from odc_openeo.untrusted.schema_messages import shorten_value

LONLAT: Final = pyproj.CRS.from_epsg(4326)
GEOMETRY_TYPES: Final = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
)
POLYGONS: Final = frozenset({"Polygon", "MultiPolygon"})
ID: Final = "id"

EXACT: Final = 2**53
"""Largest integer up to which floats hold all integers."""
_RESERVED_BY_XARRAY: Final = frozenset({""})


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
        if not all(isinstance(f.get("properties") or {}, Mapping) for f in features):
            raise ValueError("the 'properties' of a Feature must be an object or null.")
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
        # Other errors are those of libraries, in their words.
        reason = str(error) if type(error) is ValueError else "it is not valid GeoJSON."
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


def as_vector_cube(value: Any, process: str, parameter: str) -> cube.Cube:
    """Return a vector cube as it is, and GeoJSON as one without values; errors as in `read_geometries`."""
    frame = read_geometries(value, process, parameter)
    return value if cube.is_cube(value) else from_frame(frame)


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
            f"the GeoJSON type {shorten_value(kind)} is not supported. "
            f"Use {', '.join(sorted(GEOMETRY_TYPES))}, Feature or FeatureCollection."
        )
    parsed = _make_shape(geometry)
    if not np.isfinite(shapely.get_coordinates(parsed)).all():
        raise ValueError(f"the coordinates of the {kind} must be finite numbers.")
    return parsed


def _make_shape(geometry: Mapping[str, Any]) -> Any:
    kind = geometry["type"]
    member = "geometries" if kind == "GeometryCollection" else "coordinates"
    try:
        return shape(dict(geometry))
    except (ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(
            f"the '{member}' of the {kind} are not those of one: {shorten_value(geometry.get(member))}. See "
            "GeoJSON (RFC 7946)."
        ) from error


def _parse_declared_crs(data: Mapping[str, Any]) -> pyproj.CRS:
    declared = data.get("crs")
    if declared is None:
        return LONLAT
    inner = declared.get("properties") if isinstance(declared, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else declared
    try:
        crs = parse_crs(name)
    except CrsRefusedError as error:
        shown = shorten_value(name)
        raise ValueError(f"the CRS {shown} is not known. Leave out 'crs' for lon/lat.") from error
    return LONLAT if crs.to_epsg() == 4326 or crs.to_authority() == ("OGC", "CRS84") else crs


def _check_valid(shapes: Sequence[Any]) -> None:
    for number, geometry in enumerate(shapes):
        if not shapely.is_valid(geometry):
            reason = shapely.is_valid_reason(geometry)
            raise ValueError(f"geometry number {number} is not valid: {reason}. Repair it first.")


def _tabulate_properties(features: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = [dict(f.get("properties") or {}) for f in features]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: make_property_column([row.get(name) for row in rows]) for name in names}
    if ID not in columns and any(f.get(ID) is not None for f in features):
        columns[ID] = make_property_column([f.get(ID) for f in features])
    if cube.GEOMETRY in columns:
        key = _make_unique(f"property_{cube.GEOMETRY}", columns)
        columns = {key if name == cube.GEOMETRY else name: values for name, values in columns.items()}
    # Halves of surrogate pairs, which JSON may hold, are no characters.
    columns = {name.encode("utf-8", "replace").decode("utf-8"): values for name, values in columns.items()}
    return pd.DataFrame(columns, index=range(len(rows)))


def make_property_column(values: Sequence[Any]) -> np.ndarray:
    """Make a column of JSON values: an array of numbers or booleans if all are such, else of objects.

    In objects, integers stay what they are where other features have none.
    """
    present = [v for v in values if v is not None]
    kinds = {type(v) for v in present}
    if kinds in ({float}, {int, float}) and all(abs(v) <= EXACT for v in present if type(v) is int):
        return np.array([np.nan if v is None else v for v in values], dtype=float)
    is_complete = len(present) == len(values)
    if is_complete and kinds == {bool}:
        return np.array(values, dtype=bool)
    if is_complete and kinds == {int} and all(-(2**63) <= v < 2**63 for v in present):
        return np.array(values, dtype=np.int64)
    return make_object_column(values)


def make_object_column(values: Sequence[Any]) -> np.ndarray:
    """Make a column of any values, of which lists stay lists."""
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def _make_unique(name: str, used: Container[Hashable]) -> str:
    while name in used:
        name = f"property_{name}"
    return name


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

    A column whose name is in ``taken`` (names already used in the cube), or has a meaning in cubes, becomes
    ``property_NAME``.
    """
    coordinates: dict[str, Any] = {dimension: (dimension, frame.geometry.to_numpy())}
    names = [name for name in frame.columns if name != frame.geometry.name]
    used = {*taken, dimension, *RESERVED.difference(cube.PACKING), *_RESERVED_BY_XARRAY}
    free = {str(name) for name in names if name not in used}
    for name in names:
        key = str(name) if name in free else _make_unique(str(name), used | free | set(coordinates))
        coordinates[key] = (dimension, _as_array(frame[name]))
    return coordinates


def _as_array(column: pd.Series) -> np.ndarray:
    """A column as an array; integers with gaps are objects, as they would become floats otherwise."""
    if not isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        return column.to_numpy()
    values = column.astype(object).where(column.notna(), None).to_numpy()
    return values if pd.api.types.is_datetime64_any_dtype(column) else make_property_column(list(values))


def index_geometries(data: Any, crs: Any, dimension: str = cube.GEOMETRY) -> Any:
    """Turn a coordinate of geometries into a geometry dimension of the given CRS."""
    indexed = data.xvec.set_geom_indexes(dimension, crs=crs)
    indexed.coords[dimension].attrs[cube.TYPE] = "geometry"
    return indexed


def from_frame(frame: gpd.GeoDataFrame) -> xr.Dataset:
    """A vector cube without values: the geometries, and the other columns as coordinates along them."""
    return index_geometries(xr.Dataset(coords=make_geometry_coordinates(frame)), frame.crs)
