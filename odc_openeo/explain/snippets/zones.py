"""Geometries and pixels."""

import numpy as np
import shapely
import xarray as xr
from rasterio.features import rasterize, shapes


def cover_pixels(geometries, data):
    """Whether pixels are in one of the geometries: with their centres in areas, otherwise touched by them."""
    x, y = np.meshgrid(data["x"].values, data["y"].values)
    grid = data.odc.geobox
    inside = np.zeros(x.shape, dtype=bool)
    for geometry in geometries:
        if geometry is None or geometry.is_empty:
            continue
        if shapely.get_dimensions(geometry) == 2:
            nearly = geometry.buffer(abs(grid.resolution.x) * 1e-6)
            shapely.prepare(nearly)
            inside |= shapely.intersects_xy(nearly, x, y)
        elif shapely.get_dimensions(geometry) == 1:
            burnt = rasterize([(geometry, 1)], x.shape, transform=grid.transform, all_touched=True)
            inside |= burnt.astype(bool)
        else:
            columns, rows = ~grid.transform * shapely.get_coordinates(geometry).T
            height, width = x.shape
            valid = (columns >= 0) & (columns <= width) & (rows >= 0) & (rows <= height)
            rows = np.minimum(np.floor(rows[valid]), height - 1).astype(int)
            columns = np.minimum(np.floor(columns[valid]), width - 1).astype(int)
            inside[rows, columns] = True
    return xr.DataArray(inside, dims=("y", "x"), coords={"y": data["y"], "x": data["x"]})


def reduce_zones(data, geometries, reduce):
    """Reduce the pixels of each geometry; NaN for those without any."""
    pixels = data.stack(pixel=["y", "x"], create_index=False)
    reduced = []
    for geometry in geometries:
        inside = cover_pixels([geometry], data).values.ravel()
        part = reduce(pixels.isel(pixel=np.flatnonzero(inside))) if inside.any() else None
        reduced.append(part)
    like = next((part for part in reduced if part is not None), pixels.isel(pixel=0, drop=True))
    filled = [xr.full_like(like, np.nan, dtype=float) if part is None else part for part in reduced]
    return xr.concat(filled, dim="geometry")


def count_pixels(data, geometries, statistics, dimension):
    """Statistics of zones with the numbers of all their pixels and of those with data beside them."""
    valid = reduce_zones(data, geometries, lambda pixels: np.isfinite(pixels).sum("pixel")).fillna(0)
    total = reduce_zones(data, geometries, lambda pixels: xr.ones_like(pixels).sum("pixel")).fillna(0)
    labels = {dimension: ["value", "total_count", "valid_count"]}
    return xr.concat([statistics, total, valid], dim=dimension).assign_coords(labels)


def apply_to_polygons(function, data, polygons, outside=np.nan):
    """Apply a function to the part of a cube in each polygon, the pixels outside of it being one value."""
    result = data.astype(float)
    for polygon in polygons:
        inside = cover_pixels([polygon], data)
        if not inside.any():
            continue
        rows, columns = (np.flatnonzero(inside.any(d)) for d in ("x", "y"))
        window = {"y": slice(rows[0], rows[-1] + 1), "x": slice(columns[0], columns[-1] + 1)}
        part, within = data.isel(window), inside.isel(window)
        applied = function(part.where(within | part.isnull(), outside))
        result[window] = xr.where(within, applied, result.isel(window)).transpose(*result.dims).values
    return result


def burn_values(vectors, geometries, target, dimension):
    """Write the values of geometries into their pixels; NaN elsewhere."""
    number = np.full((target.sizes["y"], target.sizes["x"]), -1)
    for index, geometry in enumerate(geometries):
        number[cover_pixels([geometry], target).values] = index
    indexer = xr.DataArray(number, dims=("y", "x"), coords={"y": target["y"], "x": target["x"]})
    values = vectors.drop_vars(dimension).isel({dimension: indexer.clip(0)})
    return values.astype(float).where(indexer >= 0)


def outline_areas(data):
    """Polygons around connected pixels of equal values, with the value of each."""
    rest = [name for name in data.dims if name not in ("y", "x")]
    stacked = data.transpose(*rest, "y", "x").values.reshape(-1, data.sizes["y"], data.sizes["x"])
    outlines, values = [], []
    for layer in stacked:
        numbers, codes = np.unique(layer, return_inverse=True)
        image = codes.reshape(layer.shape).astype("int32")
        for outline, code in shapes(image, np.isfinite(layer), transform=data.odc.geobox.transform):
            outlines.append(shapely.geometry.shape(outline))
            values.append(float(numbers[int(code)]))
    coords = {"geometry": outlines, "properties": ["value"]}
    return xr.DataArray(np.array(values)[:, None], dims=("geometry", "properties"), coords=coords)
