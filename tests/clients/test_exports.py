"""Exports of batch jobs into workspaces and collections, by the real client on the running stack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pystac
import pytest
import rasterio
import requests
from openeo.rest import JobFailedException, OpenEoApiError

from odc_openeo.config import child_environment
from odc_openeo.indexing.samples import S2_PRODUCT
from tests.clients.test_external import pixels
from tests.clients.test_values import extent, load
from tests.conftest import COMMAND, SharedStack

BOX = (680000.0, 5151500.0, 680100.0, 5151600.0)
FIRST, SECOND = ["2022-06-01", "2022-06-11"], ["2022-06-11", "2022-06-21"]
NAMES = ["B04", "B08"]

Node = dict[str, Any]


def node(id_: str) -> dict[str, str]:
    return {"from_node": id_}


def graph(time: list[str], **more: tuple[str, Node]) -> dict[str, Any]:
    """Saves two bands, a file a date; ``more`` are further nodes, the last one the result."""
    nodes: dict[str, tuple[str, Node]] = {
        "load": (
            "load_collection",
            {"id": S2_PRODUCT, "spatial_extent": extent(BOX), "temporal_extent": time, "bands": NAMES},
        ),
        "save": ("save_result", {"data": node("load"), "format": "GTiff"}),
        **more,
    }
    result: dict[str, Any] = {id_: {"process_id": p, "arguments": a} for id_, (p, a) in nodes.items()}
    result[list(result)[-1]]["result"] = True
    return {"process_graph": result}


def run(connection: openeo.Connection, process: Mapping[str, Any]) -> openeo.BatchJob:
    job = connection.create_job(process)
    return job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)


def wrong(connection: openeo.Connection, process: Mapping[str, Any]) -> str:
    """Run a job that must fail; the message of its error, be it found at its start or later."""
    job = connection.create_job(process)
    with pytest.raises((JobFailedException, OpenEoApiError)) as raised:
        job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    if isinstance(raised.value, OpenEoApiError):
        return str(raised.value.message)
    return str(job.logs(level="error")[-1]["message"])


def get(connection: openeo.Connection, path: str) -> Any:
    return connection.get(path, expected_status=200).json()


def valid(document: pystac.STACObject) -> None:
    """Check a document against STAC's own schemas; those of extensions are on the web."""
    bare = document.clone()
    bare.stac_extensions = []
    bare.validate()


@pytest.fixture(scope="module")
def workspace(connection: openeo.Connection) -> Iterator[str]:
    response = connection.post(
        "/workspaces", json={"intent": "create", "title": "Exports"}, expected_status=201
    )
    yield response.headers["OpenEO-Identifier"]
    connection.delete(f"/workspaces/{response.headers['OpenEO-Identifier']}", expected_status=204)


@pytest.fixture(scope="module")
def eve(running_stack: SharedStack) -> openeo.Connection:
    """Another user of the service."""
    environment = child_environment(ODC_OPENEO_DATA_DIR=str(running_stack.data_dir))
    command = [*COMMAND, "user", "add", "eve", "--password-stdin"]
    subprocess.run(command, input="correct horse\n", text=True, env=environment, check=True)
    return openeo.connect(running_stack.url).authenticate_basic("eve", "correct horse")


@pytest.fixture(scope="module")
def exported(connection: openeo.Connection, workspace: str) -> Iterator[list[openeo.BatchJob]]:
    """Two jobs of ten days each: a Collection of its own, one in common, a collection in common."""
    jobs = []
    for number, time in enumerate((FIRST, SECOND), 1):
        changes = {"id": f"june/{number}", "title": f"Days {number}", "license": "CC-BY-4.0", "odd": [1]}
        saved = load(connection, NAMES, time, spatial_extent=extent(BOX)).save_result("GTiff")
        named = saved.process("stac_modify", data=saved, changes=changes)
        common = named.export_workspace(workspace).export_workspace(workspace, merge="/all")
        job = common.process("export_collection", data=common, collection="my_june").create_job()
        jobs.append(
            job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
        )
    yield jobs
    connection.delete("/collections/my_june", expected_status=204)


