"""Dates appended to cubes in workspaces, below HTTP: in folders and buckets, by several runs and users."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import xarray as xr

icechunk = pytest.importorskip("icechunk", reason="needs the extra icechunk")

from odc_openeo.config import Config  # noqa: E402
from odc_openeo.errors import (  # noqa: E402
    FeatureUnsupported,
    ProcessParameterInvalid,
    StorageQuotaExceeded,
    WorkspaceNotFound,
)
from odc_openeo.formats import Output, write_outputs  # noqa: E402
from odc_openeo.formats.repositories import open_repository  # noqa: E402
from odc_openeo.storage import get_storage  # noqa: E402
from odc_openeo.storage.repository_places import open_repository_place  # noqa: E402
from odc_openeo.user_data import workspaces  # noqa: E402
from odc_openeo.user_data.stac_export import Package  # noqa: E402
from odc_openeo.user_data.workspaces import WorkspaceDraft, check_place_of_cubes, publish_package  # noqa: E402
from odc_openeo.users import accounts  # noqa: E402
from tests.formats.test_icechunk import make_cube, shift  # noqa: E402
from tests.storage.conftest import InBucket, environment, gate, in_bucket, store  # noqa: E402

__all__ = ["environment", "gate", "in_bucket", "store"]

NAME = "result.icechunk"


def make_run(
    config: Config, run: str, cube: xr.DataArray, folder: Path, *, replaces: bool = False
) -> Package:
    """A run whose result is a cube, ready to be exported."""
    (folder / run).mkdir()
    output = Output.from_data(cube.chunk(), "Icechunk", {"chunk_size": 16})
    (asset,) = write_outputs(None, [output], folder / run)
    get_storage(config).put(asset.path, f"results/{run}/{NAME}")
    times = [f"{time}Z" for time in np.datetime_as_string(cube.t.values[[0, -1]], "s")]
    item = {"assets": {NAME: {"href": f"./{NAME}", "file:size": 9}}, "links": []}
    collection = {
        "type": "Collection",
        "id": run,
        "links": [{"rel": "item", "href": "./result.json"}],
        "assets": {},
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [times]}},
    }
    return Package(run, collection, {"result": item}, f"results/{run}", [NAME], [NAME], replaces)


def read_pixels(config: Config, workspace: workspaces.Workspace, path: str = f"red/{NAME}") -> np.ndarray:
    """The pixels of a cube in a workspace of the service's storage, (t, bands, y, x)."""
    place = open_repository_place(get_storage(config), f"{workspace.folder}/{path}")
    reader = open_repository(place).readonly_session("main").store
    dataset = xr.open_zarr(reader, consolidated=False, mask_and_scale=False, decode_coords="all")
    # Groups list their arrays in any order.
    return dataset.to_dataarray("bands").sortby("bands").transpose("t", "bands", "y", "x").values


def read_json(config: Config, workspace: workspaces.Workspace, path: str) -> Any:
    stream, _ = workspaces.open_file(config, workspace, path)
    with stream:
        return json.load(stream)


def make_workspace(config: Config, user: UUID, **draft: Any) -> workspaces.Workspace:
    id_ = workspaces.create_workspace(config, user, WorkspaceDraft("Cubes", **draft)).id
    return workspaces.get_workspace(config, user, id_)


@pytest.fixture
def ada(config: Config) -> UUID:
    return accounts.create_user(config, "ada", "correct horse").id


def check_growth(config: Config, user: UUID, folder: Path) -> None:
    """Two runs make and extend a cube; what does not fit changes nothing."""
    workspace = make_workspace(config, user)
    first, second = (make_run(config, f"run-{i}", make_cube(2 * i), folder) for i in range(2))
    for package in (first, second, second):
        assert publish_package(config, user, workspace.id, package, "red") == "red/collection.json"
    expected = np.concatenate([make_cube().values, make_cube(2).values])
    np.testing.assert_array_equal(read_pixels(config, workspace), expected)
    collection = read_json(config, workspace, "red/collection.json")
    assert [link["href"] for link in collection["links"]] == ["./run-0/result.json", "./run-1/result.json"]
    assert collection["extent"]["temporal"]["interval"] == [["2022-06-01T10:00:00Z", "2022-06-16T10:00:00Z"]]
    item = read_json(config, workspace, "red/run-1/result.json")
    assert item["assets"] == {NAME: {"href": f"../{NAME}"}}
    assert not [path for path, _ in workspaces.list_files(config, workspace) if f"run-0/{NAME}" in path]
    wrong = make_run(config, "wrong", shift(make_cube(4), y=5), folder)
    with pytest.raises(ProcessParameterInvalid, match=f"'red/{NAME}' in the workspace: .*(GeoTransform|'y')"):
        publish_package(config, user, workspace.id, wrong, "red")
    other = make_run(config, "other", make_cube(1, 2, factor=2), folder)
    with pytest.raises(ProcessParameterInvalid, match="2022-06-06T10:00:00Z, 2022-06-11T10:00:00Z already"):
        publish_package(config, user, workspace.id, other, "red")
    np.testing.assert_array_equal(read_pixels(config, workspace), expected)
    assert not [path for path, _ in workspaces.list_files(config, workspace) if "/wrong/" in path]


