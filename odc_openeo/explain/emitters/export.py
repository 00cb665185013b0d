"""Saving results to files, and what only the service can do with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_call, write_string
from odc_openeo.explain.snippets import files
from odc_openeo.formats import Output
from odc_openeo.formats.vector import as_array, list_properties

FILES: Final = {
    "GTiff": ".tif",
    "netCDF": ".nc",
    "Zarr": ".zarr",
    "JSON": ".json",
    "CSV": ".csv",
    "GeoJSON": ".geojson",
    "Parquet": ".parquet",
    "PNG": ".png",
    "JPEG": ".jpg",
}


@emits("save_result")
def write_save_result(call: Call) -> str:
    """Write a file of the format; the value is the data, so that the program can go on with it."""
    data, output = call["data"], call.env.outputs[call.value.output]
    format_ = output.format.name
    number = len(call.program.files)
    name = f"result{'' if not number else f'_{number + 1}'}{FILES.get(format_, '')}"
    try:
        line = _write_file(call, data, output, write_string(name))
    except NoProgram as reason:
        call.program.leave_out(call, str(reason))
    else:
        call.program.files.append(name)
        call.add_line(line)
    return data.code


def _write_file(call: Call, data: Operand, output: Output, name: str) -> str:
    value, format_ = data.value, output.format.name
    if output.pieces:
        raise NoProgram("files of single features or tiles are not written.")
    if not cube.is_cube(value):
        return f"Path({name}).write_text(json.dumps({data.code}, default=float))"
    if format_ in ("CSV", "GeoJSON", "Parquet"):
        return _write_table(call, data, output, name)
    if cube.GEOMETRY in value.dims:
        return _write_vectors(call, data, format_, name)
    if isinstance(value, xr.Dataset):
        raise NoProgram("cubes without values are not written.")
    if format_ in ("PNG", "JPEG"):
        return _write_picture(call, data, output, name)
    if format_ == "GTiff":
        return f"{call.helper(files.write_geotiffs)}({data.code}, {name})"
    if format_ == "netCDF":
        return f"{data.atom}.to_netcdf({name})"
    if format_ == "Icechunk":
        raise NoProgram("repositories of Icechunk are not written.")
    if format_ == "Zarr" and output.options["overviews"] != "NONE":
        raise NoProgram("levels of a pyramid are not written.")
    if format_ == "Zarr":
        return f'{data.atom}.to_dataset(name="data").to_zarr({name}, mode="w")'
    return f"Path({name}).write_text(json.dumps({data.atom}.to_dict(), default=str))"


def _write_picture(call: Call, data: Operand, output: Output, name: str) -> str:
    if output.options["colormap"] is not None:
        raise NoProgram("pictures with a colormap are not written.")
    if output.options.get("datatype", "uint8") != "uint8":
        raise NoProgram("pictures of 16 bits are not written.")
    quality = f", quality={output.options['quality']}" if "quality" in output.options else ""
    bands = cube.dimensions_of_type(data.value, "bands")
    renamed = f'{data.atom}.rename({{{write_string(bands[0])}: "bands"}})' if bands else data.code
    code = data.code if bands in ([], ["bands"]) else renamed
    return f"{call.helper(files.write_pictures)}({code}, {name}{quality})"


def _write_table(call: Call, data: Operand, output: Output, name: str) -> str:
    """A file with a row for each label, with geometries where the format has them."""
    array = as_array(data.value)
    bands = cube.dimensions_of_type(array, "bands")
    columns = [str(label) for label in cube.labels(array, bands[0])] if bands else ["value"]
    taken = {cube.GEOMETRY, cube.T, "feature_index", "date", *map(str, array.dims), *list_properties(array)}
    if len(set(columns)) < len(columns) or taken & set(columns):
        raise NoProgram("a column of the table has the name of another one.")
    if isinstance(data.value, xr.Dataset) and data.value.data_vars:
        raise NoProgram("tables of the properties of geometries are not written.")
    if isinstance(data.value, xr.Dataset):
        bands = []
    band = f", {write_string(bands[0])}" if bands else ""
    if cube.GEOMETRY not in array.dims or output.format.name == "CSV":
        rows = f"{call.helper(files.make_table)}({data.code}{band})"
    else:
        rows = f"{call.helper(files.make_features)}({data.code}{band})"
    if output.format.name == "CSV":
        return write_call(
            f"{rows}.to_csv",
            name,
            index="False",
            sep=write_string(output.options["separator"]),
            date_format=write_string("%Y-%m-%dT%H:%M:%SZ"),
        )
    if output.format.name == "GeoJSON":
        return f'{rows}.to_crs(4326).to_file({name}, driver="GeoJSON")'
    return f"{rows}.to_parquet({name}, index=False)"


def _write_vectors(call: Call, data: Operand, format_: str, name: str) -> str:
    """A vector cube with geometries as CF has them, or as JSON."""
    value = data.value
    if format_ == "JSON":
        kinds = [cube.dimension_type(value, d) for d in value.dims] if hasattr(value, "dims") else []
        is_series = cube.T in value.dims and kinds.count("bands") == len(kinds) - 2 <= 1
        if isinstance(value, xr.DataArray) and is_series and value.coords[cube.T].dtype.kind == "M":
            code = f"{call.helper(files.list_series)}({data.code})"
        else:
            code = f"{data.atom}.to_dict()"
        return f"Path({name}).write_text(json.dumps({code}, default=str))"
    dataset = data.atom if isinstance(value, xr.Dataset) else f'{data.atom}.to_dataset(name="data")'
    written = f"to_netcdf({name})" if format_ == "netCDF" else f'to_zarr({name}, mode="w")'
    return f"{dataset}.xvec.encode_cf().{written}"


@emits("stac_modify")
def write_stac_modify(call: Call) -> str:
    """A JSON merge patch; the metadata of saved data exist in the service only."""
    if not isinstance(call.json("data"), Mapping):
        raise NoProgram("the STAC metadata of saved data are those of the service.")
    return f"{call.helper(files.merge_patch)}({call['data'].code}, {call['changes'].code})"


@emits("export_workspace", "export_collection")
def write_export(call: Call) -> str:
    raise NoProgram("workspaces and collections of users are in the service only.")


@emits("inspect")
def write_inspect(call: Call) -> Operand:
    """Print it; the value is passed on."""
    data = call["data"]
    message = f"{call['message'].code}, " if call.has("message") and call.json("message") else ""
    call.add_line(f"print({message}{data.code})")
    return Operand(data.code, call.value, data.dimension)


@emits("save_ml_model")
def write_save_model(call: Call) -> str:
    """The model as skops writes it."""
    call.add_line(f'skops.io.dump({call["data"].code}, "model.skops")')
    return "True"
