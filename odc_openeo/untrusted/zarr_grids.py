"""The grid, no-data value and scale of foreign Zarr arrays: GeoZarr conventions, EOPF's attributes, CF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from odc_openeo.untrusted.rasters import RasterRefusedError, make_grid
from odc_openeo.untrusted.zarr_arrays import (
    FilePlace,
    ForeignArray,
    find_parent,
    join_href,
    open_coordinates,
    read_attributes,
)

CODES: Final = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")
EVENNESS: Final = 1e-3
"""By which share of a pixel coordinates may be off an even grid."""


def find_grid(array: ForeignArray, place: FilePlace) -> GeoBox | None:
    """Find the grid of an array, None if it has no reference system.

    Raises:
        RasterRefusedError: its reference system or transform does not place pixels on Earth.
    """
    mapping = _read_grid_mapping(array, place)
    crs = _find_reference_system(array, mapping)
    if crs is None:
        return None
    transform = _find_transform(array, mapping) or _read_coordinates(array, place)
    return None if transform is None else make_grid(array.grid_shape, transform, crs)


def _read_grid_mapping(array: ForeignArray, place: FilePlace) -> Mapping[str, Any]:
    """Read the attributes of the grid mapping of CF, a variable of the same group."""
    name = array.attributes.get("grid_mapping", array.attributes.get("coordinates"))
    names = str(name or "spatial_ref").split() if isinstance(name, str | None) else []
    name = "spatial_ref" if "spatial_ref" in names else (names[0].rstrip(":") if names else "")
    if not name.replace("_", "").isalnum() or len(name) > 100:
        return {}
    return read_attributes(place, join_href(find_parent(array.href), name))


def _find_reference_system(array: ForeignArray, mapping: Mapping[str, Any]) -> Any:
    for attributes in (array.attributes, array.group):
        for key in CODES:
            value = attributes.get(key)
            if isinstance(value, str | int | dict) and not isinstance(value, bool):
                return value
    value = mapping.get("crs_wkt", mapping.get("spatial_ref"))
    return value if isinstance(value, str) else None


def _find_transform(array: ForeignArray, mapping: Mapping[str, Any]) -> Affine | None:
    for attributes in (array.attributes, array.group):
        for key in ("spatial:transform", "proj:transform"):
            terms = _parse_numbers(attributes.get(key))
            shape = attributes.get("spatial:shape", attributes.get("proj:shape"))
            if terms is not None and (attributes is array.attributes or _has_shape(shape, array)):
                return Affine(*terms)
    text = mapping.get("GeoTransform")
    terms = _parse_numbers(text.split()) if isinstance(text, str) and len(text) < 1000 else None
    return None if terms is None else Affine.from_gdal(*terms)


def _has_shape(shape: Any, array: ForeignArray) -> bool:
    return shape is None or shape == list(array.grid_shape)


def _parse_numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) not in (6, 9):
        return None
    try:
        numbers = tuple(float(term) for term in value[:6])
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _read_coordinates(array: ForeignArray, place: FilePlace) -> Affine | None:
    """Read the transform from coordinates of the centres of pixels, if these are even."""
    parent = find_parent(array.href)
    starts, steps = [], []
    for name, size in zip(("x", "y"), reversed(array.grid_shape), strict=True):
        values = open_coordinates(join_href(parent, name), place, size)
        if values is None or size < 2:
            return None
        step = (float(values[-1]) - float(values[0])) / (size - 1)
        expected = float(values[0]) + step * np.arange(size)
        if not math.isfinite(step) or step == 0 or np.abs(values - expected).max() > abs(step) * EVENNESS:
            raise RasterRefusedError(f"its coordinates {name} are not evenly spaced.")
        starts.append(float(values[0]) - step / 2)
        steps.append(step)
    return Affine(steps[0], 0, starts[0], 0, steps[1], starts[1])


def find_nodata(array: ForeignArray) -> float | None:
    """Find the no-data value: that of the attributes, else the fill value of version 2, as for xarray."""
    for key in ("_FillValue", "missing_value", "nodata"):
        value = array.attributes.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if value == "NaN":
            return math.nan
    if "_FillValue" in array.attributes and array.dtype.kind == "f":
        # xarray stores floats as text in base 64; it sets the fill value to the same.
        return float(array.fill)
    return float(array.fill) if array.has_declared_fill else None


def find_scale(array: ForeignArray) -> tuple[float, float, str | None]:
    """Find scale, offset and unit; 1, 0 and None if there are none."""
    numbers = []
    for key, default in (("scale_factor", 1.0), ("add_offset", 0.0)):
        value = array.attributes.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        numbers.append(float(value) if is_number else default)
    unit = array.attributes.get("units")
    return numbers[0], numbers[1], unit[:100] if isinstance(unit, str) and unit else None
