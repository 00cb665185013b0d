"""Assets of files that hold a whole cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo.cube import GEOMETRY, has_raster_dimensions, labels, nodata
from odc_openeo.cube.packing import Packing, read_packings
from odc_openeo.formats.model import Asset
from odc_openeo.formats.raster import describe_placement, describe_times, find_band_dimension
from odc_openeo.formats.vector import find_geometry_crs


def make_cube_asset(path: Path, media_type: str, data: Any) -> Asset:
    """Describe a file that holds a whole cube or a JSON value."""
    if not isinstance(data, xr.DataArray | xr.Dataset):
        return Asset(path, media_type, path.stem)
    where: dict[str, Any] = {}
    if GEOMETRY in data.xindexes:
        where = _describe_outline(data)
    elif isinstance(data, xr.DataArray) and has_raster_dimensions(data):
        where = describe_placement(data.odc.geobox)
    return Asset(path, media_type, path.stem, bands=_describe_bands(data), **describe_times(data), **where)


def _describe_bands(data: xr.DataArray | xr.Dataset) -> list[dict[str, Any]]:
    if isinstance(data, xr.Dataset):
        return [{"name": str(n), "data_type": str(v.dtype)} for n, v in data.data_vars.items()]
    band = find_band_dimension(data)
    names = [{"name": str(label)} for label in labels(data, band)] if band else [{}]
    missing = nodata(data)
    along_bands = isinstance(missing, xr.DataArray) and missing.dims == (band,)
    if isinstance(missing, xr.DataArray) and not along_bands:
        missing = None
    nodata_values = missing.values.tolist() if along_bands else [missing] * len(names)
    return [
        {**n, "data_type": str(data.dtype), **_describe_nodata(m), **describe_packing(p)}
        for n, m, p in zip(names, nodata_values, read_packings(data, band), strict=True)
    ]


def describe_packing(packing: Packing) -> dict[str, Any]:
    """Make the fields of a STAC band for unit, scale and offset."""
    return packing.to_fields("unit", "raster:scale", "raster:offset")


def _describe_nodata(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {"nodata": "nan" if np.isnan(value) else value}


def _describe_outline(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    geometries = data.xvec.to_crs({GEOMETRY: 4326}) if find_geometry_crs(data) else data
    shapes = [g for g in geometries[GEOMETRY].values if g is not None and not g.is_empty]
    if not shapes:
        return {}
    bounds = np.array([g.bounds for g in shapes])
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]}}
