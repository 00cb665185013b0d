"""Jobs in parts by the Python client, with results in a bucket: workers share no disk with the service."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pytest
import rasterio
import xarray as xr

from odc_openeo.app import create_app
from odc_openeo.storage import get_storage
from tests.parts.jobs.site import PartsSite, compute_expected, reduce_graph
from tests.storage.conftest import InBucket, environment, gate, in_bucket, store
from tests.support.http_service import serve_application

__all__ = ["environment", "gate", "in_bucket", "store"]


@pytest.fixture
def bucket_site(parts_site: PartsSite, in_bucket: InBucket) -> PartsSite:
    """The service with its results in a bucket."""
    return replace(parts_site, config=in_bucket(parts_site.config))


def test_the_client_gets_results_of_parts_from_a_bucket(bucket_site: PartsSite, tmp_path: Path) -> None:
    machine = bucket_site.config.model_copy(update={"data_dir": tmp_path / "machine"})
    worker = bucket_site.start_worker("--parts", config=machine)
    files: dict[str, dict[str, Path]] = {}
    try:
        with serve_application(create_app(bucket_site.config)) as address:
            connection = openeo.connect(f"{address}/openeo/1.3").authenticate_basic("ada", "correct horse")
            cases: dict[str, tuple[str, dict[str, Any]]] = {
                "GTiff": ("GTiff", {}),
                "Zarr": ("Zarr", {}),
                "merged": ("netCDF", {"merge": True}),
            }
            if find_spec("icechunk") is not None:
                cases["Icechunk"] = ("Icechunk", {})
            batch = {name: connection.create_job(reduce_graph(*case)) for name, case in cases.items()}
            estimate = batch["GTiff"].estimate()
            assert estimate["parts"] == 6
            assert estimate["hours"] > 0
            for job in batch.values():
                job.start()
            for name, job in batch.items():
                ended = bucket_site.wait(job.job_id, "finished", "error", seconds=300)
                assert ended.status == "finished", (bucket_site.list_messages(job.job_id), worker.output)
                folder = tmp_path / name
                paths = job.get_results().download_files(folder, include_stac_metadata=False)
                files[name] = {path.name: path for path in paths}
            assert batch["GTiff"].describe()["odc:parts"]["done"] == 6
            # It removes what is not needed any more after the job has ended.
            worker.wait_until_idle()
    finally:
        worker.kill()
    expected = compute_expected()
    assert len(files["GTiff"]) == 7
    with rasterio.open(files["GTiff"]["result.vrt"]) as file:
        np.testing.assert_array_equal(file.read(), expected)
    (archive,) = files["Zarr"].values()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "store")
    with xr.open_zarr(tmp_path / "store", mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube["B08"], expected[1])
    if "Icechunk" in files:
        check_repository(files["Icechunk"], tmp_path / "repository", expected[1])
    with xr.open_dataset(files["merged"]["result.nc"], mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube["B04"], expected[0])
    # Nothing is left of what parts have handed to the last one.
    keys = get_storage(bucket_site.config).walk(f"results/{batch['merged'].job_id}")
    assert [key.rpartition("/")[2] for key in keys if "skeleton" not in key] == ["result.nc"]


def check_repository(files: dict[str, Path], folder: Path, expected: np.ndarray) -> None:
    """Check the pixels of a repository that parts have committed to, in the archive of a client."""
    import icechunk

    (archive,) = files.values()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder)))
    messages = [commit.message for commit in repository.ancestry(branch="main")]
    assert messages[0] == "The cube is complete"
    assert sorted(messages[1:7]) == [f"Part {number}" for number in range(1, 7)]
    store = repository.readonly_session("main").store
    with xr.open_zarr(store, consolidated=False, mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube["B08"], expected)
