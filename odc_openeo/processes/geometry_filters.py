"""Keep, mask or process the part of a cube that geometries cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube, geometry, rasterize
from odc_openeo.demand import ALL, SLACK, Demand
from odc_openeo.errors import (
    DataCubePropertiesImmutable,
    GeometriesOverlap,
    NoDataAvailable,
    ProcessParameterInvalid,
)
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes.geometry_needs import boxes_around
from odc_openeo.processes.geometry_schemas import (
    SUBCUBE,
    Geometries,
    GeometryCube,
    PolygonCube,
    Polygons,
    Replacement,
)
from odc_openeo.processes.schemas import AnyValue, Boolean, SpatialCube, child

RELATIONS: Final = [
    "intersects",
    "disjoint",
    "equals",
    "touches",
    "crosses",
    "overlaps",
    "contains",
    "within",
]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    around = boxes_around(arguments.get("geometries"))
    return {
        "data": replace(demand.everywhere(), boxes=around, margin=SLACK if around else 0),
        "geometries": ALL,
    }


@process(categories=["cubes", "filter"], needs=_needs, pointwise=True)
def filter_spatial(data: SpatialCube, geometries: Geometries) -> SpatialCube:
    """Limit a raster cube to geometries.

    The cube is cropped to the pixels in the bounding box of the geometries; what is left there outside of
    all geometries becomes no-data. A polygon has the pixels whose centre it holds or touches, a line those it
    runs through, a point the one it is in. Integers without a no-data value become floats.

    Args:
        data: A raster cube.
        geometries: A vector cube or GeoJSON.

    Returns:
        The cropped and masked cube, on the same grid.
    """
    frame = geometry.read(geometries, "filter_spatial", "geometries")
    grid = rasterize.grid_of(data, "filter_spatial")
    shapes = geometry.in_grid(frame, grid)
    windows = _windows(frame, grid)
    if not windows:
        raise NoDataAvailable(reason="no pixel of the cube is in the geometries of filter_spatial.")
    rows, columns = (
        slice(min(w[axis].start for w in windows), max(w[axis].stop for w in windows)) for axis in (0, 1)
    )
    cropped = data.isel({cube.Y: rows, cube.X: columns})
    return _keep(cropped, _inside(cropped, shapes, grid[rows, columns]))


def _windows(frame: gpd.GeoDataFrame, grid: GeoBox) -> list[rasterize.Window]:
    """The parts of a grid in the bounding boxes of geometries."""
    shapes = frame.geometry.to_numpy()
    areas = shapely.get_dimensions(shapes) == 2
    bounds = geometry.bounds_in_grid(shapes, frame.crs, grid)
    known = ~np.isnan(bounds).any(axis=1)
    found = (rasterize.window_of(b, a, grid) for b, a in zip(bounds[known], areas[known], strict=True))
    return [window for window in found if window is not None]


def _needs_of_masking(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Whether polygons meet the cube at all must not depend on what is needed of it.
    around = boxes_around(arguments.get("mask"))
    if around is None or demand.boxes is None:
        return {"data": demand.everywhere(), "mask": ALL}
    return {"data": replace(demand.grown(SLACK), boxes=(*demand.boxes, *around)), "mask": ALL}


@process(categories=["cubes", "masks"], needs=_needs_of_masking)
def mask_polygon(
    data: SpatialCube,
    mask: Polygons,
    replacement: Replacement = None,
    inside: Boolean = False,
    *,
    env: Environment | None = None,
) -> SpatialCube:
    """Replace the pixels outside (or inside) of polygons.

    A pixel is in a polygon if its centre is, or is on the boundary. No-data stays as it is. If no polygon
    meets the extent of the cube at all, nothing is masked (and the log says so).

    Args:
        data: A raster cube.
        mask: Polygons as a vector cube or GeoJSON; empty ones are ignored.
        replacement: What to write into masked pixels; by default no-data (integers that have no such value
            become floats).
        inside: Whether to replace the pixels inside of the polygons instead.

    Returns:
        The masked cube, of the same dimensions.
    """
    frame = geometry.read(mask, "mask_polygon", "mask", geometry.POLYGONS)
    grid = rasterize.grid_of(data, "mask_polygon")
    shapes = geometry.in_grid(frame, grid)
    if not shapely.intersects(shapely.box(*grid.boundingbox.bbox), shapes).any():
        if env is not None:
            env.log.warning("mask_polygon: no polygon meets the extent of the data; nothing is masked.")
        return data
    covered = _inside(data, shapes, grid)
    return _keep(data, ~covered if inside else covered, replacement)


@process(categories=["cubes", "filter", "vector"], experimental=True)
def filter_vector(
    data: GeometryCube,
    geometries: GeometryCube,
    relation: Annotated[str, Schema({"type": "string", "enum": RELATIONS})] = "intersects",
) -> GeometryCube:
    """Keep the geometries of a vector cube that stand in a relation to other geometries.

    Several base geometries count as their union. Empty geometries are removed. The relation is that of the
    candidate to the base: with ``within`` those inside of the base geometries are kept.

    Args:
        data: A vector cube with the candidates.
        geometries: A vector cube with the base geometries, in any reference system.
        relation: A predicate of the Simple Features standard.

    Returns:
        The vector cube with fewer (or all) labels along the geometries.
    """
    candidates = geometry.read(data, "filter_vector", "data")
    base = geometry.read(geometries, "filter_vector", "geometries")
    union = shapely.union_all(base.to_crs(candidates.crs).geometry.to_numpy())
    shapes = candidates.geometry.to_numpy()
    found = getattr(shapely, relation)(shapes, union) & ~shapely.is_empty(shapes)
    dimension = geometry.geometry_dimension(data)
    return data.isel({dimension: np.nonzero(found)[0]})


SubCubeProcess = Annotated[
    Callable[..., Any],
    child(
        {"data": (SUBCUBE, "The part of the cube around one polygon, masked outside of it.")},
        {"schema": SUBCUBE},
        "The part with new values and the same dimensions.",
    ),
]


@process(categories=["cubes"])
def apply_polygon(
    data: SpatialCube,
    geometries: PolygonCube,
    process: SubCubeProcess,
    mask_value: Replacement = None,
    context: AnyValue = None,
) -> SpatialCube:
    """Apply a process to the part of a cube in each polygon.

    Each part is as large as the polygon's pixels (those whose centre the polygon holds or touches) need, and
    masked outside of the polygon. Pixels in no polygon keep their values.

    Args:
        data: A raster cube.
        geometries: Disjoint polygons; empty ones are ignored.
        process: Makes a cube of the same dimensions and sizes of each part.
        mask_value: What the process finds in the pixels outside of the polygon; by default no-data.
        context: Passed on to the process.

    Returns:
        The cube with new values in the polygons, of the same dimensions.

    Raises:
        GeometriesOverlap: A pixel is in several of the polygons.
    """
    frame = geometry.read(geometries, "apply_polygon", "geometries", geometry.POLYGONS)
    grid = rasterize.grid_of(data, "apply_polygon")
    source = data.transpose(..., cube.Y, cube.X)
    taken = np.zeros(grid.shape.yx, dtype=bool)
    patches = []
    for shape in geometry.in_grid(frame, grid):
        part = rasterize.window(shape, grid)
        covered = None if part is None else rasterize.pixels(shape, grid[part])
        if part is None or covered is None or not covered.any():
            continue
        if (taken[part] & covered).any():
            raise GeometriesOverlap()
        taken[part] |= covered
        before = data.isel(dict(zip((cube.Y, cube.X), part, strict=True)))
        inside = xr.DataArray(covered, dims=(cube.Y, cube.X))
        after = _same_shape(process(data=_keep(before, inside, mask_value), context=context), before)
        patches.append(_Patch(part, covered, after.transpose(*source.dims)))
    return _paste(source, patches).transpose(*data.dims)


def _same_shape(after: Any, before: xr.DataArray) -> xr.DataArray:
    if not isinstance(after, xr.DataArray) or dict(after.sizes) != dict(before.sizes):
        sizes = dict(after.sizes) if isinstance(after, xr.DataArray) else type(after).__name__
        raise DataCubePropertiesImmutable(before=dict(before.sizes), after=sizes)
    return after


@dataclass(frozen=True)
class _Patch:
    """New values for the pixels of a window where ``covered`` is true; rows and columns last."""

    window: rasterize.Window
    covered: np.ndarray
    values: xr.DataArray


def _paste(source: xr.DataArray, patches: list[_Patch]) -> xr.DataArray:
    """The cube with the patches in it; floats if no-data is not the same in all of them."""
    if not all(cube.same_nodata(source, p.values) for p in patches):
        source = cube.decode(source)
        patches = [replace(p, values=cube.decode(p.values)) for p in patches]
    dtype = np.result_type(source.dtype, *[p.values.dtype for p in patches])
    if not isinstance(source.data, da.Array) and not any(
        isinstance(p.values.data, da.Array) for p in patches
    ):
        everything = (slice(0, source.shape[-2]), slice(0, source.shape[-1]))
        places = [_place(p, everything) for p in patches]
        values = _paste_block(source.values.astype(dtype), *[p.values.values for p in patches], places=places)
        return source.copy(data=values)
    array = source.chunk().data.astype(dtype)
    rows, columns = (list(_slices(c)) for c in array.chunks[-2:])
    tiles = [
        [_paste_tile(array.blocks[..., y, x], (r, c), patches) for x, c in enumerate(columns)]
        for y, r in enumerate(rows)
    ]
    return source.copy(data=da.block(tiles))


def _paste_tile(tile: da.Array, where: rasterize.Window, patches: list[_Patch]) -> da.Array:
    near = [p for p in patches if all(_overlap(a, b) for a, b in zip(p.window, where, strict=True))]
    if not near:
        return tile
    chunks = dict(enumerate(tile.chunks[:-2])) | {tile.ndim - 2: -1, tile.ndim - 1: -1}
    values = [p.values.chunk().data.rechunk(chunks) for p in near]
    places = [_place(p, where) for p in near]
    return da.map_blocks(_paste_block, tile, *values, places=places, dtype=tile.dtype, chunks=tile.chunks)


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)


def _place(patch: _Patch, where: rasterize.Window) -> tuple[rasterize.Window, rasterize.Window, np.ndarray]:
    """Which part of a patch belongs to which part of a tile, and the pixels to write there."""
    start = [max(p.start, w.start) for p, w in zip(patch.window, where, strict=True)]
    stop = [min(p.stop, w.stop) for p, w in zip(patch.window, where, strict=True)]
    rows, columns = (
        slice(a - p.start, b - p.start) for a, b, p in zip(start, stop, patch.window, strict=True)
    )
    y, x = (slice(a - w.start, b - w.start) for a, b, w in zip(start, stop, where, strict=True))
    return (rows, columns), (y, x), patch.covered[rows, columns]


def _paste_block(block: np.ndarray, *patches: np.ndarray, places: Any) -> np.ndarray:
    result = block.copy()
    for patch, (origin, target, covered) in zip(patches, places, strict=True):
        part = result[(..., *target)]
        part[..., covered] = patch[(..., *origin)][..., covered]
    return result


# --- Masks ---------------------------------------------------------------------------------------


def _inside(data: xr.DataArray, shapes: np.ndarray, grid: GeoBox) -> xr.DataArray:
    """Whether each pixel of a grid is in any of the shapes; lazy, in the cube's chunks, if the cube is."""
    coords = {d: data.coords[d] for d in (cube.Y, cube.X)}
    found = shapes[~shapely.is_empty(shapes)]
    if isinstance(data.data, da.Array):
        sizes = [data.chunksizes[d] for d in (cube.Y, cube.X)]
        rows = [[_block(found, grid, r, c) for c in _slices(sizes[1])] for r in _slices(sizes[0])]
        values: Any = da.block(rows)
    else:
        values = _burn(found, grid)
    return xr.DataArray(values, dims=(cube.Y, cube.X), coords=coords)


