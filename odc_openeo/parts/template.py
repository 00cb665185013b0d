"""Describe the whole output of a job before it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
import xvec  # noqa: F401  (registers the accessor)

from odc_openeo import cube
from odc_openeo.formats import Output
from odc_openeo.parts.model import OutputTemplate


def describe_output(value: Any, outputs: Sequence[Output]) -> OutputTemplate:
    """Describe the first output or, if nothing is saved, the value itself."""
    data = outputs[0].data if outputs else value
    format_, options = (outputs[0].format.name, dict(outputs[0].options)) if outputs else (None, {})
    if not isinstance(data, xr.DataArray):
        return OutputTemplate("vector" if cube.is_cube(data) else "json", format_, options)
    dims = tuple(map(str, data.dims))
    is_raster = cube.has_raster_dimensions(data)
    grid = data.odc.geobox if is_raster else None
    by_type = {type_: cube.dimensions_of_type(data, type_) for type_ in ("temporal", "bands")}
    return OutputTemplate(
        "vector" if cube.GEOMETRY in dims else "raster",
        format_,
        options,
        dims=dims,
        sizes={name: data.sizes[name] for name in dims},
        chunks={name: max(data.chunksizes[name], default=0) for name in dims if name in data.chunksizes},
        dtype=str(data.dtype),
        crs=_describe_crs(data),
        transform=None if grid is None else tuple(grid.transform[:6]),
        spatial_dims=(cube.Y, cube.X) if is_raster else None,
        labels={
            name: cube.labels(data, name) for name in dims if name not in (cube.Y, cube.X, cube.GEOMETRY)
        },
        nodata=_describe_nodata(data),
        time_dimension=next(iter(by_type["temporal"]), None),
        bands_dimension=next(iter(by_type["bands"]), None),
    )


def _describe_crs(data: xr.DataArray) -> str | None:
    if cube.GEOMETRY in data.dims:
        crs = data.xvec.geom_coords[cube.GEOMETRY].crs
        return None if crs is None else str(crs.to_wkt())
    crs = data.odc.crs if cube.has_raster_dimensions(data) else None
    return None if crs is None else str(crs.to_wkt())


def _describe_nodata(data: xr.DataArray) -> Any:
    missing = cube.nodata(data)
    if isinstance(missing, xr.DataArray):
        return missing.values.tolist()
    return missing.item() if isinstance(missing, np.generic) else missing
