"""Functions of users on cubes."""

from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

if TYPE_CHECKING:  # Only programs need them.
    from openeo.udf import UdfData, XarrayDataCube


def run_on_cube(function, data, context, reduced=None):
    """Call a function on a whole cube, whose dimensions t, bands, y and x come last, in this order."""
    order = [name for name in ("t", "bands", "y", "x") if name in data.dims]
    cube = data.transpose(*(name for name in data.dims if name not in order), *order)
    if {"x", "y"} <= set(data.dims) and data.odc.crs is not None:
        code = data.odc.crs.to_epsg()
        cube = cube.assign_attrs(crs=f"EPSG:{code}" if code else data.odc.crs.to_wkt())
    result = function(cube, context)
    if reduced in result.dims:
        result = result.isel({reduced: 0}, drop=True)
    missing = [name for name in result.dims if name not in result.coords and name in data.coords]
    same = {name: data[name] for name in missing if result.sizes[name] == data.sizes[name]}
    return result.assign_coords(same)


def run_on_wrapped_cube(function, data, context, reduced=None):
    """Call a function of the client's own type of cubes."""

    def unwrap(cube, context):
        return function(XarrayDataCube(cube), context).get_array()

    return run_on_cube(unwrap, data, context, reduced)


def run_on_udf_data(function, data, context, reduced=None):
    """Call a function that takes all data in one object."""

    def unwrap(cube, context):
        given = UdfData(datacube_list=[XarrayDataCube(cube)], user_context=context)
        returned = function(given)
        return (returned if isinstance(returned, UdfData) else given).datacube_list[0].get_array()

    return run_on_cube(unwrap, data, context, reduced)


def run_on_series(function, data, context, reduced=None):
    """Call a function on the series of each pixel."""
    index = data.indexes["t"]

    def run(values):
        return function(pd.Series(values, index=index), context).values

    dims = {"input_core_dims": [["t"]], "output_core_dims": [["t"]]}
    return xr.apply_ufunc(run, data, vectorize=True, **dims).transpose(*data.dims)
