"""The second wall: in each kind of process GDAL can open nothing that refers to other files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import rasterio
from odc.loader.types import RasterBandMetadata, RasterSource
from rasterio.transform import from_origin

from odc_openeo.compute import cluster
from odc_openeo.config import Config, child_environment
from odc_openeo.evaluation.lanes import prepare_runner
from odc_openeo.load.driver import Driver
from odc_openeo.runners import Lane, RunnerPool
from odc_openeo.stack import doctor
from odc_openeo.untrusted import gdal_drivers
from tests.runners import tasks

SECRET = 137


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A raster of somebody else."""
    path = tmp_path / "secret.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", crs="EPSG:32632", transform=from_origin(600_000, 5_200_000, 10, 10), **profile
    ) as file:
        file.write(np.full((1, 4, 4), SECRET, "uint8"))
    return path


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerPool]:
    """A runner as those of the service."""
    config = Config(data_dir=tmp_path_factory.mktemp("runners"))
    pool = RunnerPool(config, Lane("test", 1, 1, 1, 1, prepare=prepare_runner))
    yield pool
    pool.stop()


def open_in(pool: RunnerPool, name: str) -> str:
    """A pixel, or the kind of error."""
    return str(pool.run(tasks.open_raster, name, user="ada", seconds=120))


def vrt(path: object) -> str:
    return (
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{path}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def raw_vrt(path: object) -> str:
    return (
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename>{path}</SourceFilename></VRTRasterBand></VRTDataset>'
    )


WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service><DataWindow>'
    "<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0"
    "</LowerRightY><SizeX>4</SizeX><SizeY>4</SizeY></DataWindow></GDAL_WMS>"
)
WMTS = "<GDAL_WMTS><GetCapabilitiesUrl>http://127.0.0.1:9/</GetCapabilitiesUrl></GDAL_WMTS>"
WCS = "<WCS_GDAL><ServiceURL>http://127.0.0.1:9/</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>"
GTI = "<GDALTileIndexDataset><IndexDataset>{}</IndexDataset></GDALTileIndexDataset>"
MRF = "<MRF_META><CachedSource><Source>{}</Source></CachedSource><Raster><Size x='4'/></Raster></MRF_META>"
STACIT = (
    '{{"stac_version":"1.0.0","type":"FeatureCollection","features":[{{"assets":{{"a":{{"href":"{}"}}}}}}]}}'
)
GEOJSON = '{"type":"FeatureCollection","features":[]}'
PDS4 = "<Product_Observational><File><file_name>{}</file_name></File></Product_Observational>"