def test_runs_extend_a_cube_in_a_folder(config: Config, ada: UUID, tmp_path: Path) -> None:
    check_growth(config, ada, tmp_path)


def test_runs_extend_a_cube_in_a_bucket(
    config: Config, ada: UUID, in_bucket: InBucket, tmp_path: Path
) -> None:
    check_growth(in_bucket(config), ada, tmp_path)


def test_exports_without_merge_are_copies_and_other_stores_are_refused(
    config: Config, ada: UUID, tmp_path: Path
) -> None:
    workspace = make_workspace(config, ada)
    publish_package(config, ada, workspace.id, make_run(config, "run", make_cube(), tmp_path), None)
    np.testing.assert_array_equal(read_pixels(config, workspace, f"run/run/{NAME}"), make_cube().values)
    check_place_of_cubes(config, workspace)
    with pytest.raises(FeatureUnsupported, match="bucket of S3"):
        check_place_of_cubes(config.model_copy(update={"storage_url": "memory://cubes"}), workspace)


def test_users_reach_only_their_own_cubes(config: Config, ada: UUID, tmp_path: Path) -> None:
    eve = accounts.create_user(config, "eve", "correct horse").id
    workspace, room = make_workspace(config, ada), make_workspace(config, eve)
    publish_package(config, ada, workspace.id, make_run(config, "run-0", make_cube(), tmp_path), "red")
    package = make_run(config, "run-1", make_cube(2), tmp_path, replaces=True)
    names = [str(workspace.key), f"../{workspace.key}", f"../../{ada}/{workspace.key}", workspace.folder]
    for name in names:
        with pytest.raises(WorkspaceNotFound):
            publish_package(config, eve, name, package, "red")
    paths = [
        f"../{workspace.key}/red",
        f"../../{ada}/{workspace.key}/red",
        "/../red",
        "red/../../red",
    ]
    for path in paths:
        with pytest.raises(ProcessParameterInvalid, match="can't be used"):
            publish_package(config, eve, room.id, package, path)
    # The folder of the provider may be open to its users by other ways.
    top = get_storage(config).find_local_path(room.folder)
    victim = get_storage(config).find_local_path(workspace.folder)
    assert top is not None
    assert victim is not None
    (top / "red").mkdir(parents=True)
    (top / "red" / NAME).symlink_to(victim / "red" / NAME)
    (top / "blue").symlink_to(victim / "red")
    for path in ("red", "blue"):
        with pytest.raises(ProcessParameterInvalid, match="links"):
            publish_package(config, eve, room.id, package, path)
    np.testing.assert_array_equal(read_pixels(config, workspace), make_cube().values)


def test_quotas_hold_for_what_is_appended(config: Config, ada: UUID, tmp_path: Path) -> None:
    package = make_run(config, "run", make_cube(), tmp_path)
    workspace = make_workspace(config, ada, quota=1000)
    with pytest.raises(StorageQuotaExceeded):
        publish_package(config, ada, workspace.id, package, "red")
    assert workspaces.list_files(config, workspace) == []


def test_runs_at_the_same_time_take_turns(config: Config, ada: UUID, tmp_path: Path) -> None:
    workspace = make_workspace(config, ada)
    publish_package(config, ada, workspace.id, make_run(config, "first", make_cube(), tmp_path), "red")
    cubes = {str(factor): make_cube(1, 3, factor=factor) for factor in range(2, 5)}
    packages = [make_run(config, name, cube, tmp_path, replaces=True) for name, cube in cubes.items()]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda package: publish_package(config, ada, workspace.id, package, "red"), packages))
    stored = read_pixels(config, workspace)
    assert any(np.array_equal(stored[1:], cube.values) for cube in cubes.values())
    place = open_repository_place(get_storage(config), f"{workspace.folder}/red/{NAME}")
    runs = [commit.metadata.get("run") for commit in open_repository(place).ancestry(branch="main")]
    assert sorted(run for run in runs if run) == ["2", "3", "4", "first"]
