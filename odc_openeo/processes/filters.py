"""Processes that select bands, times, areas and other labels of a cube."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox as OdcBoundingBox

from odc_openeo import cube, geometry
from odc_openeo.cube import T, X, Y
from odc_openeo.demand import SLACK, Box, Demand, common, is_plain
from odc_openeo.errors import (
    BandFilterParameterMissing,
    DimensionMissing,
    DimensionNotAvailable,
    ProcessParameterInvalid,
)
from odc_openeo.process import Schema, process
from odc_openeo.processes.alignment import resolution, with_current_transform
from odc_openeo.processes.dimensions import dimension_labels
from odc_openeo.processes.instants import interval, parse_instant, within
from odc_openeo.processes.schemas import (
    GEOMETRY,
    SPATIAL,
    AnyValue,
    BandsCube,
    BoundingBox,
    Cube,
    String,
    TemporalCube,
    child,
    datacube_schema,
)
from odc_openeo.user_crs import parse_crs

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
OptionalName = Annotated[str | None, Schema({"type": ["string", "null"]})]
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
    child(
        {"value": ([{"type": "number"}, {"type": "string"}], "The label.")},
        {"type": "boolean"},
        "Whether to keep the label.",
    ),
]


def _needs_bands(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names = arguments.get("bands")
    if "wavelengths" in arguments or not isinstance(names, list) or not names:
        return {"data": demand.of_all_bands()}
    # A name may be an alias or a common name, which the consumer does not know.
    return {"data": replace(demand, bands=tuple(map(str, names)))}


@process(categories=["cubes", "filter"], needs=_needs_bands, pointwise=True)
def filter_bands(data: BandsCube, bands: Bands = (), wavelengths: Wavelengths = ()) -> BandsCube:
    """Keep some of the bands.

    Bands are kept that match any of the criteria, in the order of the criteria: first the names, then the
    ranges of wavelengths. Where several bands match one criterion they keep their order.

    Args:
        data: A data cube with bands.
        bands: Names or common names of bands; a name comes before a common name that is the same.
        wavelengths: Ranges of wavelengths in micrometres as pairs of minimum and maximum; a band matches if
            its centre lies in the range.

    Returns:
        The data cube with the bands selected, which may be none.

    Raises:
        BandFilterParameterMissing: Neither names nor wavelengths are given.
        DimensionMissing: The cube has no bands.
    """
    if not bands and not wavelengths:
        raise BandFilterParameterMissing()
    dimension = cube.bands_dimension(data)
    named = [i for name in bands for i in band_positions(data, dimension, name)]
    centred = [i for low, high in wavelengths for i in _in_range(data, dimension, low, high)]
    return data.isel({dimension: list(dict.fromkeys([*named, *centred]))})


def band_positions(data: cube.Cube, dimension: str, name: str) -> list[int]:
    """The positions of the band of a name, else of those with that common name."""
    names = cube.labels(data, dimension)
    if name in names:
        return [names.index(name)]
    if cube.COMMON_NAME not in data.coords:
        return []
    return [i for i, found in enumerate(data.coords[cube.COMMON_NAME].values) if found == name]


def _in_range(data: cube.Cube, dimension: str, low: float, high: float) -> list[int]:
    if low > high:
        reason = f"the minimum {low:g} is above the maximum {high:g}. Swap them."
        raise ProcessParameterInvalid(process="filter_bands", parameter="wavelengths", reason=reason)
    if cube.WAVELENGTH not in data.coords:
        reason = "the wavelengths of the bands are not known. Select the bands by name."
        raise ProcessParameterInvalid(process="filter_bands", parameter="wavelengths", reason=reason)
    centres = data.coords[cube.WAVELENGTH].values.astype(float)
    return np.flatnonzero((centres >= low) & (centres <= high)).tolist()


def _needs_box(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    extent = arguments.get("extent")
    if not isinstance(extent, Mapping) or not extent.keys() >= EDGES:
        return {"data": demand.everywhere()}
    west, south, east, north = (extent[edge] for edge in ("west", "south", "east", "north"))
    if not all(isinstance(edge, int | float) for edge in (west, south, east, north)):
        return {"data": demand.everywhere()}
    own = Box(west, south, east, north, extent.get("crs") or 4326)
    boxes = tuple(dict.fromkeys(box.limited(own) for box in demand.boxes or ())) or (own,)
    return {"data": replace(demand, boxes=boxes, margin=max(demand.margin, SLACK), grid=None)}


@process(categories=["cubes", "filter"], needs=_needs_box, pointwise=True)
def filter_bbox(data: RasterOrVectorCube, extent: BoundingBox) -> RasterOrVectorCube:
    """Keep what lies in a bounding box.

    A pixel is kept if its centre is in the box or on its edge. A geometry is kept if it is wholly in the box.
    A box in another reference system is transformed to the one of the cube; the smallest upright box around
    the result counts.

    Args:
        data: A data cube.
        extent: The box. `base` and `height` limit a vertical dimension `z`, if there is one.

    Returns:
        The data cube with fewer pixels (perhaps none) or geometries; the pixels stay where they are.
    """
    box = check_box(extent, "filter_bbox", "extent")
    vector = geometry.geometry_dimension(data)
    if vector is not None:
        return _geometries_within(data, vector, box)
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    if box.crs != data.odc.crs:
        box = _transformed(box, data)
    selection = {
        X: _inside(data, X, box.left, box.right),
        Y: _inside(data, Y, box.bottom, box.top),
    }
    if "z" in data.dims:
        base, height = extent.get("base"), extent.get("height")
        low, high = (-math.inf if base is None else base), (math.inf if height is None else height)
        selection["z"] = _inside(data, "z", low, high)
    return with_current_transform(data.isel(selection))


FARTHEST: Final = 1e12
"""The largest coordinate, in any unit: far beyond the earth."""


def check_box(extent: Mapping[str, Any], process: str, parameter: str) -> OdcBoundingBox:
    """The horizontal part of a bounding box with its reference system.

    Raises:
        ProcessParameterInvalid: an edge is no finite number, edges are swapped or equal, or the CRS is
            unknown.
    """

    def invalid(reason: str) -> ProcessParameterInvalid:
        return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)

    west, south, east, north = (extent[edge] for edge in ("west", "south", "east", "north"))
    if not all(math.isfinite(edge) for edge in (west, south, east, north)):
        raise invalid("its edges must be finite numbers.")
    if max(map(abs, (west, south, east, north))) > FARTHEST:
        raise invalid(f"its edges must be between -{FARTHEST:g} and {FARTHEST:g}.")
    for low, high, names in ((west, east, "west and east"), (south, north, "south and north")):
        if low > high:
            raise invalid(f"{names} are swapped: {low:g} is larger than {high:g}.")
        if low == high:
            raise invalid(f"it has no area: {names} are both {low:g}.")
    given = extent.get("crs")
    try:
        crs = CRS(4326) if given is None else CRS(parse_crs(given))
    except (CRSError, ValueError, TypeError) as error:
        raise invalid(
            f"the reference system {str(given)[:60]!r} is unknown. Give an EPSG code or WKT2."
        ) from error
    return OdcBoundingBox(west, south, east, north, crs)


def _transformed(box: OdcBoundingBox, data: cube.Cube) -> OdcBoundingBox:
    """The upright box around a box in the reference system of a cube."""
    crs, grid = data.odc.crs, data.odc.geobox
    if crs is None:
        reason = "the cube has no reference system, so the box can't be placed in it."
        raise ProcessParameterInvalid(process="filter_bbox", parameter="data", reason=reason)
    if isinstance(grid, GeoBox):
        edges = geometry.bounds_in_grid(np.array([box.polygon.geom]), box.crs.to_wkt(), grid)[0].tolist()
    else:
        edges = geometry.outline_in(box, crs).boundingbox.bbox
    if not all(math.isfinite(edge) for edge in edges):
        reason = f"it can't be transformed to the reference system of the cube ({crs})."
        raise ProcessParameterInvalid(process="filter_bbox", parameter="extent", reason=reason)
    return OdcBoundingBox(*edges, crs)


def _inside(data: cube.Cube, dimension: str, low: float, high: float) -> slice | np.ndarray:
    labels = data[dimension].values
    # A millionth of a pixel: centres on the very edge are in, whatever the last bit of the edge is.
    slack = abs(resolution(data, dimension) or 0) * 1e-6 if dimension in (X, Y) and labels.size else 0
    return cube.as_slice(np.flatnonzero((labels >= low - slack) & (labels <= high + slack)))


def _geometries_within(data: cube.Cube, dimension: str, box: OdcBoundingBox) -> cube.Cube:
    shape = geometry.outline_in(box, CRS(geometry.crs_of(data, dimension))).geom
    geometries = data.coords[dimension].values
    keep = [i for i, g in enumerate(geometries) if g is not None and not g.is_empty and g.within(shape)]
    return data.isel({dimension: keep})


def _needs_times(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    extent = arguments.get("extent")
    if not is_plain(extent) or arguments.get("dimension") not in (None, T):
        return {"data": demand.at_all_times()}
    return {"data": replace(demand, interval=common((extent[0], extent[1]), demand.interval))}


@process(categories=["cubes", "filter"], needs=_needs_times, pointwise=True)
def filter_temporal(
    data: TemporalCube, extent: TemporalInterval, dimension: OptionalName = None
) -> TemporalCube:
    """Keep what lies in a temporal interval.

    The start of the interval belongs to it, the end does not.

    Args:
        data: A data cube.
        extent: Start and end as dates or date-times; one of them may be null, which means no limit.
        dimension: The name of the temporal dimension; all temporal dimensions are filtered if it is null.

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
    start, end = interval(extent, "filter_temporal", "extent")
    for name in names:
        positions = np.flatnonzero(within(times(data, name, "filter_temporal"), start, end))
        data = data.isel({name: cube.as_slice(positions)})
    return data


