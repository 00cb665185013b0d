"""Loading from STAC with odc-stac, from files of users, from results of jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.cube.instants import parse_interval
from odc_openeo.explain.calls import Call, NoProgram, emits
from odc_openeo.explain.code import join_items, write_call, write_literal, write_string
from odc_openeo.explain.emitters.dimensions import write_dates
from odc_openeo.explain.emitters.load import define_condition, write_geobox, write_instant
from odc_openeo.explain.emitters.zones import index_geometries, mask_outside
from odc_openeo.explain.snippets import cubes, sources, vectors
from odc_openeo.formats.read import get_input_format
from odc_openeo.processes.load_external import list_result_files
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.boxes import is_box

RASTERS: Final = {"GTiff": sources.read_geotiff, "netCDF": sources.read_netcdf}
TABLES: Final = {"GeoJSON": sources.read_geojson, "CSV": sources.read_csv}


# --- Files ---------------------------------------------------------------------------------------


@emits("load_uploaded_files")
def write_load_files(call: Call) -> str:
    """The files by the paths that they have in the user's folder, from where the program runs."""
    names = [call.program.add_constant("file", write_string(path)) for path in call.json("paths")]
    return _write_read(call, names)


@emits("load_url")
def write_load_url(call: Call) -> str:
    """The file is downloaded first."""
    name = call.program.add_constant("url", write_string(call.json("url")))
    return _write_read(call, [f"urlretrieve({name})[0]"])


def _write_read(call: Call, paths: Sequence[str]) -> str:
    format_ = get_input_format(call.json("format")).name
    if format_ in RASTERS:
        read = call.helper(RASTERS[format_])
        parts = [f"{read}({path})" for path in paths]
        code = parts[0] if len(parts) == 1 else f'xr.concat({join_items("[", parts, "]")}, "bands")'
        return _place_raster(call, code)
    read = call.helper(TABLES[format_]) if format_ in TABLES else "gpd.read_parquet"
    parts = [f"{read}({path})" for path in paths]
    code = parts[0] if len(parts) == 1 else f"pd.concat({join_items('[', parts, ']')}, ignore_index=True)"
    table = call.assign("table", code)
    crs = vector_cubes.get_crs(call.value, str(vector_cubes.find_geometry_dimension(call.value)))
    return index_geometries(f"{call.helper(vectors.make_vector_cube)}({table})", crs)


def _place_raster(call: Call, code: str) -> str:
    """Give a raster its grid and the names of its bands."""
    data: xr.DataArray = call.value
    grid = call.assign("grid", write_geobox(data.odc.geobox))
    coords = (
        f'{{"bands": {write_literal(cube.labels(data, cube.BANDS))}, **xr_coords({grid}, dims=("y", "x"))}}'
    )
    return f"{code}.assign_coords({coords})"


# --- STAC ----------------------------------------------------------------------------------------


@emits("load_stac")
def write_load_stac(call: Call) -> str:
    """The Items on the grid of the service, as floats with NaN for no-data."""
    return _write_stac(call, call.json("url"))


def _write_stac(call: Call, address: str) -> str:
    data: xr.DataArray = call.value
    url = call.program.add_constant("stac_url", write_string(address))
    grid = call.assign("grid", write_geobox(data.odc.geobox))
    items = call.assign("items", f"{call.helper(sources.read_items)}({url})")
    limits = _write_limits(call)
    if call.has("spatial_extent"):
        limits["grid"] = grid
    if limits:
        call.add_line(write_call(f"{items} = {call.helper(sources.select_items)}", items, **limits))
    if call.has("properties"):
        _filter_items(call, items)
    names = call.assign("names", write_literal(cube.labels(data, cube.BANDS)))
    bands = f"[{call.helper(sources.find_band)}({items}[0], name) for name in {names}]"
    options = {"bands": bands, "geobox": grid, "dtype": _get_type(data)}
    loaded = call.assign("dataset", write_call("odc.stac.load", items, **options))
    masked = f'{call.helper(cubes.mask_nodata)}({loaded}).to_dataarray("bands")'
    code = f'{masked}.assign_coords(bands={names}).rename(time="t")'
    y, x = data.odc.geobox.dimensions
    if (y, x) != ("y", "x"):
        code += f'.rename({y}="y", {x}="x")'
    code += '.transpose("t", "bands", "y", "x")'
    return _clip(call, code)


def _get_type(data: xr.DataArray) -> str:
    is_small = data.dtype.itemsize <= 2 or data.dtype == np.float32
    return write_string("float32" if is_small else "float64")


def _write_limits(call: Call) -> dict[str, str]:
    """The interval whose end does not belong to it."""
    if not call.has("temporal_extent"):
        return {}
    ends = parse_interval(call.json("temporal_extent"), call.node.process_id, "temporal_extent")
    return {
        name: write_instant(time)
        for name, time in zip(("start", "end"), ends, strict=True)
        if time is not None
    }


def _filter_items(call: Call, items: str) -> None:
    conditions = [
        f"{define_condition(call, name, graph)}(item.properties.get({write_string(name)}))"
        for name, graph in call.operands["properties"].value.items()
    ]
    call.add_line(f"{items} = [item for item in {items} if {' and '.join(conditions)}]")


def _clip(call: Call, code: str) -> str:
    extent = call["spatial_extent"]
    if extent.value is None or is_box(extent.value):
        return code
    return mask_outside(call, call.assign("data", code), extent, "spatial_extent")


# --- Results of jobs -----------------------------------------------------------------------------


@emits("load_result")
def write_load_result(call: Call) -> str:
    """The GeoTIFFs that were downloaded from the results, one for each date."""
    if re.match("https?://", call.json("id")):
        return _write_stac(call, call.json("id"))
    data: xr.DataArray = call.value
    files = {file.time: file for file in list_result_files(call.json("id"), call.env)}
    chosen = [files.get(time) for time in data.coords[cube.T].values]
    forms = {(file.grid, file.bands) for file in chosen if file is not None}
    if None in chosen or len(forms) != 1:
        raise NoProgram("its dates are not one GeoTIFF each, on one grid.")
    folder = call.program.add_constant("results", write_string("results"))
    names = write_literal([file.name for file in chosen if file is not None])
    read = call.helper(sources.read_geotiff)
    parts = f'[{read}(f"{{{folder}}}/{{name}}") for name in {names}]'
    dates = write_dates(data.coords[cube.T].values)
    raw = call.assign("raw", f'xr.concat({parts}, "t").assign_coords(t={dates})')
    (grid, bands), *_ = forms
    rows, columns = _find_window(grid, data.odc.geobox)
    labels = write_literal(cube.labels(data, cube.BANDS))
    named = f"{raw}.assign_coords(bands={write_literal(list(bands))}).sel(bands={labels})"
    code = f"{named}.isel(y={rows}, x={columns})"
    return _clip(call, _place_raster(call, code))


def _find_window(whole: GeoBox, part: GeoBox) -> tuple[str, str]:
    """The rows and columns of a grid that another one has."""
    column, row = (round(v) for v in ~whole.transform @ (part.transform @ (0, 0)))
    height, width = part.shape.yx
    if whole[row : row + height, column : column + width] != part:
        raise NoProgram("it is not on the grid of the files.")
    return f"slice({row}, {row + height})", f"slice({column}, {column + width})"


@emits("load_ml_model")
def write_load_model(call: Call) -> str:
    """The model that was downloaded from the results; trees are the only type that skops has to be told."""
    name = call.program.add_constant("model_file", write_string("result.skops"))
    return f'skops.io.load({name}, trusted=["sklearn.tree._tree.Tree"])'
