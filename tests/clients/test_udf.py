"""User-defined functions through the real `openeo` client on the running stack."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import openeo
import pytest
import scipy.ndimage
import scipy.signal
import xarray as xr
from openeo.rest import OpenEoApiError

from tests.clients.test_values import load, netcdf
from tests.support.sandbox import needs_sandbox

SMOOTH = """
import xarray
from openeo.udf import XarrayDataCube, inspect
from scipy.signal import savgol_filter

calls = []

def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    array = cube.get_array().fillna(0)
    calls.append(1)
    inspect(data=list(array.shape), message="smoothing", code="SG", level="warning")
    print("a line of the function")
    smoothed = savgol_filter(array.values, context["length"], 1, axis=0)
    return XarrayDataCube(xarray.DataArray(smoothed, dims=array.dims, coords=array.coords))
"""
COMPONENTS = """
import numpy as np
import xarray
from openeo.metadata import CollectionMetadata

def apply_metadata(metadata: CollectionMetadata, context: dict) -> CollectionMetadata:
    return metadata.rename_labels(dimension="bands", target=["sum", "difference"])

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    red, nir = cube.sel(bands="B04"), cube.sel(bands="B08")
    return xarray.concat([red + nir, red - nir], dim="bands").transpose(*cube.dims)
"""
TOTAL = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    cube = data.get_datacube_list()[0].get_array()
    data.set_structured_data_list([StructuredData({"max": float(cube.max()), "dims": list(cube.dims)})])
"""
FILTER = """
import xarray
from scipy.ndimage import uniform_filter

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    assert cube.dims == ("t", "bands", "y", "x")
    return cube.copy(data=uniform_filter(cube.fillna(0).values, (0, 0, 3, 3), mode="constant"))
"""
BEST = """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    score = cube.sel(bands="B08", drop=True).fillna(0)
    return cube.isel(t=score.argmax("t"))
"""
DOUBLE = """
import pandas as pd

def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    assert isinstance(series.index, pd.DatetimeIndex)
    return series * 2
"""
BROKEN = """
import xarray

def helper(cube):
    return cube.no_such_method()

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return helper(cube)
"""


pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def plain(connection: openeo.Connection, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The data that the functions get."""
    folder = tmp_path_factory.mktemp("plain")
    return netcdf(load(connection, ["B04", "B08"]), folder / "plain.nc")


def smooth(connection: openeo.Connection) -> openeo.DataCube:
    cube = load(connection, ["B04", "B08"])
    return cube.apply_dimension(openeo.UDF(SMOOTH, context={"length": 3}), dimension="t")


def test_runtimes_are_listed(connection: openeo.Connection) -> None:
    (runtime,) = connection.list_udf_runtimes().values()
    libraries = runtime["versions"][runtime["default"]]["libraries"]
    assert libraries["numpy"]["version"] == np.__version__
    assert libraries["openeo"]["version"] == openeo.client_version()
    assert "run_udf" in {process["id"] for process in connection.list_processes()}


def test_smoothing_along_time(connection: openeo.Connection, plain: xr.Dataset, tmp_path: Path) -> None:
    result = netcdf(smooth(connection), tmp_path / "smooth.nc")
    assert result.t.equals(plain.t)
    for band in ("B04", "B08"):
        values = np.nan_to_num(plain[band].values.astype("float32"))
        values = np.where(plain[band].values == plain[band].attrs.get("_FillValue", -1), 0, values)
        np.testing.assert_allclose(
            result[band].values, scipy.signal.savgol_filter(values, 3, 1, axis=0), atol=0.01
        )


def test_jobs_log_what_functions_say(
    connection: openeo.Connection, plain: xr.Dataset, tmp_path: Path
) -> None:
    job = smooth(connection).save_result("netCDF").create_job(title="UDF")
    job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    entries = [entry for entry in job.logs() if entry.get("code") == "SG"]
    assert entries[0]["level"] == "warning"
    assert entries[0]["message"] == "smoothing"
    assert entries[0]["data"][0] == plain.sizes["t"]
    assert [step["process_id"] for step in entries[0]["path"]] == ["run_udf", "apply_dimension"]
    assert any(entry["message"] == "a line of the function" for entry in job.logs())
    (path,) = (p for p in job.get_results().download_files(tmp_path) if p.suffix == ".nc")
    sync = netcdf(smooth(connection), tmp_path / "sync.nc")
    xr.testing.assert_equal(xr.load_dataset(path, engine="netcdf4").drop_vars("crs", errors="ignore"), sync)


def test_bands_with_new_labels(connection: openeo.Connection, plain: xr.Dataset, tmp_path: Path) -> None:
    cube = load(connection, ["B04", "B08"]).apply_dimension(openeo.UDF(COMPONENTS), dimension="bands")
    result = netcdf(cube, tmp_path / "components.nc")
    assert {"sum", "difference"} <= set(result.data_vars)
    valid = np.isfinite(plain.B04) & np.isfinite(plain.B08)
    expected = (plain.B04 + plain.B08).where(valid)
    np.testing.assert_allclose(result["sum"].values, expected.values, equal_nan=True)


def read_zeros(plain: xr.Dataset, band: str) -> np.ndarray:
    """The values of a band as floats, 0 where there are none."""
    values = plain[band].values.astype("float32")
    return np.where(np.isnan(values) | (values == plain[band].attrs.get("_FillValue", -1)), 0, values)


def test_blocks_with_overlap(connection: openeo.Connection, plain: xr.Dataset, tmp_path: Path) -> None:
    cube = load(connection, ["B04"]).apply_neighborhood(
        openeo.UDF(FILTER),
        size=[{"dimension": d, "value": 32, "unit": "px"} for d in ("x", "y")],
        overlap=[{"dimension": d, "value": 2, "unit": "px"} for d in ("x", "y")],
    )
    result = netcdf(cube, tmp_path / "filtered.nc")
    expected = scipy.ndimage.uniform_filter(read_zeros(plain, "B04"), (0, 3, 3), mode="constant")
    np.testing.assert_allclose(result["B04"].values, expected, rtol=1e-4, atol=0.01)


def test_best_pixels(connection: openeo.Connection, plain: xr.Dataset, tmp_path: Path) -> None:
    cube = load(connection, ["B04", "B08"]).reduce_dimension(dimension="t", reducer=openeo.UDF(BEST))
    result = netcdf(cube, tmp_path / "best.nc")
    best = read_zeros(plain, "B08").argmax(0)[None]
    for band in ("B04", "B08"):
        expected = np.take_along_axis(read_zeros(plain, band), best, axis=0)[0]
        np.testing.assert_array_equal(np.nan_to_num(result[band].values), expected)


def test_series_of_polygons(connection: openeo.Connection) -> None:
    west, south, east, north = 11.3456, 46.4913, 11.3506, 46.4946
    square = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }
    means = load(connection, ["B04"]).aggregate_spatial(geometries=square, reducer="mean")
    before = means.execute()
    node = means.process("run_udf", data=means, udf=DOUBLE, runtime="Python", version=None)
    after = node.execute()
    assert json.dumps(after) != json.dumps(before)
    assert find_numbers(after) == pytest.approx([2 * number for number in find_numbers(before)], rel=1e-5)


def find_numbers(value: object) -> list[float]:
    """The measured values in JSON: those that are not coordinates."""
    if isinstance(value, dict):
        inner = [
            v for name, v in value.items() if name not in ("coordinates", "coords", "geometry", "crs", "bbox")
        ]
        return [number for v in inner for number in find_numbers(v)]
    if isinstance(value, list):
        return [number for v in value for number in find_numbers(v)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_structured_data(connection: openeo.Connection, plain: xr.Dataset) -> None:
    cube = load(connection, ["B04"])
    node = cube.process("run_udf", data=cube, udf=TOTAL, runtime="python", version="latest")
    result = node.execute()
    assert result["dims"] == ["t", "bands", "y", "x"]
    assert result["max"] == pytest.approx(float(plain.B04.max()))


def test_errors_show_the_line_of_the_user(connection: openeo.Connection, tmp_path: Path) -> None:
    cube = load(connection, ["B04"]).apply(openeo.UDF(BROKEN))
    with pytest.raises(OpenEoApiError) as caught:
        netcdf(cube, tmp_path / "broken.nc")
    assert caught.value.code == "UdfFailed"
    assert "no_such_method" in str(caught.value)
    assert "line 5" in str(caught.value)
    job = cube.save_result("netCDF").create_job()
    with pytest.raises(openeo.rest.JobFailedException):
        job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    text = json.dumps(job.logs(level="error"))
    assert "return helper(cube)" in text
    assert "odc_openeo" not in text


def test_code_from_files_and_unknown_runtimes(connection: openeo.Connection, tmp_path: Path) -> None:
    path = tmp_path / "total.py"
    path.write_text(TOTAL)
    connection.upload_file(path, "functions/total.py")
    cube = load(connection, ["B04"])
    arguments = {"data": cube, "udf": "functions/total.py"}
    assert cube.process("run_udf", **arguments, runtime="Python").execute()["max"] > 0
    for more, code in (({"runtime": "R"}, "InvalidRuntime"), ({"version": "2.7"}, "InvalidVersion")):
        with pytest.raises(OpenEoApiError) as caught:
            cube.process("run_udf", **arguments, **{"runtime": "Python", **more}).execute()
        assert caught.value.code == code
    with pytest.raises(OpenEoApiError) as caught:
        cube.process("run_udf", data=cube, udf="functions/none.py", runtime="Python").execute()
    assert caught.value.code == "FileNotFound"


NUMBER_OF_ARCHIVE = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    with open("deps/number.txt") as file:
        data.set_structured_data_list([StructuredData(int(file.read()))])
"""


def test_archives_of_requests_and_jobs(connection: openeo.Connection, tmp_path: Path) -> None:
    packed = tmp_path / "number.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        info = tarfile.TarInfo("number.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"200"))
    connection.upload_file(packed, "functions/number.tar.gz")
    options = {"udf-dependency-archives": ["functions/number.tar.gz#deps"]}
    arguments = {"data": 0, "udf": NUMBER_OF_ARCHIVE, "runtime": "Python"}
    number = {"it": {"process_id": "run_udf", "arguments": arguments, "result": True}}
    assert connection.execute(number, job_options=options) == 200
    with pytest.raises(OpenEoApiError, match=r"number\.txt"):
        connection.execute(number)
    job = connection.create_job(number, job_options=options)
    job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    (asset,) = job.get_results().get_assets()
    assert asset.load_json() == 200