def _slices(chunks: tuple[int, ...]) -> Iterator[slice]:
    ends = np.cumsum(chunks)
    return (slice(int(end - size), int(end)) for size, end in zip(chunks, ends, strict=True))


def _block(shapes: np.ndarray, grid: GeoBox, rows: slice, columns: slice) -> da.Array:
    part = grid[rows, columns]
    margin = 2 * max(abs(part.resolution.x), abs(part.resolution.y))
    left, bottom, right, top = part.boundingbox.bbox
    extent = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    near = shapes[shapely.intersects(shapes, extent)]
    if not len(near) or shapely.covers(near, extent).any():
        return da.full(part.shape.yx, bool(len(near)), dtype=bool, chunks=-1)
    near = shapely.intersection(near, extent)
    chunks = tuple((n,) for n in part.shape.yx)
    return da.map_blocks(partial(_burn_block, near, part), chunks=chunks, dtype=bool)


def _burn_block(shapes: np.ndarray, grid: GeoBox, block_info: Any = None) -> np.ndarray:
    return _burn(shapes, grid)


def _burn(shapes: np.ndarray, grid: GeoBox) -> np.ndarray:
    result = np.zeros(grid.shape.yx, dtype=bool)
    for shape in shapes:
        part = rasterize.window(shape, grid)
        if part is not None:
            result[part] |= rasterize.pixels(shape, grid[part])
    return result


