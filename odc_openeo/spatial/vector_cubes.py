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
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry
from shapely.geometry import shape

from odc_openeo import cube
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs
from odc_openeo.untrusted.schema_messages import shorten_value

LONLAT: Final = pyproj.CRS.from_epsg(4326)
GEOMETRY_TYPES: Final = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
)
POLYGONS: Final = frozenset({"Polygon", "MultiPolygon"})
ID: Final = "id"

_EARTH_RADIUS: Final = 6_371_000.0
_MAX_PIECES: Final = 20_000
_EDGE: Final = 3_000.0
"""Length in metres of an edge that stays straight to within a metre in any other CRS."""


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


# --- Reprojection --------------------------------------------------------------------------------


def project_to_grid(frame: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    """Project geometries to the CRS of a grid: an array of shapely geometries in the frame's order.

    Edges are straight lines in the original CRS, so the geometries are cut to the surroundings of the grid
    and densified until edges deviate from their curves by less than a hundredth of a pixel.
    """
    target = pyproj.CRS.from_user_input(grid.crs.to_wkt())
    source = frame.crs
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    if source is None or target.equals(source, ignore_axis_order=True):
        return shapes
    return _reproject_shapes(_cut_to_grid(shapes, source, target, grid), source, target, grid)


def project_bounds(shapes: np.ndarray, source: Any, grid: GeoBox) -> np.ndarray:
    """West, south, east and north of each geometry in the CRS of a grid, ``(n, 4)``; NaN for empty ones.

    They do not depend on how much of a geometry the grid covers, unless the geometry reaches beyond the area
    in which the CRS is defined: then only the part near the grid counts.
    """
    target = pyproj.CRS.from_user_input(grid.crs.to_wkt())
    if source is None or target.equals(source, ignore_axis_order=True):
        return shapely.bounds(shapes)
    source = pyproj.CRS.from_user_input(source)
    whole = _reproject_shapes(shapes, source, target, grid)
    bounds = shapely.bounds(whole)
    xy, owner = shapely.get_coordinates(whole, return_index=True)
    far = np.unique(owner[~np.isfinite(xy).all(axis=1)])
    if far.size:
        near = _cut_to_grid(shapes[far], source, target, grid)
        bounds[far] = shapely.bounds(_reproject_shapes(near, source, target, grid))
    return bounds


def project_outline(box: BoundingBox, crs: CRS) -> Geometry:
    """Project a box to another CRS; its edges follow their curves there to within metres."""
    step = _EDGE / _metres_per_unit(pyproj.CRS.from_user_input(box.crs.to_wkt()))
    step = max(step, box.span_x / _MAX_PIECES, box.span_y / _MAX_PIECES)
    return box.polygon.to_crs(crs, resolution=step)


def _reproject_shapes(shapes: np.ndarray, source: pyproj.CRS, target: pyproj.CRS, grid: GeoBox) -> np.ndarray:
    """Project geometries to another CRS, with points added to their edges so that they follow the curves."""
    pixel = min(abs(grid.resolution.x), abs(grid.resolution.y)) * _metres_per_unit(target)
    step = np.sqrt(8 * pixel / 100 * _EARTH_RADIUS / 4) / _metres_per_unit(source)
    dense = shapely.segmentize(shapes, np.maximum(step, shapely.length(shapes) / _MAX_PIECES))
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(dense, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))


def _metres_per_unit(crs: pyproj.CRS) -> float:
    if crs.is_geographic:
        return float(np.pi / 180 * _EARTH_RADIUS)
    return float(crs.axis_info[0].unit_conversion_factor or 1.0) if crs.axis_info else 1.0


def _cut_to_grid(shapes: np.ndarray, source: pyproj.CRS, target: pyproj.CRS, grid: GeoBox) -> np.ndarray:
    """Cut geometries to the surroundings of the grid: its CRS may not be defined in the rest of the world."""
    back = pyproj.Transformer.from_crs(target, source, always_xy=True)
    left, bottom, right, top = grid.boundingbox.bbox
    west, south, east, north = back.transform_bounds(left, bottom, right, top, densify_pts=51)
    if not np.isfinite([west, south, east, north]).all() or west > east:
        return shapes
    dx, dy = (east - west) * 0.1, (north - south) * 0.1
    box = (west - dx, south - dy, east + dx, north + dy)
    inside = shapely.box(*box)
    crosses = ~shapely.covers(inside, shapes) & shapely.intersects(inside, shapes)
    cut = shapes.copy()
    cut[crosses] = shapely.intersection(shapes[crosses], inside)
    cut[~shapely.intersects(inside, shapes)] = shapely.GeometryCollection()
    return cut
