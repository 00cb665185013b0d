"""Keep, mask or process the parts of a cube that geometries cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import (
    DataCubePropertiesImmutable,
    GeometriesOverlap,
    NoDataAvailable,
)
from odc_openeo.registry.child_results import add_single_labels, is_from_user_code
from odc_openeo.registry.demand import ALL, SLACK, Demand
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.geometry_schemas import (
    SUBCUBE,
    Geometries,
    GeometryCube,
    GeometryInput,
    PolygonCube,
    Polygons,
    Replacement,
)
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import AnyValue, Boolean, SpatialCube, child_process_schema
from odc_openeo.spatial import rasterize, reproject, vector_cubes
from odc_openeo.spatial.align import update_transform
from odc_openeo.spatial.geometry_boxes import find_boxes_around
from odc_openeo.spatial.geometry_masks import chunk_slices, clip_to_geometries, keep_where, mask_inside

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


def _needs_of_filtering(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    if demand.in_part:
        return {"data": demand, "geometries": ALL}
    around = find_boxes_around(arguments.get("geometries"))
    return {
        "data": replace(demand.at_all_places(), boxes=around, margin=SLACK if around else 0),
        "geometries": ALL,
    }


@process(categories=["cubes", "filter"], needs=_needs_of_filtering, pointwise=True, raw_values_of=("data",))
def filter_spatial(data: SpatialCube, geometries: Geometries) -> SpatialCube:
    """Limit a raster cube to geometries.

    The cube is cropped to the bounding box of the geometries; the remaining pixels outside of all geometries
    become no-data. A polygon has the pixels whose centre is inside or on the boundary, a line those it
    crosses, a point the one that contains it. Integers without a no-data value become floats. If no pixel is
    in the bounding box, the result has no pixels, as with `filter_bbox`.

    Args:
        data: A raster cube.
        geometries: A vector cube or GeoJSON.

    Returns:
        The cropped and masked cube, on the same grid.
    """
    if not (data.sizes[cube.Y] and data.sizes[cube.X]):
        vector_cubes.read_geometries(geometries, "filter_spatial", "geometries")
        return data
    try:
        return clip_to_geometries(data, geometries, "filter_spatial", "geometries")
    except NoDataAvailable:
        nothing = data.isel({cube.Y: slice(0, 0), cube.X: slice(0, 0)})
        return update_transform(nothing if cube.has_nodata(data) else cube.decode(nothing))


def _needs_of_masking(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    if demand.in_part:
        return {"data": demand, "mask": ALL}
    # Whether polygons intersect the cube must not depend on how much of it is loaded.
    around = find_boxes_around(arguments.get("mask"))
    if around is None or demand.boxes is None:
        return {"data": demand.at_all_places(), "mask": ALL}
    return {"data": replace(demand.with_margin(SLACK), boxes=(*demand.boxes, *around)), "mask": ALL}


@process(categories=["cubes", "masks"], needs=_needs_of_masking, raw_values_of=("data",))
def mask_polygon(
    data: SpatialCube,
    mask: Polygons,
    replacement: Replacement = None,
    inside: Boolean = False,
    *,
    env: Environment | None = None,
) -> SpatialCube:
    """Replace the pixels outside (or inside) of polygons.

    A pixel is in a polygon if its centre is inside or on the boundary. No-data stays as it is. If no polygon
    intersects the extent of the cube, nothing is masked and a warning is logged.

    Args:
        data: A raster cube.
        mask: Polygons as a vector cube or GeoJSON; empty ones are ignored.
        replacement: The value for masked pixels; by default no-data (integers without a no-data value become
            floats).
        inside: Whether to replace the pixels inside of the polygons instead.

    Returns:
        The masked cube with the same dimensions.
    """
    frame = vector_cubes.read_geometries(mask, "mask_polygon", "mask", vector_cubes.POLYGONS)
    grid = rasterize.get_grid(data, "mask_polygon")
    shapes = reproject.project_to_grid(frame, grid)
    if not shapely.intersects(shapely.box(*grid.boundingbox.bbox), shapes).any():
        if env is not None:
            env.log.warning("mask_polygon: no polygon intersects the extent of the data; nothing is masked.")
        return data
    covered = mask_inside(data, shapes, grid)
    return keep_where(data, ~covered if inside else covered, replacement)


@process(categories=["cubes", "filter", "vector"], experimental=True, raw_values_of=("data",))
def filter_vector(
    data: GeometryInput,
    geometries: GeometryInput,
    relation: Annotated[str, Schema({"type": "string", "enum": RELATIONS})] = "intersects",
) -> GeometryCube:
    """Keep the geometries of a vector cube that have a spatial relation to other geometries.

    Several base geometries count as their union. Empty geometries are removed. The relation is that of the
    candidate to the base: with ``within`` the candidates inside of the base geometries are kept.

    Args:
        data: A vector cube with the candidates.
        geometries: A vector cube (or GeoJSON) with the base geometries, in any reference system.
        relation: A spatial predicate of the Simple Features standard.

    Returns:
        The vector cube with fewer (or all) labels along the geometries.
    """
    data = vector_cubes.as_vector_cube(data, "filter_vector", "data")
    candidates = vector_cubes.read_geometries(data, "filter_vector", "data")
    base = vector_cubes.read_geometries(geometries, "filter_vector", "geometries")
    union = shapely.union_all(base.to_crs(candidates.crs).geometry.to_numpy())
    shapes = candidates.geometry.to_numpy()
    matches = getattr(shapely, relation)(shapes, union) & ~shapely.is_empty(shapes)
    dimension = vector_cubes.find_geometry_dimension(data)
    return data.isel({dimension: np.nonzero(matches)[0]})


SubCubeProcess = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"data": (SUBCUBE, "The part of the cube around one polygon, masked outside of it.")},
        {"schema": SUBCUBE},
        "The part with new values and the same dimensions.",
    ),
]


def _needs_of_patches(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # A pixel of a polygon may depend on all others of it.
    return {"data": ALL, "geometries": ALL, "chunks": ALL}


@process(categories=["cubes"], former_names={"polygons": "geometries"}, needs=_needs_of_patches)
def apply_polygon(
    data: SpatialCube,
    geometries: PolygonCube,
    process: SubCubeProcess,
    mask_value: Replacement = None,
    context: AnyValue = None,
) -> SpatialCube:
    """Apply a process to the part of a cube in each polygon.

    Each part is just large enough for the polygon's pixels (those whose centre is inside or on the boundary)
    and masked outside of the polygon. Pixels in no polygon keep their values.

    Args:
        data: A raster cube.
        geometries: Disjoint polygons as a vector cube or GeoJSON; empty ones are ignored.
        process: Called with each part as `data`; returns a cube with the same dimensions and sizes.
        mask_value: The value that the process sees in pixels outside of the polygon; by default no-data.
        context: Additional data for the process.

    Returns:
        The cube with new values in the polygons and the same dimensions.

    Raises:
        GeometriesOverlap: A pixel is in several of the polygons.
    """
    frame = vector_cubes.read_geometries(geometries, "apply_polygon", "geometries", vector_cubes.POLYGONS)
    grid = rasterize.get_grid(data, "apply_polygon")
    source = data.transpose(..., cube.Y, cube.X)
    occupied = np.zeros(grid.shape.yx, dtype=bool)
    patches = []
    for shape in reproject.project_to_grid(frame, grid):
        part = rasterize.find_window(shape, grid)
        covered = None if part is None else rasterize.mask_pixels(shape, grid[part])
        if part is None or covered is None or not covered.any():
            continue
        if (occupied[part] & covered).any():
            raise GeometriesOverlap()
        occupied[part] |= covered
        before = data.isel(dict(zip((cube.Y, cube.X), part, strict=True)))
        inside = xr.DataArray(covered, dims=(cube.Y, cube.X))
        after = _check_same_shape(
            process(data=keep_where(before, inside, mask_value), context=context), before
        )
        patches.append(_Patch(part, covered, after.transpose(*source.dims)))
    return _paste_patches(source, patches).transpose(*data.dims)


@process(categories=["cubes"], experimental=True, needs=_needs_of_patches)
def chunk_polygon(
    data: SpatialCube,
    chunks: Polygons,
    process: SubCubeProcess,
    mask_value: Replacement = None,
    context: AnyValue = None,
) -> SpatialCube:
    """Apply a process to the part of a cube in each polygon (the earlier name of `apply_polygon`).

    Args:
        data: A raster cube.
        chunks: Disjoint polygons as a vector cube or GeoJSON; empty ones are ignored.
        process: Called with each part as `data`; returns a cube with the same dimensions and sizes.
        mask_value: The value that the process sees in pixels outside of the polygon; by default no-data.
        context: Additional data for the process.

    Returns:
        The cube with new values in the polygons and the same dimensions.

    Raises:
        GeometriesOverlap: A pixel is in several of the polygons.
    """
    return apply_polygon(data, chunks, process, mask_value, context)


def _check_same_shape(after: Any, before: xr.DataArray) -> xr.DataArray:
    if is_from_user_code(after):
        after = add_single_labels(after, before, "apply_polygon", "process")
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


def _paste_patches(source: xr.DataArray, patches: list[_Patch]) -> xr.DataArray:
    """Paste the patches into the cube; the result has floats if their no-data values differ."""
    if not all(cube.has_same_nodata(source, p.values) for p in patches):
        source = cube.decode(source)
        patches = [replace(p, values=cube.decode(p.values)) for p in patches]
    dtype = np.result_type(source.dtype, *[p.values.dtype for p in patches])
    if not isinstance(source.data, da.Array) and not any(
        isinstance(p.values.data, da.Array) for p in patches
    ):
        everything = (slice(0, source.shape[-2]), slice(0, source.shape[-1]))
        places = [_locate_patch(p, everything) for p in patches]
        values = _paste_block(source.values.astype(dtype), *[p.values.values for p in patches], places=places)
        return source.copy(data=values)
    array = source.chunk().data.astype(dtype)
    rows, columns = (list(chunk_slices(c)) for c in array.chunks[-2:])
    tiles = [
        [_paste_tile(array.blocks[..., y, x], (r, c), patches) for x, c in enumerate(columns)]
        for y, r in enumerate(rows)
    ]
    return source.copy(data=da.block(tiles))


def _paste_tile(tile: da.Array, where: rasterize.Window, patches: list[_Patch]) -> da.Array:
    near = [p for p in patches if all(_has_overlap(a, b) for a, b in zip(p.window, where, strict=True))]
    if not near:
        return tile
    chunks = dict(enumerate(tile.chunks[:-2])) | {tile.ndim - 2: -1, tile.ndim - 1: -1}
    values = [p.values.chunk().data.rechunk(chunks) for p in near]
    places = [_locate_patch(p, where) for p in near]
    return da.map_blocks(_paste_block, tile, *values, places=places, dtype=tile.dtype, chunks=tile.chunks)


def _has_overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)


def _locate_patch(
    patch: _Patch, where: rasterize.Window
) -> tuple[rasterize.Window, rasterize.Window, np.ndarray]:
    """The part of a patch that overlaps a tile, its place in the tile, and the pixels to write there."""
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
