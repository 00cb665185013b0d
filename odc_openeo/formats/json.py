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
from odc_openeo.formats.assets import cube_asset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.vector import as_array, crs_text

MEDIA_TYPE: Final = "application/json"
VALUES: Final = 4_000_000
"""The largest cube that is put into JSON."""


def check(data: Any) -> None:
    """JSON values, and cubes that are not too large."""
    if isinstance(data, xr.DataArray | xr.Dataset):
        largest = max((v.size for v in _parts(data)), default=0)
        if largest > VALUES:
            reason = f"{largest} values are too many (limit {VALUES}). Use netCDF, Zarr or GTiff."
            raise FormatUnsuitable(format="JSON", reason=reason)


def _parts(data: xr.DataArray | xr.Dataset) -> list[xr.DataArray]:
    return list(data.data_vars.values()) if isinstance(data, xr.Dataset) else [data]


def write(data: Any, target: Target, options: Options) -> list[Asset]:
    """One JSON file."""
    path = target.path("json")
    if isinstance(data, xr.DataArray | xr.Dataset):
        data = target.compute(data)[0]
    text = json.dumps(to_json(data), allow_nan=False, ensure_ascii=False, indent=options["indent"])
    path.write_text(text, encoding="utf-8")
    return [cube_asset(path, MEDIA_TYPE, data)]


def to_json(value: Any) -> Any:
    """A value as plain JSON; no-data, NaN and infinite numbers become null."""
    if isinstance(value, xr.DataArray | xr.Dataset):
        array = as_array(value)
        return _timeseries(array) if _is_timeseries(array) else _cube(array)
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


def _timeseries(data: xr.DataArray) -> dict[str, Any]:
    """``{date: [[value of each band] for each geometry]}``."""
    bands = [d for d in data.dims if d not in (T, GEOMETRY)]
    ordered = (data if bands else data.expand_dims("bands")).transpose(T, GEOMETRY, ...)
    dates = map(str, labels(data, T))
    return dict(zip(dates, to_json(_values(ordered)), strict=True))


def _cube(data: xr.DataArray) -> dict[str, Any]:
    """What `xarray.DataArray.from_dict` reads: dims, coords, attrs, name and nested lists."""
    coords = {str(d): {"dims": [str(d)], "data": to_json(_labels(data, str(d)))} for d in data.dims}
    for name, coord in data.coords.items():
        if coord.dims == (GEOMETRY,) and name != GEOMETRY:
            coords[str(name)] = {"dims": [GEOMETRY], "data": to_json(coord.values)}
    crs = crs_text(data)
    return {
        "name": str(data.name) if data.name else None,
        "dims": [str(d) for d in data.dims],
        "coords": coords,
        "attrs": {"crs": crs} if crs else {},
        "data": to_json(_values(data)),
    }


def _labels(data: xr.DataArray, dimension: str) -> list[Any]:
    if dimension == GEOMETRY:
        return [None if g is None else json.loads(shapely.to_geojson(g)) for g in data[GEOMETRY].values]
    return labels(data, dimension)


def _values(data: xr.DataArray) -> Any:
    """Nested lists; floats are written with as many digits as their type has."""
    found = data if data.dtype.kind == "M" else decode(data)
    if data.dtype.kind in "iub":
        # Integers stay integers where there is data.
        whole = data.values.astype(object)
        whole[found.isnull().values] = None
        return whole
    if found.dtype == np.float32:
        return np.array([float(str(v)) for v in found.values.ravel()]).reshape(found.shape)
    return found.values


JSON: Final = Format(
    name="JSON",
    title="JavaScript Object Notation",
    description=(
        "Numbers, texts and arrays as they are; labelled arrays as an object with labels and values. "
        "Vector cubes "
        "with dates become time series: an object that has for each date a list with an array for each "
        "geometry, "
        "holding the values of the bands. Other cubes become an object with dims, coords, attrs and data "
        "(nested "
        "arrays), as xarray's from_dict reads. No-data, NaN and infinite numbers are null."
    ),
    gis_data_types=["raster", "vector", "table", "other"],
    media_type=MEDIA_TYPE,
    extension="json",
    write=write,
    check=check,
    stores_empty=True,
    parameters={
        "indent": {
            "type": ["integer", "null"],
            "description": "Spaces for each level; null puts all into one line.",
            "minimum": 0,
            "maximum": 8,
            "default": None,
        }
    },
)
