"""Exports into workspaces and collections, below HTTP: quotas, object stores, runs at the same time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from odc_openeo.config import Config
from odc_openeo.errors import ProcessParameterInvalid, StorageQuotaExceeded
from odc_openeo.storage import get_storage
from odc_openeo.user_data import collections, workspaces
from odc_openeo.user_data.stac_export import Package, merge_patch
from odc_openeo.user_data.workspaces import WorkspaceDraft, publish_package
from odc_openeo.users import accounts

SIZE = 50


def user(config: Config) -> UUID:
    return accounts.create_user(config, "ada", "correct horse").id


def content(
    config: Config, run: str, *, id_: str | None = None, files: Sequence[str] = ("a.tif",)
) -> Package:
    """Files of a run, each with an Item, ready to be exported."""
    for name in files:
        get_storage(config).write(f"results/{run}/{name}", io.BytesIO(run.encode().ljust(SIZE)))
    stems = [name.partition(".")[0] for name in files]
    collection = {
        "type": "Collection",
        "id": id_ or run,
        "links": [{"rel": "item", "href": f"./{stem}.json"} for stem in stems],
        "assets": {},
        "extent": {
            "spatial": {"bbox": [[int(run), 0, int(run) + 1, 1]]},
            "temporal": {"interval": [[f"2020-01-0{run}T00:00:00Z", f"2020-01-0{run}T00:00:00Z"]]},
        },
    }
    items: dict[str, dict[str, Any]] = {
        stem: {"assets": {name: {"href": f"./{name}"}}, "links": [{"rel": "collection", "href": ""}]}
        for stem, name in zip(stems, files, strict=True)
    }
    return Package(run, collection, items, f"results/{run}", list(files))


def read(config: Config, owner: UUID, id_: str, path: str) -> Any:
    stream, _ = workspaces.open_file(config, workspaces.get_workspace(config, owner, id_), path)
    with stream:
        return json.load(stream)


def paths(config: Config, owner: UUID, id_: str) -> list[str]:
    return [path for path, _ in workspaces.list_files(config, workspaces.get_workspace(config, owner, id_))]


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_merging_at_the_same_time(config: Config, place: str) -> None:
    """All Items are linked, whoever writes when; a run that exports again changes nothing but its own."""
    if place == "memory":
        config = config.model_copy(update={"storage_url": "memory://exports"})
    owner = user(config)
    id_ = workspaces.create_workspace(config, owner, WorkspaceDraft()).id
    runs = [content(config, str(i)) for i in range(1, 7)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            list(pool.map(lambda entry: publish_package(config, owner, id_, entry, "all"), runs))
    cube = read(config, owner, id_, "all/collection.json")
    assert sorted(link["href"] for link in cube["links"]) == [f"./{i}/a.json" for i in range(1, 7)]
    assert cube["extent"] == {
        "spatial": {"bbox": [[1, 0, 7, 1]]},
        "temporal": {"interval": [["2020-01-01T00:00:00Z", "2020-01-06T00:00:00Z"]]},
    }
    assert read(config, owner, id_, "all/3/a.json")["links"] == [
        {"rel": "collection", "href": "../collection.json"}
    ]
    assert len(paths(config, owner, id_)) == 1 + 2 * 6
    workspaces.delete_workspace(config, owner, id_)
    assert get_storage(config).walk(f"workspaces/{owner}") == []


def test_foreign_files_are_not_overwritten(config: Config) -> None:
    owner = user(config)
    id_ = workspaces.create_workspace(config, owner, WorkspaceDraft()).id
    publish_package(config, owner, id_, content(config, "1", id_="maps", files=["a.tif", "b.tif"]), None)
    with pytest.raises(ProcessParameterInvalid, match="another id"):
        publish_package(config, owner, id_, content(config, "2", id_="maps"), None)
    before = paths(config, owner, id_)
    assert before == [
        "maps/1/a.json",
        "maps/1/a.tif",
        "maps/1/b.json",
        "maps/1/b.tif",
        "maps/collection.json",
    ]
    publish_package(config, owner, id_, content(config, "1", id_="maps", files=["a.tif"]), None)
    assert [link["href"] for link in read(config, owner, id_, "maps/collection.json")["links"]] == [
        "./1/a.json"
    ]
    publish_package(config, owner, id_, content(config, "2"), "maps/collection.json")
    links = read(config, owner, id_, "maps/collection.json")["links"]
    assert [link["href"] for link in links] == ["./1/a.json", "./2/a.json"]
    for path in ("maps/1/a.json", "maps/1/a.tif.json"):
        get_storage(config).write(
            f"{workspaces.get_workspace(config, owner, id_).folder}/maps/1/a.tif.json", io.BytesIO(b"no JSON")
        )
        with pytest.raises(ProcessParameterInvalid, match="not a STAC"):
            publish_package(config, owner, id_, content(config, "3"), path)


def test_export_quotas_are_enforced(config: Config) -> None:
    config = config.model_copy(update={"user_storage_bytes": 2000})
    owner = user(config)
    small = workspaces.create_workspace(config, owner, WorkspaceDraft("small", quota=SIZE - 1)).id
    large = workspaces.create_workspace(config, owner, WorkspaceDraft("large", quota=10**6)).id
    with pytest.raises(StorageQuotaExceeded):
        publish_package(config, owner, small, content(config, "1"), None)
    assert paths(config, owner, small) == []
    with pytest.raises(StorageQuotaExceeded):
        publish_package(
            config, owner, large, content(config, "2", files=[f"{i}.tif" for i in range(41)]), None
        )
    publish_package(config, owner, large, content(config, "3"), None)
    many = content(config, "4", files=[f"{i}.tif" for i in range(41)])
    with pytest.raises(StorageQuotaExceeded):
        collections.export_package(config, owner, "mine", many)
    assert collections.list_collections(config, owner) == []


def test_merge_patch_changes_members() -> None:
    """The cases of RFC 7386 that differ."""
    assert merge_patch({"a": "b", "c": {"d": 1, "e": 2}}, {"a": None, "c": {"e": None, "f": [None]}}) == {
        "c": {"d": 1, "f": [None]}
    }
    assert merge_patch({"a": [1]}, {"a": {"b": None}}) == {"a": {}}
    assert merge_patch({"a": {"b": 1}}, {"a": [1]}) == {"a": [1]}
    assert merge_patch(["a"], {"b": {"c": None}}) == {"b": {}}
