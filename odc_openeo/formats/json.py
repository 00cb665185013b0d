"""JSON: scalars and arrays as they are, cubes with their labels, time series of geometries by date."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
import shapely
import xarray as xr

from odc_openeo.cube import GEOMETRY, LabeledArray, T, decode, dimension_type, json_labels, labels
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.properties import to_plain
from odc_openeo.formats.vector import as_array, format_crs

MEDIA_TYPE: Final = "application/json"
VALUES: Final = 4_000_000
"""Most values of a cube that is written as JSON."""


def check_json(data: Any) -> None:
    """Raise `FormatUnsuitable` for cubes that are too large."""
    if isinstance(data, xr.DataArray | xr.Dataset):
        largest = max((v.size for v in _list_arrays(data)), default=0)
        if largest > VALUES:
            reason = f"{largest} values are too many (limit {VALUES}). Use netCDF, Zarr or GTiff."
            raise FormatUnsuitable(format="JSON", reason=reason)


def _list_arrays(data: xr.DataArray | xr.Dataset) -> list[xr.DataArray]:
    return list(data.data_vars.values()) if isinstance(data, xr.Dataset) else [data]


def write_json(data: Any, target: Target, options: Options) -> list[Asset]:
    """Write one JSON file."""
    path = target.path("json")
    if isinstance(data, xr.DataArray | xr.Dataset):
        data = target.compute(data)[0]
    text = json.dumps(to_json(data), allow_nan=False, ensure_ascii=False, indent=options["indent"])
    path.write_text(text, encoding="utf-8")
    return [make_cube_asset(path, MEDIA_TYPE, data)]


def to_json(value: Any) -> Any:
    """Convert a value to plain JSON; no-data, NaN and infinite numbers become null."""
    if isinstance(value, xr.DataArray | xr.Dataset):
        array = as_array(value)
        return _timeseries_to_json(array) if _is_timeseries(array) else _cube_to_json(array)
    if isinstance(value, LabeledArray):
        return {"labels": to_json(list(value.labels)), "values": to_json(list(value.values))}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return to_json(json_labels(value) if value.dtype.kind == "M" else value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise FormatUnsuitable(format="JSON", reason=f"values of type {type(value).__name__} have no JSON form.")


def _is_timeseries(data: xr.DataArray) -> bool:
    kinds = [dimension_type(data, d) for d in data.dims]
    return GEOMETRY in data.dims and T in data.dims and kinds.count("bands") == len(kinds) - 2 <= 1


def _timeseries_to_json(data: xr.DataArray) -> dict[str, Any]:
    """Make ``{date: [[value of each band] for each geometry]}``."""
    bands = [d for d in data.dims if d not in (T, GEOMETRY)]
    ordered = (data if bands else data.expand_dims("bands")).transpose(T, GEOMETRY, ...)
    dates = map(str, labels(data, T))
    return dict(zip(dates, to_json(_list_values(ordered)), strict=True))


def _cube_to_json(data: xr.DataArray) -> dict[str, Any]:
    """Make an object for `xarray.DataArray.from_dict`: dims, coords, attrs, name and nested lists."""
    coords = {str(d): {"dims": [str(d)], "data": to_json(_list_labels(data, str(d)))} for d in data.dims}
    for name, coord in data.coords.items():
        if coord.dims == (GEOMETRY,) and name != GEOMETRY:
            coords[str(name)] = {"dims": [GEOMETRY], "data": [to_plain(v) for v in _list_column(coord)]}
    crs = format_crs(data)
    return {
        "name": str(data.name) if data.name else None,
        "dims": [str(d) for d in data.dims],
        "coords": coords,
        "attrs": {"crs": crs} if crs else {},
        "data": to_json(_list_values(data)),
    }


def _list_column(coord: xr.DataArray) -> list[Any]:
    values = coord.values
    return json_labels(values) if values.dtype.kind == "M" else list(values)


def _list_labels(data: xr.DataArray, dimension: str) -> list[Any]:
    if dimension == GEOMETRY:
        return [None if g is None else json.loads(shapely.to_geojson(g)) for g in data[GEOMETRY].values]
    return labels(data, dimension)


def _list_values(data: xr.DataArray) -> Any:
    """Make nested lists; floats are written with as many digits as their type has."""
    decoded = data if data.dtype.kind == "M" else decode(data)
    if data.dtype.kind in "iub":
        # Integers stay integers where there is data.
        whole = data.values.astype(object)
        whole[decoded.isnull().values] = None
        return whole
    if decoded.dtype == np.float32:
        return np.array([float(str(v)) for v in decoded.values.ravel()]).reshape(decoded.shape)
    return decoded.values


JSON: Final = Format(
    name="JSON",
    title="JavaScript Object Notation",
    description=(
        "Numbers, strings and arrays as they are; labelled arrays as an object with labels and values. "
        "Vector cubes with dates become time series: an object that has for each date a list with an array "
        "for each geometry, holding the values of the bands. Other cubes become an object with dims, coords, "
        "attrs and data (nested arrays), which xarray's from_dict can read. No-data, NaN and infinite "
        "numbers are null."
    ),
    gis_data_types=["raster", "vector", "table", "other"],
    media_type=MEDIA_TYPE,
    extension="json",
    write=write_json,
    check=check_json,
    stores_empty=True,
    parameters={
        "indent": {
            "type": ["integer", "null"],
            "description": "Spaces per level; null writes a single line.",
            "minimum": 0,
            "maximum": 8,
            "default": None,
        }
    },
)