CONTENTS = {
    "VRT": vrt,
    "raw VRT": raw_vrt,
    "GTI": GTI.format,
    "WMS": lambda path: WMS,
    "WMTS": lambda path: WMTS,
    "WCS": lambda path: WCS,
    "MRF": MRF.format,
    "STACIT": STACIT.format,
    "GeoJSON": lambda path: GEOJSON,
    "PDS4": PDS4.format,
}
NAMES = {
    "derived": "DERIVED_SUBDATASET:LOGAMPLITUDE:{}",
    "STACTA": "STACTA:{}",
    "STACIT": 'STACIT:"{}"',
    "GTI": "GTI:{}",
    "WMS": "WMS:http://127.0.0.1:9/",
    "WMTS": "WMTS:http://127.0.0.1:9/",
    "EEDAI": "EEDAI:projects/x",
    "PLMosaic": "PLMOSAIC:mosaic=x",
    "vrt://": "vrt://{}?bands=1",
    "Zarr": 'ZARR:"{}"',
    "GeoJSON by URL": "GeoJSON:http://127.0.0.1:9/",
    "SQLite": "SQLITE:{}",
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("by", ["name", "content"])
def test_documents_that_refer_to_files(
    runners: RunnerPool, kind: str, by: str, secret: Path, tmp_path: Path
) -> None:
    """By any name and in any file, with no driver named: this wall alone."""
    document = CONTENTS[kind](secret)
    target = document
    if by == "content":
        (tmp_path / "attack.tif").write_text(document)
        target = str(tmp_path / "attack.tif")
    assert not open_in(runners, target).startswith("opened")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_names_of_other_drivers(runners: RunnerPool, name: str, secret: Path) -> None:
    assert not open_in(runners, name.format(secret)).startswith("opened")


def test_only_self_contained_formats_remain(runners: RunnerPool) -> None:
    # Again and again, in environments and threads of their own.
    drivers = runners.run(tasks.list_gdal_drivers, user="ada", seconds=120)
    assert drivers - {"VRT"} <= gdal_drivers.SELF_CONTAINED
    assert {"GTiff", "netCDF"} <= drivers


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    environment = child_environment(None, **variables)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_self_test_notices_an_open_gdal() -> None:
    code = "from odc_openeo.untrusted.gdal_drivers import verify_gdal_is_closed; verify_gdal_is_closed()"
    done = run_python(code)
    assert done.returncode
    assert "GdalIsOpenError" in done.stderr
    # With the registered drivers taken away, but VRT's left to come back.
    skipping = (
        "import rasterio; from odc_openeo.untrusted import gdal_drivers as g;"
        "e = rasterio.Env(); e.__enter__();"
        "gdal = g.load_gdal(); names = g.list_drivers() - g.SELF_CONTAINED;"
        "gdal.CPLSetConfigOption(b'GDAL_SKIP', ','.join(names).encode());"
        "[gdal.GDALDeregisterDriver(gdal.GDALGetDriverByName(n.encode())) for n in names];"
        "g.verify_gdal_is_closed()"
    )
    done = run_python(skipping)
    assert done.returncode
    assert "after opening a warped raster" in done.stderr


@pytest.mark.parametrize(("names", "opens"), [("", False), ("GTI", False), ("VRT, GTI", True)])
def test_an_operator_may_allow_drivers(names: str, opens: bool, secret: Path) -> None:
    code = (
        "import rasterio; from odc_openeo.config import allowed_gdal_drivers as allowed;"
        "from odc_openeo.untrusted.gdal_drivers import secure_gdal; secure_gdal(allowed());"
        f"print(rasterio.open('''{vrt(secret)}''').read(1)[0, 0])"
    )
    done = run_python(code, ODC_OPENEO_GDAL_DRIVERS=names)
    assert (str(SECRET) in done.stdout) is opens
    assert bool(done.returncode) is not opens


def test_doctor_shows_allowed_drivers(odc_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    by_part = {f.part: f for f in doctor.run_checks(odc_config) if f.part == "GDAL"}
    assert by_part["GDAL"].good
    assert not by_part["GDAL"].is_warning
    monkeypatch.setenv("ODC_OPENEO_GDAL_DRIVERS", "VRT")
    warnings = [f.text for f in doctor.run_checks(odc_config) if f.is_warning]
    assert any("VRT" in text for text in warnings)


def test_files_are_read(runners: RunnerPool, secret: Path) -> None:
    assert open_in(runners, str(secret)) == f"opened {SECRET}"


@pytest.fixture
def scheduler(tmp_path: Path) -> Any:
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as local:
        yield local.scheduler_address


def start_worker(command: list[str], scheduler: str, folder: Path) -> subprocess.Popen[bytes]:
    options = [scheduler, "--nworkers", "1", "--nthreads", "1", "--local-directory", str(folder)]
    options += ["--no-dashboard", "--host", "127.0.0.1"]
    return subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_dask_workers(kind: str, scheduler: str, secret: Path, tmp_path: Path) -> None:
    """Ours are closed and known as such; plain ones are closed by the first of our tasks, and warned of."""
    command = {
        "ours": [sys.executable, "-m", "odc_openeo.cli", "dask-worker"],
        "plain": [sys.executable, "-m", "dask", "worker"],
    }
    config = Config(data_dir=tmp_path, dask_scheduler=scheduler)
    worker = start_worker(command[kind], scheduler, tmp_path)
    try:
        with distributed.Client(scheduler) as client:
            client.wait_for_workers(1, timeout=240)
            if kind == "plain":
                client.submit(_read_a_scene, str(secret), pure=False).result(timeout=240)
            assert (
                client.submit(tasks.open_raster, None, vrt(secret), pure=False).result(timeout=240)
                == "RasterioIOError"
            )
            assert (
                client.submit(tasks.open_raster, None, str(secret)).result(timeout=240) == f"opened {SECRET}"
            )
            environment = client.submit(_read_environment, pure=False).result(timeout=240)
        warning = cluster.find_warning(config)
        if kind == "ours":
            assert warning is None
            assert environment["OMP_NUM_THREADS"] == "1"
            assert environment["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
        else:
            assert warning is not None
            assert "odc-openeo dask-worker" in warning
    finally:
        cluster.close(config)
        worker.terminate()
        worker.wait(120)


def _read_a_scene(path: str) -> None:
    """As tasks of loads do."""
    place = {"dataset": "d", "name": "b", "band": 1, "layer": None, "nodata": None}
    source = RasterSource(path, 1, meta=RasterBandMetadata("uint8", None, "1"), driver_data=place)
    driver = Driver()
    with contextlib.suppress(AttributeError, TypeError):
        driver.open(source, driver.new_load(None) if hasattr(driver, "new_load") else None)


def _read_environment() -> dict[str, str]:
    return dict(os.environ)
