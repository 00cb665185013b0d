"""The data cube model: dimensions and their types, no-data, reference system, arrays in cubes.

A raster cube is one `xarray.DataArray`. Its dimensions may be ``t``, ``bands``, ``y``, ``x`` and any others,
in any order; its CRS is where odc-geo finds it (``.odc.crs``). Float cubes mark no-data with NaN. Integer
cubes keep the raw values of the files; their no-data value is in ``attrs["nodata"]`` or, where bands differ,
in a coordinate ``nodata`` along the bands. A vector cube is an xarray object with an xvec geometry dimension.

Inside a child process (a reducer, say) an openEO array is a DataArray that has the reserved dimension
`ARRAY`; a DataArray without it holds one value per pixel.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo.errors import (
    DimensionAmbiguous,
    DimensionMissing,
    DimensionNotAvailable,
    IncompatibleDataCubes,
    TooManyDimensions,
)
from odc_openeo.timestamps import format_datetime64
from odc_openeo.untrusted.json_schemas import is_exact

X: Final = "x"
Y: Final = "y"
T: Final = "t"
BANDS: Final = "bands"
GEOMETRY: Final = "geometry"
ARRAY: Final = "__array__"
"""The dimension along which a DataArray is an openEO array, inside a child process."""

ARRAY_NAME: Final = "__array_name__"
"""Attribute that holds the name of the dimension that became `ARRAY`, inside a child process."""

ALIASES: Final = "aliases"
"""Attribute of the coordinate of bands: a dictionary from other names of bands to their labels."""
NODATA: Final = "nodata"
COMMON_NAME: Final = "common_name"
"""Coordinate along the bands that holds their common names (empty where there is none)."""
SPATIAL_REF: Final = "spatial_ref"
"""Coordinate without dimension that holds the CRS, as odc-geo and rioxarray name it."""
WAVELENGTH: Final = "center_wavelength"
"""Coordinate along the bands that holds their central wavelengths in micrometres (NaN where unknown)."""
UNIT: Final = "unit"
SCALE: Final = "scale"
OFFSET: Final = "offset"
PACKING: Final = (UNIT, SCALE, OFFSET)
"""Coordinates along the bands that say what raw values mean, see `odc_openeo.cube.packing`."""
VARIABLE: Final = "__variable__"
"""The dimension that the variables of a Dataset form while they are processed together."""
TYPE: Final = "openeo_type"
"""Attribute of a dimension's coordinate that holds its openEO type if name and values don't imply it."""
PERIOD: Final = "openeo_period"
"""Attribute of a temporal coordinate whose labels are calendar periods: their kind, ``month`` say."""


@dataclass(frozen=True)
class LabeledArray:
    """A JSON array with labels: one label (a number or string, distinct from the others) per value."""

    labels: Sequence[Any]
    values: Sequence[Any]


_OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "bands": ("bands", "band", "spectral", "spectral_bands", "b", "variable", "var"),
    "temporal": ("t", "time", "temporal", "date", "datetime", "dates", "times"),
    "geometry": ("geometry", "geometries", "feature", "features", "geom", "polygons"),
    X: ("x", "lon", "long", "longitude", "easting", "east"),
    Y: ("y", "lat", "latitude", "northing", "north"),
}
"""Names that dimensions of a type, or x and y, have with other services."""

Cube = xr.DataArray | xr.Dataset


def is_cube(value: Any) -> bool:
    """Whether the value is a raster or vector cube (or a part of one inside a child process)."""
    return isinstance(value, xr.DataArray | xr.Dataset)


def is_array(value: Any) -> bool:
    """Whether the value is an openEO array: a list, a labelled array, or a DataArray along `ARRAY`."""
    return isinstance(value, list | tuple | LabeledArray) or (
        isinstance(value, xr.DataArray) and ARRAY in value.dims
    )


# --- Dimensions ----------------------------------------------------------------------------------


def dimension_type(data: Cube, dimension: Hashable) -> str:
    """The openEO type of a dimension: ``spatial``, ``temporal``, ``bands``, ``geometry`` or ``other``."""
    coord = data.coords.variables.get(dimension)
    if coord is not None and TYPE in coord.attrs:
        return str(coord.attrs[TYPE])
    if coord is not None and np.issubdtype(coord.dtype, np.datetime64):
        return "temporal"
    by_name = {
        X: "spatial",
        Y: "spatial",
        "z": "spatial",
        T: "temporal",
        BANDS: "bands",
        GEOMETRY: "geometry",
    }
    return by_name.get(str(dimension), "other")


def dimensions_of_type(data: Cube, type_: str) -> list[str]:
    """The names of the dimensions of a type, in the cube's order."""
    return [str(d) for d in data.dims if dimension_type(data, d) == type_]