def _keep(data: xr.DataArray, keep: xr.DataArray, replacement: Any = None) -> xr.DataArray:
    """The cube with its values where ``keep`` is true, elsewhere the replacement (no-data by default)."""
    keep = keep.drop_vars([c for c in keep.coords if c not in keep.dims])
    if replacement is not None:
        return _replace(data, keep | ~cube.valid(data), replacement)
    missing = cube.nodata(data)
    if missing is None:
        if not isinstance(keep.data, da.Array) and bool(keep.all()):
            return data
        data, missing = cube.decode(data), np.nan
    filled = data.where(keep, missing).astype(data.dtype, copy=False)
    return filled.transpose(*data.dims).assign_attrs(data.attrs)


def _replace(data: xr.DataArray, keep: xr.DataArray, replacement: Any) -> xr.DataArray:
    if isinstance(replacement, str):
        reason = "text can't be written into a raster cube. Give a number or null."
        raise ProcessParameterInvalid(process="mask_polygon", parameter="replacement", reason=reason)
    value = int(replacement) if isinstance(replacement, bool) and data.dtype != bool else replacement
    fits = data.dtype.kind in "fc" or _representable(value, data.dtype)
    values = data if fits else cube.decode(data)
    return values.where(keep, value).astype(values.dtype, copy=False).transpose(*data.dims)


def _representable(value: Any, dtype: np.dtype) -> bool:
    if dtype.kind == "b":
        return isinstance(value, bool)
    if not np.isfinite(value) or value != int(value):
        return False
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