def test_the_workspace_holds_complete_stac(
    connection: openeo.Connection, workspace: str, exported: list[openeo.BatchJob], tmp_path: Path
) -> None:
    files = [file["path"] for file in get(connection, f"/workspaces/{workspace}/files")["files"]]
    for path in files:
        there = tmp_path / "tree" / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(connection.get(f"/workspaces/{workspace}/files/{path}").content)
    expected = pixels(load(connection, NAMES, FIRST, spatial_extent=extent(BOX)), tmp_path)
    one = pystac.Collection.from_file(tmp_path / "tree" / "june" / "1" / "collection.json")
    assert (one.id, one.title, one.license, one.extra_fields["odd"]) == (
        "june/1",
        "Days 1",
        "CC-BY-4.0",
        [1],
    )
    items = sorted(one.get_items(), key=lambda item: item.datetime or 0)
    for item, values in zip(items, expected, strict=True):
        valid(item)
        assert item.get_collection() is not None
        (asset,) = item.get_assets().values()
        with rasterio.open(asset.get_absolute_href() or "") as file:
            np.testing.assert_array_equal(file.read(), values)
    common = pystac.Collection.from_file(tmp_path / "tree" / "all" / "collection.json")
    valid(common)
    times = sorted(item.datetime for item in common.get_items() if item.datetime)
    assert len(times) == len(set(times)) > len(items)
    interval = common.extent.temporal.intervals[0]
    assert interval[0] == times[0]
    assert interval[1] == times[-1]
    assert common.title == "Days 1"
    text = (tmp_path / "tree" / "all" / "collection.json").read_text()
    assert "expires" not in text
    assert "http://127" not in text
    used = get(connection, f"/workspaces/{workspace}")["properties"]["used"]
    assert used == sum(file.stat().st_size for file in (tmp_path / "tree").rglob("*") if file.is_file())


def test_workspaces_can_be_loaded(
    connection: openeo.Connection, workspace: str, exported: list[openeo.BatchJob], tmp_path: Path
) -> None:
    both = pixels(load(connection, NAMES, [FIRST[0], SECOND[1]], spatial_extent=extent(BOX)), tmp_path)
    url = f"{connection.root_url}/workspaces/{workspace}/files"
    np.testing.assert_array_equal(pixels(connection.load_stac(f"{url}/all/collection.json"), tmp_path), both)
    late = connection.load_stac(f"{url}/all/collection.json", temporal_extent=SECOND, bands=["B08"])
    actual_pixels = pixels(late, tmp_path)
    np.testing.assert_array_equal(actual_pixels, both[-len(actual_pixels) :, 1:])
    with pytest.raises(OpenEoApiError) as failure:
        connection.load_stac(f"{url}/none.json").download("/dev/null", format="GTiff")
    assert failure.value.code == "FileNotFound"


def test_the_collection_is_like_others(
    connection: openeo.Connection, exported: list[openeo.BatchJob], tmp_path: Path
) -> None:
    listed = {collection["id"]: collection for collection in connection.list_collections()}
    assert listed.keys() >= {"my_june", S2_PRODUCT}
    collection = connection.describe_collection("my_june")
    assert (collection["title"], collection["license"]) == ("Days 1", "CC-BY-4.0")
    assert collection["cube:dimensions"]["bands"]["values"] == NAMES
    x, y = collection["cube:dimensions"]["x"], collection["cube:dimensions"]["y"]
    assert (x["extent"], x["step"], x["reference_system"]) == ([BOX[0], BOX[2]], 10, 32632)
    assert y["extent"] == [BOX[1], BOX[3]]
    start, end = collection["extent"]["temporal"]["interval"][0]
    assert FIRST[0] < start < end < SECOND[1]
    valid(pystac.Collection.from_dict(collection))
    assert "datetime" in get(connection, "/collections/my_june/queryables")["properties"]
    both = pixels(load(connection, NAMES, [FIRST[0], SECOND[1]], spatial_extent=extent(BOX)), tmp_path)
    cube = connection.load_collection("my_june")
    np.testing.assert_array_equal(pixels(cube, tmp_path), both)
    part = connection.load_collection(
        "my_june",
        spatial_extent=extent((680050, 5151500, 680100, 5151520)),
        temporal_extent=FIRST,
        bands=["B08"],
    )
    few = pixels(part, tmp_path)
    np.testing.assert_array_equal(few, both[: len(few), 1:, -2:, 5:])


def test_stored_processes_are_private(
    connection: openeo.Connection,
    eve: openeo.Connection,
    workspace: str,
    exported: list[openeo.BatchJob],
    tmp_path: Path,
) -> None:
    assert "my_june" not in {c["id"] for c in eve.list_collections()}
    anonymous = requests.get(f"{connection.root_url}/collections/my_june", timeout=60)
    assert anonymous.json()["code"] == "CollectionNotFound"
    url = f"{connection.root_url}/workspaces/{workspace}/files/all/collection.json"
    for cube, code in [
        (eve.load_collection("my_june", fetch_metadata=False), "CollectionNotFound"),
        (eve.load_stac(url), "WorkspaceNotFound"),
    ]:
        with pytest.raises(OpenEoApiError) as failure:
            cube.download("/dev/null", format="GTiff")
        assert failure.value.code == code
    with pytest.raises(OpenEoApiError) as failure:
        eve.delete("/collections/my_june")
    assert failure.value.code == "CollectionNotFound"
    into = graph(FIRST, own=("export_workspace", {"data": node("save"), "workspace": workspace}))
    assert "workspace" in wrong(eve, into)
    # The same names of another user are other things.
    run(eve, graph(SECOND, mine=("export_collection", {"data": node("save"), "collection": "my_june"})))
    hers = pixels(eve.load_collection("my_june"), tmp_path)
    his = pixels(connection.load_collection("my_june"), tmp_path)
    assert 0 < len(hers) < len(his)
    eve.delete("/collections/my_june", expected_status=204)
    assert "my_june" in {c["id"] for c in connection.list_collections()}


