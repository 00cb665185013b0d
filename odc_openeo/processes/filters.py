"""Processes that select bands, times, areas and other labels of a cube."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
import shapely
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox as OdcBoundingBox
from shapely.affinity import translate

from odc_openeo import cube
from odc_openeo.cube import T, X, Y
from odc_openeo.cube.instants import get_times, mask_within, parse_interval
from odc_openeo.errors import (
    BandFilterParameterMissing,
    DimensionMissing,
    DimensionNotAvailable,
    OpenEOError,
    ProcessParameterInvalid,
)
from odc_openeo.processes.dimensions import dimension_labels
from odc_openeo.registry.demand import SLACK, Demand, intersect_intervals, is_comparable
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import (
    GEOMETRY,
    SPATIAL,
    AnyValue,
    BandsCube,
    BoundingBox,
    Cube,
    String,
    StringOrNull,
    TemporalCube,
    child_process_schema,
    datacube_schema,
)
from odc_openeo.spatial import reproject, vector_cubes
from odc_openeo.spatial.align import find_resolution, update_transform
from odc_openeo.spatial.boxes import Box, has_degrees
from odc_openeo.spatial.reference_system_names import name_crs
from odc_openeo.spatial.turned_cubes import turn_cube_to

EDGES: Final = {"west", "south", "east", "north"}

Bands = Annotated[
    Sequence[str], Schema({"type": "array", "items": {"type": "string", "subtype": "band-name"}})
]
Wavelengths = Annotated[
    Sequence[Sequence[float]],
    Schema(
        {
            "type": "array",
            "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
        }
    ),
]
INSTANT: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time", "subtype": "date-time"},
        {"type": "string", "format": "date", "subtype": "date"},
        {"type": "null"},
    ]
}
TemporalInterval = Annotated[
    Sequence[str | None],
    Schema({"type": "array", "subtype": "temporal-interval", "minItems": 2, "maxItems": 2, "items": INSTANT}),
]
RasterOrVectorCube = Annotated[
    xr.DataArray | xr.Dataset,
    Schema(
        [
            datacube_schema(SPATIAL, title="Raster data cube"),
            datacube_schema(GEOMETRY, title="Vector data cube"),
        ]
    ),
]
Condition = Annotated[
    Callable[..., Any],
    child_process_schema(
        {"value": ([{"type": "number"}, {"type": "string"}], "The label.")},
        {"type": "boolean"},
        "Whether to keep the label.",
    ),
]


def _needs_bands(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names = arguments.get("bands")
    if arguments.get("wavelengths") or not isinstance(names, list) or not names:
        return {"data": demand.of_all_bands()}
    # A name may be an alias or a common name, which only the loader can resolve.
    return {"data": replace(demand, bands=tuple(map(str, names)))}


@process(categories=["cubes", "filter"], needs=_needs_bands, pointwise=True, raw_values_of=None)
def filter_bands(data: BandsCube, bands: Bands = (), wavelengths: Wavelengths = ()) -> BandsCube:
    """Keep some of the bands.

    Bands that match any of the criteria are kept, in the order of the criteria: first the names, then the
    ranges of wavelengths. Bands that match the same criterion keep their order.

    Args:
        data: A data cube with bands.
        bands: Names, common names or aliases of bands, which take precedence in this order. Bands that are
            selected by an alias are labelled by it.
        wavelengths: Ranges of wavelengths in micrometres as pairs of minimum and maximum; a band matches if
            its centre lies in the range.

    Returns:
        The data cube with the selected bands, which may be none.

    Raises:
        BandFilterParameterMissing: Neither names nor wavelengths are given.
        DimensionMissing: The cube has no bands.
    """
    if not bands and not wavelengths:
        raise BandFilterParameterMissing()
    dimension = cube.get_bands_dimension(data)
    selected: dict[tuple[int, str | None], None] = {}
    for name in bands:
        positions = find_band_positions(data, dimension, name)
        alias = name if _is_alias(data, dimension, name) else None
        selected |= {(position, alias): None for position in positions}
    for low, high in wavelengths:
        selected |= {(position, None): None for position in _find_bands_in_range(data, dimension, low, high)}
    filtered = data.isel({dimension: [position for position, _ in selected]})
    return _label_by_aliases(filtered, dimension, [alias for _, alias in selected])


def _is_alias(data: cube.Cube, dimension: str, name: str) -> bool:
    """Whether bands are labelled by this name if it selects them: not if it is a label or common name."""
    is_label = name in cube.labels(data, dimension)
    common_names = data.coords[cube.COMMON_NAME].values if cube.COMMON_NAME in data.coords else ()
    return not is_label and name not in common_names


def _label_by_aliases(data: BandsCube, dimension: str, aliases: Sequence[str | None]) -> BandsCube:
    """Label the bands that were asked for by an alias with it; their old label is an alias then."""
    if not any(aliases):
        return data
    coord = data.coords[dimension]
    old = cube.labels(data, dimension)
    new = [label if alias is None else alias for alias, label in zip(aliases, old, strict=True)]
    aliases_before = coord.attrs.get(cube.ALIASES, {})
    renamed = {label: alias for label, alias in zip(old, new, strict=True) if label not in new}
    resolved = {name: renamed.get(label, label) for name, label in aliases_before.items()} | renamed
    attrs = {**coord.attrs, cube.ALIASES: {n: label for n, label in resolved.items() if n not in new}}
    return data.assign_coords({dimension: (dimension, np.array(new), attrs)})


def find_band_positions(data: cube.Cube, dimension: str, name: str) -> list[int]:
    """The positions of the band with a name, otherwise of all bands with that common name, or of the band
    with that alias."""
    names = cube.labels(data, dimension)
    if name in names:
        return [names.index(name)]
    if cube.COMMON_NAME in data.coords:
        common_names = data.coords[cube.COMMON_NAME].values
        positions = [i for i, common_name in enumerate(common_names) if common_name == name]
        if positions:
            return positions
    label = cube.find_band_label(data, dimension, name)
    return [names.index(label)] if label in names else []


def _find_bands_in_range(data: cube.Cube, dimension: str, low: float, high: float) -> list[int]:
    if low > high:
        reason = f"the minimum {low:g} is above the maximum {high:g}. Swap them."
        raise ProcessParameterInvalid(process="filter_bands", parameter="wavelengths", reason=reason)
    if cube.WAVELENGTH not in data.coords:
        reason = "the wavelengths of the bands are unknown. Select the bands by name."
        raise ProcessParameterInvalid(process="filter_bands", parameter="wavelengths", reason=reason)
    centres = data.coords[cube.WAVELENGTH].values.astype(float)
    return np.flatnonzero((centres >= low) & (centres <= high)).tolist()


def _needs_box(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    if demand.in_part:
        return {"data": demand}
    extent = arguments.get("extent")
    if not isinstance(extent, Mapping) or not extent.keys() >= EDGES:
        return {"data": demand.at_all_places()}
    if not all(isinstance(extent[edge], int | float) for edge in EDGES):
        return {"data": demand.at_all_places()}
    try:
        filter_box = Box.parse(extent, "filter_bbox", "extent")
    except OpenEOError:
        # The process itself will say what is wrong with it.
        return {"data": demand.at_all_places()}
    boxes = tuple(dict.fromkeys(box.limit_to(filter_box) for box in demand.boxes or ())) or (filter_box,)
    return {"data": replace(demand, boxes=boxes, margin=max(demand.margin, SLACK), grid=None)}


@process(categories=["cubes", "filter"], needs=_needs_box, pointwise=True, raw_values_of=("data",))
def filter_bbox(data: RasterOrVectorCube, extent: BoundingBox) -> RasterOrVectorCube:
    """Keep the pixels or geometries in a bounding box.

    A pixel is kept if its centre is in the box or on its edge. A geometry is kept if it is entirely in the
    box. A box in another reference system is transformed to that of the cube; the smallest axis-aligned box
    around the result is used.

    Args:
        data: A data cube.
        extent: The box. `base` and `height` limit a vertical dimension `z`, if there is one.

    Returns:
        The data cube with fewer pixels (perhaps none) or geometries, on the same grid.
    """
    box = Box.parse(extent, "filter_bbox", "extent").bounding_box
    vector = vector_cubes.find_geometry_dimension(data)
    if vector is not None:
        return _keep_geometries_within(data, vector, box)
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    data = turn_cube_to(data, box.polygon, "filter_bbox", "extent")
    box = _transform_box(box, data) if box.crs != data.odc.crs else box
    selection = {
        X: _find_positions_between(data, X, box.left, box.right),
        Y: _find_positions_between(data, Y, box.bottom, box.top),
    }
    if "z" in data.dims:
        base, height = extent.get("base"), extent.get("height")
        low, high = (-math.inf if base is None else base), (math.inf if height is None else height)
        selection["z"] = _find_positions_between(data, "z", low, high)
    return update_transform(data.isel(selection))


def _transform_box(box: OdcBoundingBox, data: cube.Cube) -> OdcBoundingBox:
    """The axis-aligned box around a box in the reference system of a cube."""
    crs, grid = data.odc.crs, data.odc.geobox
    if crs is None:
        reason = "the cube has no reference system, so the box can't be placed in it."
        raise ProcessParameterInvalid(process="filter_bbox", parameter="data", reason=reason)
    if isinstance(grid, GeoBox):
        edges = reproject.project_bounds(np.array([box.polygon.geom]), box.crs.to_wkt(), grid)[0].tolist()
    else:
        edges = reproject.project_outline(box, crs).boundingbox.bbox
    if not all(math.isfinite(edge) for edge in edges):
        reason = f"it can't be transformed to the reference system of the cube ({name_crs(crs)})."
        raise ProcessParameterInvalid(process="filter_bbox", parameter="extent", reason=reason)
    return OdcBoundingBox(*edges, crs)


def _find_positions_between(data: cube.Cube, dimension: str, low: float, high: float) -> slice | np.ndarray:
    labels = data[dimension].values
    # A millionth of a pixel: centres exactly on the edge are inside, despite rounding errors.
    slack = abs(find_resolution(data, dimension) or 0) * 1e-6 if dimension in (X, Y) and labels.size else 0
    return cube.as_slice(np.flatnonzero((labels >= low - slack) & (labels <= high + slack)))


def _keep_geometries_within(data: cube.Cube, dimension: str, box: OdcBoundingBox) -> cube.Cube:
    crs = CRS(vector_cubes.get_crs(data, dimension))
    shape = reproject.project_outline(box, crs).geom
    if has_degrees(str(crs)):
        shape = shapely.union_all([translate(shape, turn) for turn in (-360, 0, 360)])
    geometries = data.coords[dimension].values
    keep = [i for i, g in enumerate(geometries) if g is not None and not g.is_empty and g.within(shape)]
    return data.isel({dimension: keep})


def _needs_times(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    extent = arguments.get("extent")
    if not is_comparable(extent) or arguments.get("dimension") not in (None, T):
        return {"data": demand.at_all_times()}
    return {"data": replace(demand, interval=intersect_intervals((extent[0], extent[1]), demand.interval))}


@process(categories=["cubes", "filter"], needs=_needs_times, pointwise=True, raw_values_of=("data",))
def filter_temporal(
    data: TemporalCube, extent: TemporalInterval, dimension: StringOrNull = None
) -> TemporalCube:
    """Keep the labels in a temporal interval.

    The interval includes its start, but not its end. The time of a calendar period, as created by
    `aggregate_temporal_period`, is its start.

    Args:
        data: A data cube.
        extent: Start and end as dates or date-times; one of them may be null for an open interval.
        dimension: The name of the temporal dimension; if null, all temporal dimensions are filtered.

    Returns:
        The data cube with fewer labels (perhaps none) along the temporal dimensions.

    Raises:
        DimensionNotAvailable: The cube has no temporal dimension, or none of that name.
        TemporalExtentEmpty: The end is not later than the start.
    """
    names = (
        cube.dimensions_of_type(data, "temporal")
        if dimension is None
        else [cube.require_dimension(data, dimension)]
    )
    if not names:
        raise DimensionNotAvailable("The cube has no temporal dimension.")
    start, end = parse_interval(extent, "filter_temporal", "extent")
    for name in names:
        positions = np.flatnonzero(mask_within(get_times(data, name, "filter_temporal"), start, end))
        data = data.isel({name: cube.as_slice(positions)})
    return data


def _needs_labels(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Times and bands are tested one by one; labels of pixels may be rounded differently if fewer are loaded.
    is_of_pixels = arguments.get("dimension") not in (T, cube.BANDS)
    return {"data": demand.at_all_places() if is_of_pixels else demand}


@process(categories=["cubes", "filter"], needs=_needs_labels, pointwise=True, raw_values_of=("data",))
def filter_labels(data: Cube, condition: Condition, dimension: String, context: AnyValue = None) -> Cube:
    """Keep the labels that meet a condition.

    Args:
        data: A data cube.
        condition: Called for each label of the dimension as `value`: a number, a string, a time as an RFC
            3339 string or a geometry as WKT. The label is kept if it returns `true`.
        dimension: The name of the dimension.
        context: Additional data for the condition.

    Returns:
        The data cube with fewer labels (perhaps none) along the dimension.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    labels = dimension_labels(data, dimension)
    keep = np.array([_check_answer(condition(value=label, context=context)) for label in labels], dtype=bool)
    filtered = data.isel({dimension: cube.as_slice(np.flatnonzero(keep))})
    return update_transform(filtered) if dimension in (X, Y) else filtered


def _check_answer(answer: Any) -> bool:
    if answer is None or isinstance(answer, bool | np.bool_):
        return bool(answer)
    reason = f"it must return true or false, not {str(answer)[:60]}."
    raise ProcessParameterInvalid(process="filter_labels", parameter="condition", reason=reason)
