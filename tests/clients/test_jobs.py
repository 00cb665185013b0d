"""Batch jobs by the real `openeo` client on the running stack."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import cf_xarray  # noqa: F401
import numpy as np
import openeo
import pandas as pd
import pystac
import pytest
import rasterio
import requests
import rioxarray  # noqa: F401
import xarray as xr
from openeo.extra.job_management import CsvJobDatabase, MultiBackendJobManager
from PIL import Image
from rio_cogeo import cog_validate

from odc_openeo.indexing.samples import S2_PRODUCT
from tests.clients import truth
from tests.clients.test_values import BOX, JUNE, extent, load


@pytest.fixture(scope="module")
def june(samples: Path) -> list[truth.Scene]:
    """The scenes that touch the box in June 2022."""
    scenes = truth.scenes(samples / S2_PRODUCT, *JUNE)
    return [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]


@pytest.fixture(scope="module")
def finished(connection: openeo.Connection) -> openeo.BatchJob:
    """A job that has finished: two bands of June, a file a date."""
    cube = load(connection, ["B04", "B08"])
    job = cube.save_result("GTiff").create_job(
        title="Raw June", description="As it is", job_options={"note": "kept"}, log_level="debug"
    )
    return job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)


def test_description(finished: openeo.BatchJob, connection: openeo.Connection) -> None:
    description = finished.describe()
    assert description["status"] == "finished"
    assert description["progress"] == 100
    assert description["title"] == "Raw June"
    assert description["description"] == "As it is"
    assert description["job_options"] == {"note": "kept"}
    assert set(description["usage"]) == {"cpu", "duration", "memory", "storage"}
    assert description["usage"]["cpu"]["value"] > 0
    assert description["created"] <= description["queued"] <= description["started"] <= description["updated"]
    listed = {job["id"]: job for job in connection.list_jobs()}
    assert listed[finished.job_id]["status"] == "finished"
    assert "process" not in listed[finished.job_id]


def test_files_are_the_pixels(finished: openeo.BatchJob, june: list, tmp_path: Path) -> None:
    paths = finished.get_results().download_files(tmp_path, include_stac_metadata=True)
    tiffs = sorted(path for path in paths if path.suffix == ".tif")
    assert len(tiffs) == len(june)
    with rasterio.open(tiffs[0]) as file:
        assert file.descriptions == ("B04", "B08")
        expected = [truth.pixels(june[0], band, BOX) for band in ("B04", "B08")]
        np.testing.assert_array_equal(file.read(), expected)
    collection = pystac.Collection.from_dict(finished.get_results().get_metadata())
    collection.stac_extensions = []
    collection.validate()


def test_files_are_cloud_optimized(finished: openeo.BatchJob, tmp_path: Path) -> None:
    for path in finished.get_results().download_files(tmp_path, include_stac_metadata=False):
        valid, errors, _ = cog_validate(path, quiet=True)
        assert valid, errors


def test_thumbnail(finished: openeo.BatchJob) -> None:
    metadata = finished.get_results().get_metadata()
    (link,) = [link for link in metadata["links"] if link["rel"] == "preview"]
    picture = Image.open(io.BytesIO(requests.get(link["href"], timeout=60).content))
    assert (picture.format, max(picture.size) <= 256) == ("PNG", True)
    assert len(set(picture.convert("L").tobytes())) > 10
    assert all(asset["roles"] == ["data"] for asset in metadata["assets"].values())


def test_cubes_open_remotely(connection: openeo.Connection, june: list, tmp_path: Path) -> None:
    """Zarr by its signed link, nothing downloaded; netCDF has the same values and follows CF."""
    cube = load(connection, ["B04", "B08"])
    jobs = [cube.save_result(name).create_job() for name in ("Zarr", "netCDF")]
    zarr, netcdf = (job.start_and_wait(print=lambda _: None).get_results() for job in jobs)
    expected = [truth.pixels(scene, "B04", BOX) for scene in june]
    with xr.open_zarr(zarr.get_asset().href, mask_and_scale=False, decode_coords="all") as dataset:
        np.testing.assert_array_equal(dataset["B04"].values, expected)
        assert dataset.rio.crs.to_epsg() == 32632
    path = netcdf.download_file(tmp_path / "cube.nc")
    with xr.open_dataset(path, decode_coords="all", mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset["B04"].values, expected)
        assert dataset.cf.axes.keys() >= {"X", "Y", "T"}
        assert dataset.attrs["Conventions"].startswith("CF-1.")
        assert dataset.cf.grid_mapping_names
    for results in (zarr, netcdf):
        collection = pystac.Collection.from_dict(results.get_metadata())
        collection.stac_extensions = []
        collection.validate()


def test_several_outputs_are_several_files(connection: openeo.Connection) -> None:
    cube = load(connection, ["B04"])
    job = connection.create_job([cube.save_result("GTiff"), cube.save_result("netCDF")]).start_and_wait(
        print=lambda _: None
    )
    kinds = {asset.metadata["type"].split(";")[0] for asset in job.get_results().get_assets()}
    assert kinds == {"image/tiff", "application/x-netcdf"}


def test_stac(finished: openeo.BatchJob) -> None:
    metadata = finished.get_results().get_metadata()
    assert metadata["type"] == "Collection"
    assert metadata["openeo:status"] == "finished"
    canonical = next(link["href"] for link in metadata["links"] if link["rel"] == "canonical")
    signed = requests.get(canonical, timeout=60).json()
    assert signed["assets"].keys() == metadata["assets"].keys()
    items = [link["href"] for link in metadata["links"] if link["rel"] == "item"]
    assert len(items) == len(metadata["assets"])
    for href in items:
        item = pystac.Item.from_dict(requests.get(href, timeout=60).json())
        (asset,) = item.assets.values()
        assert item.properties["proj:code"] == "EPSG:32632"
        assert asset.extra_fields["bands"][0]["statistics"]["maximum"] > 0
        item.stac_extensions = []
        item.validate()
    assert metadata["odc:input_count"] == len(metadata["odc:inputs"]) > 0
    assert metadata["processing:software"]["dask"]
    assert metadata["expires"]


def test_download_by_ranges(finished: openeo.BatchJob) -> None:
    asset = finished.get_results().get_assets()[0]
    head = requests.head(asset.href, timeout=60)
    assert head.status_code == 200
    assert head.headers["Accept-Ranges"] == "bytes"
    size = int(head.headers["Content-Length"])
    whole = requests.get(asset.href, timeout=60)
    assert len(whole.content) == size == asset.metadata["file:size"]
    part = requests.get(asset.href, headers={"Range": "bytes=100-199"}, timeout=60)
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{size}"
    again = requests.get(asset.href, headers={"If-None-Match": head.headers["ETag"]}, timeout=60)
    assert again.status_code == 304
    with rasterio.open(f"/vsicurl/{asset.href}") as file:
        assert file.count == 2


def test_logs(finished: openeo.BatchJob) -> None:
    entries = finished.logs()
    assert all({"id", "level", "message"} <= set(entry) for entry in entries)
    assert entries[-1]["usage"]["duration"]["value"] > 0
    nodes = [entry["path"][0]["process_id"] for entry in entries if "path" in entry]
    assert "load_collection" in nodes
    assert finished.logs(level="error") == []
    assert [e["id"] for e in finished.logs(offset=entries[0]["id"])] == [e["id"] for e in entries[1:]]


def test_estimate(connection: openeo.Connection) -> None:
    job = load(connection, ["B04"]).save_result("GTiff").create_job()
    estimate = job.estimate()
    assert estimate["size"] == estimate["input_size"] > 96 * 84 * 2
    job.delete()
    with pytest.raises(openeo.rest.OpenEoApiError, match="JobNotFound"):
        job.describe()


def test_inspect_and_failure(connection: openeo.Connection) -> None:
    loaded = load(connection, ["B04"])
    cube = loaded.process("inspect", data=loaded, message="look", level="warning")
    # Which labels trimming leaves is only known once the pixels are read, so nothing can be said before.
    trimmed = cube.process("trim_cube", data=cube)
    job = trimmed.process("drop_dimension", data=trimmed, name="nonsense").create_job()
    job.start()
    while job.status() in ("queued", "running"):
        time.sleep(0.2)
    assert job.status() == "error"
    entries = {entry["message"]: entry for entry in job.logs()}
    assert entries["look"]["path"][0]["process_id"] == "inspect"
    assert entries["look"]["data"]["data type"] == "uint16"
    (error,) = job.logs(level="error")
    assert error["code"] == "DimensionNotAvailable"
    answer = connection.get(f"/jobs/{job.job_id}/results", check_error=False)
    assert answer.status_code == 424
    assert answer.json()["message"] == error["message"]


def test_cancel(connection: openeo.Connection) -> None:
    job = load(connection, ["B04"], ["2022-01-01", "2023-01-01"], spatial_extent=extent(BOX)).create_job()
    job.start()
    job.stop()
    assert job.status() in ("created", "canceled")
    job.delete()


def test_job_manager_with_20_jobs(connection: openeo.Connection, stack: str, tmp_path: Path) -> None:
    manager = MultiBackendJobManager(poll_sleep=0.5, root_dir=tmp_path)
    # The manager makes its connection repeat failed requests for ever, which no other test should do.
    separate_connection = openeo.connect(stack).authenticate_basic("demo", "demo")
    manager.add_backend("here", connection=separate_connection, parallel_jobs=20)
    frame = pd.DataFrame({"x": range(20)})
    database = CsvJobDatabase(tmp_path / "jobs.csv").initialize_from_df(frame)

    def start(row: pd.Series, connection: openeo.Connection, **_) -> openeo.BatchJob:
        graph = {"add": {"process_id": "add", "arguments": {"x": int(row["x"]), "y": 100}, "result": True}}
        return connection.create_job({"process_graph": graph}, title=f"sum {row['x']}")

    begun = time.monotonic()
    thread = threading.Thread(target=manager.run_jobs, kwargs={"start_job": start, "job_db": database})
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    print(f"20 jobs in {time.monotonic() - begun:.1f} s")
    done = database.read()
    assert set(done["status"]) == {"finished"}
    for id_, x in zip(done["id"], done["x"], strict=True):
        (asset,) = connection.job(id_).get_results().get_assets()
        assert asset.load_json() == x + 100
