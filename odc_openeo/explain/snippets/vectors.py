"""Vector cubes."""

import numpy as np
import shapely
import xarray as xr


def make_vector_cube(table):
    """A cube of the geometries of a GeoDataFrame; its columns are coordinates along them."""
    coords = {"geometry": ("geometry", table.geometry.to_numpy())}
    coords |= {name: ("geometry", table[name].to_numpy()) for name in table.columns if name != "geometry"}
    return xr.Dataset(coords=coords)


def make_vector_values(table, properties):
    """A cube of columns of a GeoDataFrame along the dimension properties."""
    values = np.array([[float(v) if v is not None else np.nan for v in table[name]] for name in properties]).T
    coords = {"geometry": table.geometry.to_numpy(), "properties": properties}
    return xr.DataArray(values, dims=("geometry", "properties"), coords=coords)


def replace_geometries(data, dimension, shapes, crs):
    """Put other geometries in the place of those along a dimension."""
    bare = data.drop_indexes(dimension).assign_coords({dimension: (dimension, shapes)})
    return bare.xvec.set_geom_indexes(dimension, crs=crs)


def sample_regular(shape, distance):
    """The coordinates of points on a regular grid in an area, along lines, or of points as they are."""
    if shape.is_empty:
        return np.empty((0, 2))
    if shapely.get_dimensions(shape) == 0:
        return shapely.get_coordinates(shape)
    if shapely.get_dimensions(shape) == 1:
        lines = shapely.get_parts(shape)
        along = [shapely.line_interpolate_point(p, np.arange(0, p.length, distance)) for p in lines]
        return shapely.get_coordinates(np.concatenate(along))
    west, south, east, north = shape.bounds
    columns = np.arange(west + distance / 2, east, distance)
    x, y = np.meshgrid(columns, np.arange(north - distance / 2, south, -distance))
    inside = shapely.intersects_xy(shape, x, y)
    return np.column_stack([x[inside], y[inside]]) if inside.any() else shapely.get_coordinates(shape)[:1]


def sample_random(shapes, geometry_count=None, total_count=None, seed=None):
    """The coordinates of random points in each geometry."""
    shapes = np.array(list(shapes), dtype=object)
    used = np.flatnonzero(~shapely.is_empty(shapes))
    counts = np.zeros(len(shapes), dtype=int)
    counts[used] = (geometry_count or 1) if total_count is None else total_count // max(1, len(used))
    if total_count is not None:
        counts[used[: total_count % max(1, len(used))]] += 1
        counts = np.minimum(counts, geometry_count) if geometry_count else counts
    random = np.random.default_rng(None if seed is None else seed % 2**64)
    return [sample_in(shape, count, random) for shape, count in zip(shapes, counts)]


def sample_in(shape, count, random):
    """The coordinates of random points in an area, on lines, or among points."""
    if count == 0:
        return np.empty((0, 2))
    if shapely.get_dimensions(shape) == 0:
        return random.permutation(np.unique(shapely.get_coordinates(shape), axis=0))[:count]
    if shapely.get_dimensions(shape) == 1:
        parts = shapely.get_parts(shape)
        lengths = shapely.length(parts)
        chosen = random.choice(len(parts), size=count, p=lengths / lengths.sum())
        along = random.uniform(size=count) * lengths[chosen]
        return shapely.get_coordinates(shapely.line_interpolate_point(parts[chosen], along))
    triangles = shapely.get_parts(shapely.constrained_delaunay_triangles(shape))
    corners = shapely.get_coordinates(triangles).reshape(-1, 4, 2)[:, :3]
    areas = shapely.area(triangles)
    a, b, c = corners[random.choice(len(triangles), size=count, p=areas / areas.sum())].swapaxes(0, 1)
    u, v = random.uniform(size=(2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a + u * (b - a) + v * (c - a)
