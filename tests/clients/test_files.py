"""Files through the `openeo` client and the running stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openeo
import pytest
import rasterio
from openeo.rest import OpenEoApiError
from rasterio.transform import from_origin

from tests.conftest import Site


def test_upload_list_download_delete(connection: openeo.Connection, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(9 * 2**20)
    (tmp_path / "big.bin").write_bytes(content)
    sent = connection.upload_file(tmp_path / "big.bin", target="folder/big.bin")
    assert sent.metadata["size"] == len(content), "larger than a JSON body may be"
    listed = {str(f.path): f.metadata for f in connection.list_files()}
    assert listed["folder/big.bin"]["size"] == len(content)
    file = connection.get_file("folder/big.bin")
    assert file.download(tmp_path / "copy.bin").read_bytes() == content
    file.delete()
    assert "folder/big.bin" not in {str(f.path) for f in connection.list_files()}


def load(connection: openeo.Connection, path: str) -> openeo.DataCube:
    return connection.datacube_from_process("load_uploaded_files", paths=[path], format="GTiff")


def test_uploaded_rasters_are_computed_with(connection: openeo.Connection, tmp_path: Path) -> None:
    values = np.arange(2 * 40 * 50, dtype="float32").reshape(2, 40, 50)
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    path = tmp_path / "mine.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=2, height=40, width=50, **grid) as f:
        f.write(values)
    connection.upload_file(path, target="rasters/mine.tif")
    cube = load(connection, "/rasters/mine.tif")
    result = cube.reduce_dimension("bands", reducer="mean")
    assert result.validate() == []
    result.download(tmp_path / "now.tif")
    job = result.create_job(out_format="GTiff")
    assert job.estimate()["input_size"] == values.nbytes
    job.start_and_wait(max_poll_interval=1, show_error_logs=False)
    assets = [a for a in job.get_results().get_assets() if a.key.endswith(".tif")]
    assets[0].download(tmp_path / "later.tif")
    for name in ("now.tif", "later.tif"):
        with rasterio.open(tmp_path / name) as file:
            np.testing.assert_array_equal(file.read(1), values.mean(axis=0))
            assert file.transform == grid["transform"]


def test_files_that_cannot_be_loaded(connection: openeo.Connection, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("no raster")
    connection.upload_file(tmp_path / "bad.tif")
    for path, code in [
        ("bad.tif", "FileContentInvalid"),
        ("no.tif", "FileNotFound"),
        ("../x", "FileNotFound"),
    ]:
        with pytest.raises(OpenEoApiError) as failure:
            load(connection, path).download(tmp_path / "x.tif")
        assert failure.value.code == code


def test_rasters_of_the_web_are_computed_with(
    connection: openeo.Connection, site: Site, tmp_path: Path
) -> None:
    values = np.arange(2000, dtype="float32").reshape(40, 50)
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    path = site.folder / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=1, height=40, width=50, **grid) as f:
        f.write(values, 1)
    cube = connection.datacube_from_process("load_url", url=f"{site.root}/a.tif?token=1", format="GTiff")
    (cube * 2).download(tmp_path / "twice.tif")
    with rasterio.open(tmp_path / "twice.tif") as file:
        np.testing.assert_array_equal(file.read(1), values * 2)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://169.254.169.254/latest/meta-data", "UrlForbidden"),
        ("http://127.0.0.2/x", "UrlForbidden"),
        ("http://127.0.0.1:9/x", "UrlUnreachable"),
        ("file:///etc/passwd", "ProcessParameterInvalid"),
    ],
)
def test_addresses_that_cannot_be_read(connection: openeo.Connection, url: str, code: str) -> None:
    cube = connection.datacube_from_process("load_url", url=url, format="GTiff")
    with pytest.raises(OpenEoApiError) as failure:
        cube.download("/dev/null")
    assert failure.value.code == code
