"""Geometries and pixels: masks of polygons, statistics of zones, geometries and rasters from each other."""

from __future__ import annotations

from typing import Any, Final

import shapely
from odc.geo import CRS

from odc_openeo.explain.calls import Call, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.snippets import zones
from odc_openeo.spatial import reproject, vector_cubes

EDGES: Final = 5000
"""Pieces of an edge that is as long as the extent."""


def assign_shapes(call: Call, geometries: Operand, name: str) -> tuple[str, Any]:
    """A GeoSeries of geometries: the name of its variable, and the frame of the service."""
    frame = vector_cubes.read_geometries(geometries.value, call.node.process_id, name)
    if geometries.is_cube:
        dimension = write_string(str(vector_cubes.find_geometry_dimension(geometries.value)))
        crs = write_crs(frame.crs)
        return call.assign(
            "shapes", f"gpd.GeoSeries({geometries.atom}[{dimension}].values, crs={crs})"
        ), frame
    features = write_features(geometries.value)
    code = f"gpd.GeoDataFrame.from_features({features}, crs={write_crs(frame.crs)}).geometry"
    return call.assign("shapes", code), frame


def write_features(value: Any) -> str:
    """GeoJSON as a list of features with nothing but their geometries."""
    features = value.get("features") if value.get("type") == "FeatureCollection" else [value]
    geometries = [f.get("geometry") if f.get("type") == "Feature" else f for f in features]
    return write_literal([{"type": "Feature", "properties": {}, "geometry": g} for g in geometries])


def write_crs(crs: Any) -> str:
    """A reference system by its code, else in full."""
    authority = crs.to_authority()
    if authority is not None and authority[0] == "OGC":
        return write_string("EPSG:4326")
    return write_string(":".join(authority) if authority else crs.to_wkt())


def _write_projected(shapes: str, frame: Any, data: Operand) -> str:
    """Geometries in the reference system of a cube; long edges get points between, as they become curves."""
    crs = data.value.odc.crs
    if frame.crs == crs.proj:
        return shapes
    west, south, east, north = frame.total_bounds
    size = max(east - west, north - south)
    longest = max(reproject.find_longest_edge(CRS(frame.crs), data.value.odc.geobox), size / EDGES)
    dense = f".segmentize({longest:.3g})" if size > longest else ""
    return f"{shapes}{dense}.to_crs({data.atom}.odc.crs.to_wkt())"


def _assign_mask(call: Call, data: Operand, shapes: str, frame: Any) -> str:
    """The pixels that are in one of the geometries."""
    source = _write_projected(shapes, frame, data)
    call.helper(zones.cover_pixels)
    return call.assign("inside", f"cover_pixels({source}, {data.code})")


@emits("filter_spatial")
def write_filter_spatial(call: Call) -> str:
    """The part of the cube around the geometries; NaN outside of them."""
    data = call["data"]
    if not call.value.sizes["x"] or not call.value.sizes["y"]:
        return f"{data.atom}.isel(x=[], y=[])"
    return clip(call, data, call["geometries"], "geometries")


def clip(call: Call, data: Operand, geometries: Operand, name: str) -> str:
    """The cube cropped to geometries, and NaN outside of them."""
    shapes, frame = assign_shapes(call, geometries, name)
    cropped = call.assign("cropped", f"{data.atom}.sel({_write_crop(call, 'x')}, {_write_crop(call, 'y')})")
    inside = _assign_mask(call, Operand(cropped, data.value), shapes, frame)
    return f"{cropped}.where({inside})"


def mask_outside(call: Call, name: str, geometries: Operand, argument: str) -> str:
    """The cube of a name, on the grid of the result of the call, with NaN outside of geometries."""
    shapes, frame = assign_shapes(call, geometries, argument)
    inside = _assign_mask(call, Operand(name, call.value), shapes, frame)
    return f"{name}.where({inside})"


def _write_crop(call: Call, dimension: str) -> str:
    labels = call.value[dimension].values
    return f"{dimension}=slice({write_literal(float(labels[0]))}, {write_literal(float(labels[-1]))})"


@emits("mask_polygon")
def write_mask_polygon(call: Call) -> str:
    """The values in the polygons, or outside of them."""
    data = call["data"]
    grid = data.value.odc.geobox
    frame = vector_cubes.read_geometries(call.json("mask"), "mask_polygon", "mask")
    outlines = reproject.project_to_grid(frame, grid)
    if not shapely.intersects(shapely.box(*grid.boundingbox.bbox), outlines).any():
        return data.code  # Polygons that are elsewhere mask nothing.
    shapes, frame = assign_shapes(call, call["mask"], "mask")
    inside = _assign_mask(call, data, shapes, frame)
    kept = f"~{inside}" if call.json("inside") is True else inside
    if call.has("replacement"):
        value = call["replacement"].code
        return f"{data.atom}.where({kept} | {data.atom}.isnull(), {value})"
    return f"{data.atom}.where({kept})"


@emits("aggregate_spatial")
def write_aggregate_spatial(call: Call) -> str:
    """The reducer on the pixels of each geometry."""
    data = call["data"]
    shapes, frame = assign_shapes(call, call["geometries"], "geometries")
    function = call.define("reducer", "data", wish="reduce_zone", dimension="pixel")
    projected = _write_projected(shapes, frame, data)
    call.helper(zones.reduce_zones)
    code = f"reduce_zones({data.code}, {projected}, {function})"
    if call.has("target_dimension"):
        call.helper(zones.count_pixels)
        target = call.json("target_dimension")
        statistics = call.assign("statistics", code)
        code = f"count_pixels({data.code}, {projected}, {statistics}, {write_string(target)})"
    return index_geometries(f"{code}.assign_coords(geometry={shapes}.values)", frame.crs)


def index_geometries(code: str, crs: Any, dimension: str = "geometry") -> str:
    """A cube whose geometries xvec knows."""
    return f"{code}.xvec.set_geom_indexes({write_string(dimension)}, crs={write_crs(crs)})"


@emits("apply_polygon", "chunk_polygon")
def write_apply_polygon(call: Call) -> str:
    """The process on the part of the cube in each polygon."""
    data = call["data"]
    name = "geometries" if "geometries" in call.operands else "chunks"
    shapes, frame = assign_shapes(call, call[name], name)
    if f"{call.path}." not in call.writer.trace.parameters:
        return data.code
    function = call.define("process", "data", wish="apply_to_part")
    projected = _write_projected(shapes, frame, data)
    call.helper(zones.apply_to_polygons)
    fill = f", {call['mask_value'].code}" if call.has("mask_value") else ""
    return f"apply_to_polygons({function}, {data.code}, {projected}{fill})"


@emits("vector_to_raster")
def write_vector_to_raster(call: Call) -> str:
    """The values of the geometries in their pixels; the last counts where they overlap."""
    data, target = call["data"], call["target"]
    shapes, frame = assign_shapes(call, data, "data")
    dimension = write_string(str(vector_cubes.find_geometry_dimension(data.value)))
    projected = _write_projected(shapes, frame, target)
    call.helper(zones.burn_values)
    return f"burn_values({data.code}, {projected}, {target.code}, {dimension})"


@emits("raster_to_vector")
def write_raster_to_vector(call: Call) -> str:
    """The outlines of areas of equal values."""
    data = call["data"]
    call.helper(zones.outline_areas)
    crs = data.value.odc.crs
    return index_geometries(f"outline_areas({data.code})", crs.proj)
