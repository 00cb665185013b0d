"""What is stored in a bucket is loaded again: uploads, results, workspaces, collections, and code."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import rasterio

from odc_openeo import db, jobs
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.graph import evaluate
from odc_openeo.jobs import JobDraft
from odc_openeo.storage import get_storage
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError
from odc_openeo.user_data import files, workspaces
from odc_openeo.user_data.object_copies import ObjectFolder, find_raster_folder
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.user_data.workspaces import WorkspaceDraft
from odc_openeo.users import accounts
from tests.api.conftest import PASSWORD
from tests.catalog.conftest import index
from tests.catalog.scenes import Index, bands_of, scene
from tests.storage.conftest import InBucket
from tests.storage.test_jobs_in_bucket import make_graph, run_here
from tests.support import bucket_server

__all__ = ["index"]


@pytest.fixture
def config(odc_config: Config, index: Index, in_bucket: InBucket, tmp_path: Path) -> Config:
    index.add(scene(tmp_path / "scene", 1, "2022-06-01T10:00:00Z"))
    return in_bucket(odc_config)


def load(config: Config, user: UUID, graph: dict[str, Any]) -> Any:
    catalog = Catalog(config)
    try:
        env = make_environment(config, user, catalog=catalog)
        return evaluate({"process_graph": {"n": {**graph, "result": True}}}, env).compute(scheduler="sync")
    finally:
        catalog.close()


def test_exports_and_results_are_loaded(config: Config, tmp_path: Path) -> None:
    user = accounts.create_user(config, "ada", PASSWORD).id
    workspace = workspaces.create_workspace(config, user, WorkspaceDraft()).id
    graph = make_graph()
    graph["save"]["result"] = False
    graph["stac"] = {
        "process_id": "export_workspace",
        "arguments": {"data": {"from_node": "save"}, "workspace": workspace, "merge": "maps"},
    }
    graph["own"] = {
        "process_id": "export_collection",
        "arguments": {"data": {"from_node": "stac"}, "collection": "mine"},
        "result": True,
    }
    id_ = str(jobs.create_job(config, user, JobDraft({"process_graph": graph})))
    jobs.start_job(config, user, id_)
    run_here(config, id_, tmp_path / "run")
    address = f"{config.root_url}/openeo/1.3"
    expected = np.stack([bands_of(1)["B04"][1], bands_of(1)["B08"][1]])
    for process in (
        {"process_id": "load_stac", "arguments": {"url": f"{address}/jobs/{id_}/results"}},
        {
            "process_id": "load_stac",
            "arguments": {"url": f"{address}/workspaces/{workspace}/files/maps/collection.json"},
        },
        {
            "process_id": "load_collection",
            "arguments": {"id": "mine", "spatial_extent": None, "temporal_extent": None},
        },
    ):
        cube = load(config, user, process)
        np.testing.assert_array_equal(np.squeeze(cube.transpose("t", "bands", "y", "x")), expected)


def test_uploads_and_code_are_loaded(config: Config, tmp_path: Path) -> None:
    user = accounts.create_user(config, "ada", PASSWORD).id
    values = np.arange(16, dtype="uint8").reshape(1, 4, 4)
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    transform = rasterio.transform.from_origin(0, 40, 10, 10)
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=transform) as file:
        file.write(values)
    with (tmp_path / "a.tif").open("rb") as stream:
        files.receive_file(config, str(user), "maps/a.tif", stream, None)
    process = {"process_id": "load_uploaded_files", "arguments": {"paths": ["maps/a.tif"], "format": "GTiff"}}
    np.testing.assert_array_equal(np.squeeze(load(config, user, process)), values[0])
    point = {"type": "Point", "coordinates": [1.0, 2.0]}
    files.receive_file(config, str(user), "p.json", io.BytesIO(json.dumps(point).encode()), None)
    process = {"process_id": "load_uploaded_files", "arguments": {"paths": ["p.json"], "format": "GeoJSON"}}
    assert load(config, user, process) is not None


def test_folders_of_a_bucket_travel_without_keys(config: Config, tmp_path: Path) -> None:
    """To dask workers on machines that do not have the folder of the service."""
    storage = get_storage(config)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8"
    ) as file:
        file.write(np.full((1, 2, 2), 7, "uint8"))
    storage.put(tmp_path / "a.tif", "results/1/a.tif")
    storage.put(tmp_path / "a.tif", "results/2/secret.tif")
    folder = find_raster_folder(config, storage, "results/1")
    assert isinstance(folder, ObjectFolder)
    pickled = pickle.dumps(folder)
    for secret in (bucket_server.KEY, bucket_server.SECRET):
        assert secret.encode() not in pickled
    other: ObjectFolder = pickle.loads(pickled)
    other = ObjectFolder(other.bucket, other.key, Path("/proc/nothing/can/be/made/here"))
    with other.expose(str(other.root / "a.tif")) as name, rasterio.open(name) as file:
        assert (file.read() == 7).all()
    for href in (
        "../2/secret.tif",
        "nothing.tif",
        "",
        "/etc/passwd",
        str(other.root.parent / "2/secret.tif"),
    ):
        path = href if href.startswith("/") else f"{other.root}/{href}"
        with pytest.raises(RasterRefusedError), other.expose(path):
            pass
    assert isinstance(
        find_raster_folder(Config(data_dir=tmp_path), get_storage(Config(data_dir=tmp_path)), "x"),
        LocalFolder,
    )
    db.dispose_engine(config)