def require_dimension(data: Cube, name: str) -> str:
    """The name itself if the cube has that dimension, else `DimensionNotAvailable`."""
    if name not in data.dims:
        raise make_missing_dimension_error(data, name)
    return name


def make_missing_dimension_error(data: Cube, name: str) -> DimensionNotAvailable:
    """Make the error for a dimension that a cube lacks, with the one that may be meant."""
    suggestion = _suggest_dimension(data, name)
    available = ", ".join(map(str, data.dims)) or "no dimensions"
    advice = f" Use '{suggestion}' instead of '{name}'." if suggestion else ""
    return DimensionNotAvailable(name=name, available=available, advice=advice)


def _suggest_dimension(data: Cube, name: str) -> str | None:
    """Find the dimension that a name is used for elsewhere, or that has a similar name."""
    for type_, names in _OTHER_NAMES.items():
        candidates = dimensions_of_type(data, type_) if type_ not in (X, Y) else [type_]
        if name.lower() in names and len(candidates) == 1 and candidates[0] in data.dims:
            return candidates[0]
    return next(iter(difflib.get_close_matches(name.lower(), map(str, data.dims), n=1)), None)


def get_temporal_dimension(data: Cube, name: str | None = None) -> str:
    """The temporal dimension of that name or, without a name, the only one.

    Raises:
        DimensionNotAvailable: there is none, or none of that name.
        TooManyDimensions: there are several and no name is given.
    """
    if name is not None:
        return require_dimension(data, name)
    dimensions = dimensions_of_type(data, "temporal")
    if not dimensions:
        raise DimensionNotAvailable("The cube has no temporal dimension.")
    if len(dimensions) > 1:
        raise TooManyDimensions(dimensions=", ".join(dimensions))
    return dimensions[0]


def get_bands_dimension(data: Cube) -> str:
    """The only dimension of type ``bands``, else `DimensionMissing` or `DimensionAmbiguous`."""
    dimensions = dimensions_of_type(data, "bands")
    if not dimensions:
        raise DimensionMissing(type="bands")
    if len(dimensions) > 1:
        raise DimensionAmbiguous()
    return dimensions[0]


def has_raster_dimensions(data: Cube) -> bool:
    """Whether the cube has both horizontal spatial dimensions."""
    return X in data.dims and Y in data.dims


def labels(data: Cube, dimension: str) -> list[Any]:
    """The labels of a dimension as JSON values (times in RFC 3339, UTC); 0, 1, 2, … if unlabelled."""
    if dimension not in data.coords:
        return list(range(data.sizes[dimension]))
    return json_labels(data.coords.variables[dimension].values)


def json_labels(values: np.ndarray) -> list[Any]:
    """Labels as JSON values; times become RFC 3339 strings in UTC, with fractions of seconds if needed."""
    if np.issubdtype(values.dtype, np.datetime64):
        return [format_datetime64(v) for v in values]
    return list(values.tolist())


def find_band_label(data: Cube, dimension: str, name: Any) -> Any:
    """The label that a name stands for as an alias of a band; the name itself if it is none."""
    if dimension not in data.coords or not isinstance(name, str):
        return name
    return data.coords[dimension].attrs.get(ALIASES, {}).get(name, name)


