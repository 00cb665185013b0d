"""Vector cubes: geometries along a dimension that xvec knows."""

from __future__ import annotations

from typing import Any

import shapely

from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.zones import assign_shapes, index_geometries, write_crs
from odc_openeo.explain.snippets import vectors
from odc_openeo.spatial import vector_cubes


@emits("load_geojson")
def write_load_geojson(call: Call) -> str:
    """GeoJSON as a vector cube; properties are its values, or coordinates along the geometries."""
    return _write_geojson(call, call["data"], list(call.json("properties") or []))


def _write_geojson(call: Call, data: Operand, properties: list[str]) -> str:
    frame = vector_cubes.from_geojson(data.value, call.node.process_id, "data", collections=True)
    if any(shapely.is_empty(frame.geometry)):
        raise NoProgram("a feature has no geometry.")
    table = call.assign("table", _write_frame(data, frame))
    if not properties:
        return index_geometries(f"{call.helper(vectors.make_vector_cube)}({table})", frame.crs)
    if call.value.dtype.kind == "O" or len(properties) != call.value.sizes["properties"]:
        raise NoProgram("its properties are not numbers.")
    helper = call.helper(vectors.make_vector_values)
    return index_geometries(f"{helper}({table}, {write_literal(properties)})", frame.crs)


def _write_frame(data: Operand, frame: Any) -> str:
    """A GeoDataFrame of all features; bare geometries are features without properties."""
    features = data.value.get("features") if data.value.get("type") == "FeatureCollection" else [data.value]
    whole = [_complete_feature(feature) for feature in features]
    names = ["geometry", *(c for c in frame.columns if c != frame.geometry.name)]
    columns = f", columns={write_literal(names)}"
    return f"gpd.GeoDataFrame.from_features({write_literal(whole)}, crs={write_crs(frame.crs)}{columns})"


def _complete_feature(feature: Any) -> dict[str, Any]:
    if feature.get("type") != "Feature":
        return {"type": "Feature", "properties": {}, "geometry": dict(feature)}
    properties = dict(feature.get("properties") or {})
    if feature.get("id") is not None:
        properties.setdefault("id", feature["id"])
    return {"type": "Feature", "properties": properties, "geometry": feature.get("geometry")}


def write_vector_cube(call: Call, operand: Operand) -> Operand:
    """A vector cube, made of GeoJSON where it is none."""
    if operand.is_cube:
        return operand
    name = call.assign("features", _write_geojson(call, operand, []))
    return Operand(name, vector_cubes.as_vector_cube(operand.value, call.node.process_id, "data"))


def _replace(call: Call, data: Operand, dimension: str, shapes: str, crs: Any) -> str:
    helper = call.helper(vectors.replace_geometries)
    return f"{helper}({data.code}, {write_string(dimension)}, {shapes}, {write_crs(crs)})"


@emits("vector_buffer")
def write_vector_buffer(call: Call) -> str:
    """The buffered geometries in place of the others."""
    data = write_vector_cube(call, call["geometries"])
    name = str(vector_cubes.find_geometry_dimension(data.value))
    shapes = (
        f"shapely.buffer({data.atom}[{write_string(name)}].values, {call['distance'].code}, quad_segs=16)"
    )
    return _replace(call, data, name, shapes, vector_cubes.get_crs(data.value, name))


@emits("vector_reproject")
def write_vector_reproject(call: Call) -> str:
    """The reprojected geometries in place of the others."""
    data = write_vector_cube(call, call["data"])
    names = [str(d) for d in data.value.dims if d in data.value.xvec.geom_coords_indexed]
    if call.has("dimension"):
        names = [call.json("dimension")]
    for name in names:
        source = write_crs(vector_cubes.get_crs(data.value, name))
        target = vector_cubes.get_crs(call.value, name)
        values = f"{data.atom}[{write_string(name)}].values"
        shapes = f"gpd.GeoSeries({values}, crs={source}).to_crs({write_crs(target)}).values"
        data = Operand(_replace(call, data, name, shapes, target), data.value)
    return data.code


@emits("filter_vector")
def write_filter_vector(call: Call) -> str:
    """The geometries in relation to all of the others together."""
    data = write_vector_cube(call, call["data"])
    name = str(vector_cubes.find_geometry_dimension(data.value))
    crs = write_crs(vector_cubes.get_crs(data.value, name))
    shapes, _ = assign_shapes(call, call["geometries"], "geometries")
    union = call.assign("union", f"{shapes}.to_crs({crs}).union_all()")
    values = f"{data.atom}[{write_string(name)}].values"
    matches = f"shapely.{call.json('relation')}({values}, {union}) & ~shapely.is_empty({values})"
    return f"{data.atom}.isel({{{write_string(name)}: np.flatnonzero({matches})}})"


@emits("vector_to_regular_points", "vector_to_random_points")
def write_points(call: Call) -> str:
    """Points in each geometry, as one multi-point each or as points."""
    data = call["data"]
    shapes, frame = assign_shapes(call, data, "data")
    if call.node.process_id == "vector_to_regular_points":
        helper = call.helper(vectors.sample_regular)
        samples = f"[{helper}(shape, {call['distance'].code}) for shape in {shapes}]"
    else:
        helper = call.helper(vectors.sample_random)
        options = [
            f"{name}={call[name].code}"
            for name in ("geometry_count", "total_count", "seed")
            if call.has(name)
        ]
        samples = f"{helper}({', '.join([shapes, *options])})"
    points = call.assign("points", samples)
    if call.json("group") is not False:
        geometries = f"[shapely.MultiPoint(xy) for xy in {points}]"
    else:
        geometries = f"shapely.points(np.concatenate({points}))"
    code = f'xr.Dataset(coords={{"geometry": ("geometry", np.array({geometries}, dtype=object))}})'
    return index_geometries(code, frame.crs)
