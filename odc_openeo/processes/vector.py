"""Vector cubes: load them from GeoJSON, buffer, reproject and sample them, burn them into rasters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.budget import check_count
from odc_openeo.errors import CountMismatch, DimensionNotAvailable, ProcessParameterInvalid, UnitMismatch
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.geometry_schemas import GeometryCube, GeometryInput, PointCube
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import EPSG, WKT2, Boolean, SpatialCube, StringOrNull
from odc_openeo.spatial import rasterize, reproject, vector_cubes
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs

MOST_POINTS: Final = 1_000_000
"""Points sampled in all geometries together."""
PROPERTIES: Final = "properties"
_NOTHING: Final[list[str]] = []

GeoJSON = Annotated[Mapping[str, Any], Schema({"type": "object", "subtype": "geojson"})]
Names = Annotated[Sequence[str], Schema({"type": "array", "uniqueItems": True, "items": {"type": "string"}})]
Distance = Annotated[float, Schema({"type": "number", "not": {"const": 0}})]
Spacing = Annotated[
    float,
    Schema({"type": "number", "minimumExclusive": 0}, accepts={"type": "number", "exclusiveMinimum": 0}),
]
Projection = Annotated[int | str, Schema([EPSG, WKT2])]
Count = Annotated[
    int | None, Schema([{"type": "integer", "minimum": 1}, {"title": "Unrestricted", "type": "null"}])
]
Seed = Annotated[int | None, Schema({"type": ["integer", "null"]})]


@process(categories=["import", "vector"], experimental=True)
def load_geojson(data: GeoJSON, properties: Names = _NOTHING) -> GeometryCube:
    """Load a vector cube from GeoJSON.

    All properties of the features are kept with the geometries. The given properties become values of the
    cube, along a dimension ``properties``; without any the cube has no values.

    Args:
        data: GeoJSON other than a GeometryCollection, in longitude and latitude.
        properties: The properties that become values: their names are the labels. For a single property that
            holds arrays, the labels are the indices of the elements.

    Returns:
        A vector cube with the dimension ``geometry`` and, if there are values, ``properties``.
    """
    frame = vector_cubes.from_geojson(data, "load_geojson", "data")
    if not properties:
        return vector_cubes.from_frame(frame)
    columns = {name: list(frame[name]) if name in frame else [None] * len(frame) for name in properties}
    first = columns[properties[0]]
    if len(properties) == 1 and any(isinstance(v, list) for v in first):
        rows = [v if isinstance(v, list) else [] for v in first]
        labels: list[Any] = list(range(max(map(len, rows), default=0)))
        table = [[*r, *[None] * (len(labels) - len(r))] for r in rows]
    else:
        labels = list(properties)
        table = [list(row) for row in zip(*columns.values(), strict=True)]
    values = _convert_table(table).reshape(len(table), len(labels))
    coords = vector_cubes.make_geometry_coordinates(
        frame.drop(columns=list(columns), errors="ignore"), [PROPERTIES]
    )
    vectors = xr.DataArray(values, dims=(cube.GEOMETRY, PROPERTIES), coords={**coords, PROPERTIES: labels})
    return vector_cubes.index_geometries(vectors, frame.crs)


def _convert_table(table: list[list[Any]]) -> np.ndarray:
    """Numbers as floats with NaN for missing values, anything else as objects."""
    cells = [v for row in table for v in row if v is not None]
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in cells):
        return np.array([[np.nan if v is None else float(v) for v in row] for row in table])
    values = np.empty((len(table), len(table[0]) if table else 0), dtype=object)
    values[:] = table
    return values


@process(categories=["vector"], experimental=True)
def vector_buffer(geometries: GeometryInput, distance: Distance) -> GeometryCube:
    """Grow or shrink geometries by a distance.

    Args:
        geometries: A vector cube in a reference system in metres.
        distance: The distance in metres; a negative one shrinks polygons, which may become empty.

    Returns:
        The vector cube with polygons as geometries.

    Raises:
        UnitMismatch: The reference system is not in metres.
    """
    geometries = vector_cubes.as_vector_cube(geometries, "vector_buffer", "geometries")
    frame = vector_cubes.read_geometries(geometries, "vector_buffer", "geometries")
    _check_metres(frame.crs)
    shapes = frame.geometry.to_numpy()
    try:
        buffered = np.where(shapely.is_empty(shapes), shapes, shapely.buffer(shapes, distance, quad_segs=16))
    except shapely.errors.ShapelyError as error:
        reason = f"{distance:g} metres is too large for these coordinates."
        raise ProcessParameterInvalid(process="vector_buffer", parameter="distance", reason=reason) from error
    return _replace_geometries(
        geometries, vector_cubes.find_geometry_dimension(geometries), buffered, frame.crs
    )


@process(categories=["cubes", "reproject", "vector"], experimental=True)
def vector_reproject(
    data: GeometryInput, projection: Projection, dimension: StringOrNull = None
) -> GeometryCube:
    """Express the geometries of a vector cube in another reference system.

    Args:
        data: A vector cube.
        projection: The new reference system as EPSG code or WKT2.
        dimension: The geometry dimension; by default all geometry dimensions.

    Returns:
        The vector cube; only the coordinates of the geometries change.

    Raises:
        DimensionNotAvailable: There is no geometry dimension of that name.
    """
    vectors = vector_cubes.as_vector_cube(data, "vector_reproject", "data")
    dimensions = [str(d) for d in vectors.dims if d in vectors.xvec.geom_coords_indexed]
    if dimension is not None and dimension not in dimensions:
        raise DimensionNotAvailable(name=dimension, available=", ".join(dimensions))
    try:
        crs = parse_crs(projection)
    except CrsRefusedError as error:
        reason = f"{str(projection)[:60]!r} is not a known reference system. Give an EPSG code or WKT2."
        raise ProcessParameterInvalid(
            process="vector_reproject", parameter="projection", reason=reason
        ) from error
    for name in [dimension] if dimension is not None else dimensions:
        shapes = vector_cubes.to_frame(vectors, name).to_crs(crs).geometry.to_numpy()
        vectors = _replace_geometries(vectors, name, shapes, crs)
    return vectors


def _replace_geometries(data: Any, dimension: str | None, shapes: np.ndarray, crs: Any) -> Any:
    bare = data.drop_indexes(dimension).assign_coords({dimension: (dimension, shapes)})
    return vector_cubes.index_geometries(bare, crs, str(dimension))


def _check_metres(crs: pyproj.CRS) -> None:
    units = {axis.unit_name for axis in crs.axis_info}
    if not units <= {"metre", "meter", "m"}:
        unit = ", ".join(sorted(units))
        reason = f"it is in metres, but the coordinates are in {unit}. Use vector_reproject before."
        raise UnitMismatch(reason=reason)


# --- Points in geometries ------------------------------------------------------------------------


@process(
    categories=["cubes", "vector"], experimental=True, whole_because="random points differ from part to part"
)
def vector_to_random_points(
    data: GeometryInput,
    geometry_count: Count = None,
    total_count: Count = None,
    group: Boolean = True,
    seed: Seed = None,
) -> PointCube:
    """Sample random points in geometries, evenly distributed over areas and lines.

    Args:
        data: A vector cube.
        geometry_count: The maximum number of points per geometry; 1 if neither count is given.
        total_count: The maximum number of points in all geometries together, distributed evenly.
        group: Whether the points of a geometry form one MultiPoint, or one Point each.
        seed: Makes the random points reproducible.

    Returns:
        A vector cube of points with the properties of their geometries.

    Raises:
        CountMismatch: There are more geometries than points in ``total_count``.
    """
    frame = vector_cubes.read_geometries(data, "vector_to_random_points", "data")
    shapes = frame.geometry.to_numpy()
    used = np.nonzero(~shapely.is_empty(shapes))[0]
    if total_count is not None and total_count < len(used):
        raise CountMismatch(f"{total_count} points are not enough for {len(used)} geometries.")
    counts = np.zeros(len(shapes), dtype=int)
    if total_count is None:
        counts[used] = geometry_count or 1
    else:
        counts[used] = total_count // max(1, len(used))
        counts[used[: total_count % max(1, len(used))]] += 1
        counts = np.minimum(counts, geometry_count) if geometry_count else counts
    _check_points(int(counts.sum()))
    random = np.random.default_rng(None if seed is None else seed % 2**64)
    return _collect_points(
        frame, [_sample_random(s, n, random) for s, n in zip(shapes, counts, strict=True)], group
    )


def _sample_random(shape: Any, count: int, random: np.random.Generator) -> np.ndarray:
    """Sample at most ``count`` distinct random points of a geometry: coordinates ``(n, 2)``."""
    if count == 0:
        return np.empty((0, 2))
    dimension = shapely.get_dimensions(shape)
    if dimension == 0:
        coordinates = np.unique(shapely.get_coordinates(shape), axis=0)
        return random.permutation(coordinates)[:count]
    if dimension == 1:
        parts = shapely.get_parts(shape)
        lengths = shapely.length(parts)
        chosen = random.choice(len(parts), size=count, p=lengths / lengths.sum())
        along = random.uniform(size=count) * lengths[chosen]
        return shapely.get_coordinates(shapely.line_interpolate_point(parts[chosen], along))
    return _sample_random_in_area(shape, count, random)


def _sample_random_in_area(shape: Any, count: int, random: np.random.Generator) -> np.ndarray:
    """Choose triangles by area, then a point in each: no rejection sampling, whatever the shape."""
    triangles = shapely.get_parts(shapely.constrained_delaunay_triangles(shape))
    corners = shapely.get_coordinates(triangles).reshape(-1, 4, 2)[:, :3]
    areas = shapely.area(triangles)
    a, b, c = corners[random.choice(len(triangles), size=count, p=areas / areas.sum())].swapaxes(0, 1)
    u, v = random.uniform(size=(2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a + u * (b - a) + v * (c - a)


@process(categories=["cubes", "vector"], experimental=True)
def vector_to_regular_points(data: GeometryInput, distance: Spacing, group: Boolean = True) -> PointCube:
    """Sample regularly spaced points in geometries.

    Polygons are sampled at the centres of square cells that start at the upper left of their bounds; if none
    of them is inside, their first coordinate is used. Lines are sampled from their start. Points stay.

    Args:
        data: A vector cube in a reference system in metres.
        distance: The distance between two points in metres.
        group: Whether the points of a geometry form one MultiPoint, or one Point each.

    Returns:
        A vector cube of points with the properties of their geometries.

    Raises:
        UnitMismatch: The reference system is not in metres.
    """
    frame = vector_cubes.read_geometries(data, "vector_to_regular_points", "data")
    _check_points(sum(_count_candidates(s, distance) for s in frame.geometry))
    _check_metres(frame.crs)
    return _collect_points(frame, [_sample_regular(s, distance) for s in frame.geometry], group)


def _check_points(count: float) -> None:
    check_count(count, MOST_POINTS, "points", "Choose fewer points or a larger distance between them.")


def _count_candidates(shape: Any, distance: float) -> float:
    """The number of candidate points for sampling a geometry."""
    if shapely.is_empty(shape):
        return 0
    west, south, east, north = shapely.bounds(shape)
    dimension = shapely.get_dimensions(shape)
    if dimension < 2:
        return float(shapely.length(shape) / distance + shapely.get_num_coordinates(shape))
    return float((1 + (east - west) / distance) * (1 + (north - south) / distance))


def _sample_regular(shape: Any, distance: float) -> np.ndarray:
    if shapely.is_empty(shape):
        return np.empty((0, 2))
    dimension = shapely.get_dimensions(shape)
    if dimension == 0:
        return shapely.get_coordinates(shape)
    if dimension == 1:
        lines = shapely.get_parts(shape)
        steps = [shapely.line_interpolate_point(p, np.arange(0, p.length, distance)) for p in lines]
        return shapely.get_coordinates(np.concatenate(steps))
    west, south, east, north = shapely.bounds(shape)
    x, y = np.meshgrid(
        np.arange(west + distance / 2, east, distance), np.arange(north - distance / 2, south, -distance)
    )
    shapely.prepare(shape)
    inside = shapely.intersects_xy(shape, x, y)
    if not inside.any():
        return shapely.get_coordinates(shape)[:1]
    return np.column_stack([x[inside], y[inside]])


def _collect_points(frame: gpd.GeoDataFrame, coordinates: list[np.ndarray], group: bool) -> Any:
    """The sampled points as a vector cube: one geometry per row of the frame, or one per point."""
    if group:
        return vector_cubes.from_frame(
            frame.set_geometry([shapely.MultiPoint(c) for c in coordinates], crs=frame.crs)
        )
    rows = np.repeat(np.arange(len(frame)), [len(c) for c in coordinates])
    single = frame.iloc[rows].drop(columns=vector_cubes.ID, errors="ignore").reset_index(drop=True)
    return vector_cubes.from_frame(
        single.set_geometry(shapely.points(np.concatenate(coordinates)), crs=frame.crs)
    )


# --- Rasters -------------------------------------------------------------------------------------


def _needs_of_burning(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Of the target only the grid is used.
    return {"target": demand} if demand.in_part else {}


@process(categories=["cubes", "vector"], experimental=True, needs=_needs_of_burning)
def vector_to_raster(data: GeometryCube, target: SpatialCube) -> SpatialCube:
    """Burn the values of a vector cube into the pixels of their geometries.

    Where geometries overlap, the last one counts; pixels outside of all geometries are no-data.

    Args:
        data: A vector cube of numbers.
        target: A raster cube on the target grid.

    Returns:
        A raster cube of floats with the other dimensions of the vector cube, then ``y`` and ``x``.
    """
    frame = vector_cubes.read_geometries(data, "vector_to_raster", "data")
    if not isinstance(data, xr.DataArray) or data.dtype.kind not in "iufb":
        reason = "the vector cube has no numeric values. Set 'properties' in load_geojson."
        raise ProcessParameterInvalid(process="vector_to_raster", parameter="data", reason=reason)
    grid = rasterize.get_grid(target, "vector_to_raster", "target")
    number = np.full(grid.shape.yx, -1, dtype=np.int32)
    for index, shape in enumerate(reproject.project_to_grid(frame, grid)):
        part = rasterize.find_window(shape, grid)
        if part is not None:
            number[part][rasterize.mask_pixels(shape, grid[part])] = index
    dimension = vector_cubes.find_geometry_dimension(data)
    ordered = cube.decode(data.transpose(..., dimension))
    values: Any = ordered.data
    if isinstance(values, da.Array):
        values = values.rechunk({values.ndim - 1: -1})
        axis = values.ndim - 1
        chunks = (*values.chunks[:-1], *((n,) for n in number.shape))
        burn = partial(_burn_values, number=number)
        burnt = values.map_blocks(burn, chunks=chunks, drop_axis=axis, new_axis=[axis, axis + 1], dtype=float)
    else:
        burnt = _burn_values(values, number)
    other_coords = {k: c.variable for k, c in ordered.coords.items() if dimension not in c.dims}
    spatial = {k: target.coords[k] for k in (cube.Y, cube.X, cube.SPATIAL_REF) if k in target.coords}
    return xr.DataArray(burnt, dims=(*ordered.dims[:-1], cube.Y, cube.X), coords={**other_coords, **spatial})


def _burn_values(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.where(number >= 0, values[..., number].astype(float), np.nan)