def as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, which dask need not sort; other positions as they are."""
    if not positions.size:
        return slice(0, 0)
    first = int(positions[0])
    follow = np.array_equal(positions, np.arange(first, first + positions.size))
    return slice(first, first + positions.size) if follow else positions


def list_packing_coordinates(data: Cube) -> list[str]:
    """The coordinates that hold units, scales and offsets of bands, not properties of the same name."""
    return [name for name in PACKING if name in data.coords and GEOMETRY not in data.coords[name].dims]


def to_array(data: xr.DataArray, dimension: str) -> xr.DataArray:
    """Turn a dimension into the array dimension for a child process; its coordinate gives the labels."""
    if dimension_type(data, dimension) == "bands":
        # Values of several bands have no unit in common.
        data = data.drop_vars(list_packing_coordinates(data))
    return data.rename({dimension: ARRAY}).assign_attrs({ARRAY_NAME: dimension})


def from_array(data: xr.DataArray, dimension: str, like: xr.DataArray | None = None) -> xr.DataArray:
    """Give the array dimension its name back; the attributes of its coordinate come from ``like``."""
    renamed = data.rename({ARRAY: dimension})
    renamed.attrs.pop(ARRAY_NAME, None)
    if like is not None and dimension in like.coords and dimension in renamed.coords:
        renamed.coords[dimension].attrs.update(like.coords[dimension].attrs)
    return renamed


def stack(elements: Iterable[Any]) -> xr.DataArray:
    """Stack scalars, nulls and per-pixel values into a new array (along `ARRAY`, unlabelled).

    Integers with no-data become floats, since the elements may disagree on the no-data value.
    """
    items = list(elements)
    if not all(map(_is_element, items)):
        reason = "only numbers, booleans and nulls can be in one array with values of a data cube."
        raise IncompatibleDataCubes(reason=reason)
    if not items:
        return xr.DataArray(np.empty(0), dims=ARRAY)
    floats = any(value is None or isinstance(value, float) for value in items)
    fields = [_decode_element(value, floats) for value in items]
    arrays = [f for f in fields if isinstance(f, xr.DataArray)]
    dtype = np.result_type(*(f.dtype if isinstance(f, xr.DataArray) else f for f in fields))
    if not arrays:
        return xr.DataArray(np.array(fields, dtype), dims=ARRAY)
    # A scalar takes the shape and chunks of the first array: a plain broadcast would not be lazy.
    like = _broadcast_arrays(arrays)[0]
    whole = [
        f.astype(dtype, copy=False) if isinstance(f, xr.DataArray) else xr.full_like(like, f, dtype)
        for f in fields
    ]
    joined = xr.concat(
        _broadcast_arrays(whole), dim=ARRAY, coords="minimal", compat="override", join="override"
    )
    return joined.drop_vars(ARRAY, errors="ignore")


def _broadcast_arrays(arrays: Sequence[xr.DataArray]) -> tuple[xr.DataArray, ...]:
    try:
        return xr.broadcast(*arrays, exclude=())
    except ValueError as error:
        reason = "the values in an array have different labels or reference systems."
        raise IncompatibleDataCubes(reason=reason) from error


def _decode_element(value: Any, floats: bool) -> Any:
    if isinstance(value, xr.DataArray):
        bare = value.drop_vars(ARRAY, errors="ignore").drop_vars(list_packing_coordinates(value))
        return decode(bare) if floats or has_nodata(bare) else bare.drop_vars(NODATA, errors="ignore")
    if type(value) is int and not is_exact(value):
        return float(value) if value.bit_length() < 1000 else np.copysign(np.inf, value)
    return np.nan if value is None else value


def _is_element(value: Any) -> bool:
    if isinstance(value, xr.DataArray):
        return ARRAY not in value.dims
    return value is None or isinstance(value, bool | int | float | np.generic)


# --- No-data -------------------------------------------------------------------------------------


def nodata(data: xr.DataArray) -> Any:
    """The no-data value: NaN for floats, a number, a DataArray along the bands, or None if there is none."""
    if np.issubdtype(data.dtype, np.floating) or np.issubdtype(data.dtype, np.complexfloating):
        return np.nan
    if not np.issubdtype(data.dtype, np.integer):
        return None
    if NODATA in data.coords:
        # Chunking a cube chunks its coordinates as well, needlessly.
        return data.coords[NODATA].drop_vars(NODATA).compute(scheduler="synchronous")
    value = data.attrs.get(NODATA)
    return None if value is None or np.isnan(value) else value


def has_nodata(data: xr.DataArray) -> bool:
    """Whether values of this cube can be no-data at all."""
    return nodata(data) is not None


def valid(data: xr.DataArray) -> xr.DataArray:
    """True where there is data (same shape, lazy)."""
    missing = nodata(data)
    if missing is None:
        return xr.ones_like(data, dtype=bool)
    if np.issubdtype(data.dtype, np.integer):
        return _drop_nodata(data) != missing
    return data.notnull()


def decode(data: xr.DataArray) -> xr.DataArray:
    """The cube as numbers to calculate with: floats with NaN for no-data.

    Integers of up to 16 bits and booleans become float32, which holds them exactly, larger ones float64.
    """
    if np.issubdtype(data.dtype, np.floating) or np.issubdtype(data.dtype, np.complexfloating):
        return data
    if data.dtype.kind not in "iub":
        return data
    missing = nodata(data)
    if isinstance(missing, xr.DataArray):
        bare = _drop_nodata(data)
        return bare.astype(choose_float(data.dtype)).where(bare != missing)
    # One operation on each chunk: with those of xarray there would be three.
    return _drop_nodata(
        data, _map_chunks(partial(decode_pixels, missing=missing), data.data, choose_float(data.dtype))
    )


def _map_chunks(function: Callable[..., np.ndarray], values: Any, dtype: np.dtype[Any]) -> Any:
    if not isinstance(values, da.Array):
        return function(np.asarray(values))
    return da.core.elemwise(function, values, dtype=dtype)


def choose_float(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of floats that `decode` makes of integers and booleans."""
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def decode_pixels(values: np.ndarray, *, missing: float | None) -> np.ndarray:
    """Values as `decode` makes them, of an array in memory; ``missing`` is the no-data value of integers."""
    if values.dtype.kind not in "iub":
        return values
    # Blocks of arrays without dimensions may be scalars.
    floats = np.array(values, choose_float(values.dtype))
    if missing is not None:
        np.copyto(floats, np.nan, where=values == missing)
    return floats


def with_nodata(data: xr.DataArray, value: Any) -> xr.DataArray:
    """Declare another no-data value for integers: one for all, or a DataArray along the bands."""
    plain = _drop_nodata(data)
    if value is None:
        return plain
    if isinstance(value, xr.DataArray):
        return plain.assign_coords({NODATA: value})
    return plain.assign_attrs({NODATA: value})


def has_same_nodata(one: xr.DataArray, other: xr.DataArray) -> bool:
    """Whether both cubes have the same dtype and mark no-data in the same way."""
    if one.dtype != other.dtype:
        return False
    a, b = nodata(one), nodata(other)
    if isinstance(a, xr.DataArray) or isinstance(b, xr.DataArray):
        return isinstance(a, xr.DataArray) and isinstance(b, xr.DataArray) and a.identical(b)
    return bool(a == b) or (a is np.nan and b is np.nan)


def _drop_nodata(data: xr.DataArray, values: Any = None) -> xr.DataArray:
    """The cube without any declaration of no-data, with other values if there are any."""
    bare = data.copy(deep=False, data=values)
    if NODATA in bare.coords:
        bare = bare.drop_vars(NODATA)
    bare.attrs = {k: v for k, v in bare.attrs.items() if k != NODATA}
    return bare