def times(data: cube.Cube, dimension: str, process: str) -> np.ndarray:
    """The labels of a dimension as ``datetime64``.

    Raises:
        ProcessParameterInvalid: they are neither times nor texts that tell an instant.
    """
    values = data.coords[dimension].values if dimension in data.coords else np.arange(data.sizes[dimension])
    if np.issubdtype(values.dtype, np.datetime64):
        return values
    found = [parse_instant(v) if isinstance(v, str) else None for v in values.tolist()]
    if any(f is None for f in found):
        reason = f"the labels of dimension '{dimension}' are no instants, e.g. {values.tolist()[0]!r}."
        raise ProcessParameterInvalid(process=process, parameter="data", reason=reason)
    return np.array(found, dtype="datetime64[us]")


def _needs_labels(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Each time or band is judged alone; labels of pixels may differ in the last bit if fewer are loaded.
    is_of_pixels = arguments.get("dimension") not in (T, cube.BANDS)
    return {"data": demand.everywhere() if is_of_pixels else demand}


@process(categories=["cubes", "filter"], needs=_needs_labels, pointwise=True)
def filter_labels(data: Cube, condition: Condition, dimension: String, context: AnyValue = None) -> Cube:
    """Keep the labels that meet a condition.

    Args:
        data: A data cube.
        condition: Called for each label of the dimension as `value`: a number, a text, a time as RFC 3339
            text or a geometry as WKT. The label is kept if it returns `true`.
        dimension: The name of the dimension.
        context: Anything to pass on to the condition.

    Returns:
        The data cube with fewer labels (perhaps none) along the dimension.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    labels = dimension_labels(data, dimension)
    keep = np.array([_is_true(condition(value=label, context=context)) for label in labels], dtype=bool)
    filtered = data.isel({dimension: cube.as_slice(np.flatnonzero(keep))})
    return with_current_transform(filtered) if dimension in (X, Y) else filtered


def _is_true(answer: Any) -> bool:
    if answer is None or isinstance(answer, bool | np.bool_):
        return bool(answer)
    reason = f"it must return true or false, not {str(answer)[:60]}."
    raise ProcessParameterInvalid(process="filter_labels", parameter="condition", reason=reason)
