from __future__ import annotations

import io
import zipfile

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from jsonschema import Draft7Validator

from odc_openeo import graph
from odc_openeo.errors import DataCubeEmpty, FileTypeInvalid, FormatUnsuitable, ProcessParameterInvalid
from odc_openeo.formats import (
    FORMATS,
    Download,
    Output,
    choose_format,
    describe_formats,
    get_format,
    make_download,
    write_outputs,
)
from odc_openeo.processes import export  # noqa: F401
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES
from odc_openeo.user_data.stac_export import SavedStac
from tests.formats.cubes import lazy, raster, vector


def test_formats_are_found_in_any_casing_but_not_by_alias():
    assert get_format("gTIFF") is FORMATS["GTiff"]
    assert get_format("NETCDF") is FORMATS["netCDF"]
    with pytest.raises(FileTypeInvalid, match="'geotiff'.*GTiff, netCDF"):
        get_format("geotiff")


def test_published_formats_are_described():
    published = describe_formats()
    assert set(published) == {"input", "output"}
    for name, entry in published["output"].items():
        assert entry["title"]
        assert len(entry["description"]) > 50
        assert set(entry["gis_data_types"]) <= {"raster", "vector", "table", "pointcloud", "other"}
        for option, schema in entry["parameters"].items():
            Draft7Validator.check_schema(schema)
            assert schema["description"], (name, option)
            if "default" in schema:
                Draft7Validator(schema).validate(schema["default"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"datatype": "byte"}, "no option 'datatype'. It has: compress, level"),
        ({"compress": "jpeg"}, "'compress'.* one of 'DEFLATE', 'ZSTD', 'LZW' or 'NONE', not 'jpeg'"),
        ({"blocksize": 100}, "must be one of 128, 256"),
        ({"level": 12}, "at most 9"),
        ({"level": True}, "must be an integer"),
    ],
)
def test_bad_options_are_refused(options, reason):
    with pytest.raises(ProcessParameterInvalid, match=reason):
        Output.from_data(raster(), "GTiff", options)


def test_save_result_checks_at_once_without_computing():
    cube = raster().chunk({"y": 10})
    env = Environment()
    call = PROCESSES["save_result"].call
    saved = lazy(lambda: call({"data": cube, "format": "gtiff", "options": {"COMPRESS": "lzw"}}, env))
    assert saved == SavedStac(0, "GTiff")
    (output,) = env.outputs
    assert (output.format.name, output.options["compress"]) == ("GTiff", "LZW")
    assert output.options["blocksize"] == 512
    with pytest.raises(FormatUnsuitable):
        lazy(lambda: call({"data": cube.mean("x"), "format": "PNG"}, env))
    with pytest.raises(DataCubeEmpty):
        lazy(lambda: call({"data": cube[:, :0], "format": "GTiff"}, env))
    call({"data": cube[:, :0], "format": "JSON"}, env)


def test_save_result_in_a_graph():
    env = Environment()
    node = {"process_id": "save_result", "arguments": {"data": {"from_parameter": "cube"}, "format": "CSV"}}
    process = {"process_graph": {"save": {**node, "result": True}}, "parameters": [{"name": "cube"}]}
    assert graph.evaluate(process, env, {"cube": vector()}) == SavedStac(0, "CSV")
    assert env.outputs[0].format.name == "CSV"


@pytest.mark.parametrize(
    ("value", "format_", "file"),
    [
        (3.5, "JSON", "result.json"),
        ([1, 2], "JSON", "result.json"),
        (raster(dates=None), "GTiff", "result.tif"),
        (raster(dates=None).mean(("x", "y")), "JSON", "result.json"),
        (vector(), "JSON", "result.json"),
        (vector(dates=None), "GeoJSON", "result.geojson"),
    ],
)
def test_default_formats_of_results(tmp_path, value, format_, file):
    assert choose_format(value) == format_
    (asset,) = write_outputs(value, [], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [file]
    media_type = FORMATS[format_].media_type
    assert make_download([asset], []) == Download(file, media_type, {file: asset.path})


def test_several_outputs_are_computed_once_and_packed(tmp_path):
    reads = []

    def read(block):
        reads.append(block.shape)
        return block

    cube = raster().chunk({"t": 1})
    cube.data = cube.data.map_blocks(read, dtype="float32", meta=np.empty((0,) * 4, "float32"))
    calls = []

    def compute(*collections):
        calls.append(len(collections))
        return dask.compute(*collections)

    outputs = [
        Output.from_data(cube, "GTiff"),
        Output.from_data(cube.isel(t=0), "PNG"),
        Output.from_data(cube, "Zarr"),
    ]
    assets = write_outputs(True, outputs, tmp_path, compute)
    assert calls == [3]
    assert len(reads) == 2
    names = ["result_1_2022-06-01.tif", "result_1_2022-06-06.tif", "result_2.png", "result_3.zarr"]
    assert [a.path.name for a in assets] == names
    download = make_download(assets, outputs)
    assert (download.name, download.media_type) == ("result.zip", "application/zip")
    content = b"".join(download.open_archive())
    assert len(content) == len(download.open_archive())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert set(names[:3]) < set(archive.namelist())
        archive.extractall(tmp_path / "out")
    back = xr.open_zarr(tmp_path / "out" / "result_3.zarr")
    np.testing.assert_array_equal(back["B02"], cube[:, 1].values)
    with rasterio.open(tmp_path / "out" / names[1]) as file:
        np.testing.assert_array_equal(file.read(), cube[1].values)


def test_all_files_or_none(tmp_path):
    def broken(block):
        raise ValueError("bad tile")

    cube = raster(dates=None).chunk({"y": 10})
    bad = cube.copy(data=cube.data.map_blocks(broken, dtype="float32", meta=np.empty((0,) * 3, "float32")))
    good = Output.from_data(cube.compute(), "GTiff")
    for name in FORMATS:
        if name == "GeoJSON":
            continue
        with pytest.raises(ValueError, match="bad tile"):
            write_outputs(None, [good, Output.from_data(bad, name)], tmp_path)
        assert list(tmp_path.iterdir()) == []