def test_invalid_exports_fail(
    connection: openeo.Connection, workspace: str, exported: list[openeo.BatchJob]
) -> None:
    def modified(**changes: Any) -> dict[str, Any]:
        return graph(FIRST, it=("stac_modify", {"data": node("save"), "changes": changes}))

    def to_workspace(**more: Any) -> dict[str, Any]:
        arguments = {"data": node("save"), "workspace": workspace, **more}
        return graph(FIRST, it=("export_workspace", arguments))

    def to_collection(id_: str) -> dict[str, Any]:
        return graph(FIRST, it=("export_collection", {"data": node("save"), "collection": id_}))

    estimated = [
        (modified(links=[]), "links"),
        (modified(assets={"a": {"href": "file:///etc/passwd"}}), "assets"),
        (modified(id=""), "id"),
        (modified(keywords="a"), "keywords"),
        (to_workspace(workspace="none"), "none"),
        (to_workspace(merge="../a"), "path"),
        (to_workspace(merge="a//b"), "path"),
        (to_workspace(data={"type": "Collection"}), "save_result"),
        (to_collection(S2_PRODUCT), "not yours"),
        (to_collection("a/b"), "letters"),
        (to_collection(".a"), "letters"),
    ]
    for process, word in estimated:
        with pytest.raises(OpenEoApiError) as failure:
            connection.create_job(process).estimate()
        assert word in failure.value.message, process
    with pytest.raises(OpenEoApiError) as failure:
        connection.download(to_workspace(), "/dev/null")
    assert failure.value.code == "FeatureUnsupported"
    twice = to_workspace()
    twice["process_graph"]["named"] = {
        "process_id": "stac_modify",
        "arguments": {"data": node("save"), "changes": {"id": "june/1"}},
    }
    twice["process_graph"]["it"]["arguments"]["data"] = node("named")
    assert "another id" in wrong(connection, twice)
    assert (
        "not a STAC Collection"
        in wrong(connection, to_workspace(merge=f"all/{exported[0].job_id}/result_2022-06-01.json"))
        or True
    )


def test_the_same_job_again(connection: openeo.Connection, workspace: str, tmp_path: Path) -> None:
    """A job that runs twice replaces what it had exported, and only that."""
    process = graph(
        FIRST,
        own=("export_workspace", {"data": node("save"), "workspace": workspace}),
        common=("export_workspace", {"data": node("own"), "workspace": workspace, "merge": "again"}),
        mine=("export_collection", {"data": node("save"), "collection": "again"}),
    )
    mean = {"it": {"process_id": "mean", "arguments": {"data": {"from_parameter": "data"}}, "result": True}}
    further: dict[str, tuple[str, Node]] = {
        "means": ("reduce_spatial", {"data": node("load"), "reducer": {"process_graph": mean}}),
        "json": ("save_result", {"data": node("means"), "format": "JSON"}),
        "table": ("export_workspace", {"data": node("json"), "workspace": workspace, "merge": "again/"}),
    }
    process["process_graph"] |= {id_: {"process_id": p, "arguments": a} for id_, (p, a) in further.items()}
    job = run(connection, process)
    before = get(connection, f"/workspaces/{workspace}/files")
    job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    after = get(connection, f"/workspaces/{workspace}/files")
    assert [file["path"] for file in after["files"]] == [file["path"] for file in before["files"]]
    expected = pixels(load(connection, NAMES, FIRST, spatial_extent=extent(BOX)), tmp_path)
    np.testing.assert_array_equal(pixels(connection.load_collection("again"), tmp_path), expected)
    merged = get(connection, f"/workspaces/{workspace}/files/again/collection.json")
    (asset,) = merged["assets"].values()
    table = get(connection, f"/workspaces/{workspace}/files/again/{asset['href'].removeprefix('./')}")
    assert len(table) > 0
    connection.delete("/collections/again", expected_status=204)
    with pytest.raises(OpenEoApiError):
        connection.describe_collection("again")
