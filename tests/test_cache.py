"""The cache of results: keys, bounds, and what is never answered from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import rasterio
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.compute.result_cache import ABOUT, INCOMING, ResultCache, make_key
from odc_openeo.config import Config
from odc_openeo.graph import Lookup, prepare
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD
from tests.catalog.conftest import index
from tests.catalog.scenes import Index, scene

__all__ = ["index"]


def kept(folder: Path, size: int, *names: str) -> dict[str, Path]:
    """Files of ``size`` bytes in total, by name."""
    files = {name: folder / name for name in names or ("result.bin",)}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (size // len(files)))
    return files


@pytest.mark.parametrize("names", [["result.bin"], ["a.tif", "b.zarr/zarr.json", "b.zarr/c/0/0", ABOUT]])
def test_cached_result_is_found_again(tmp_path: Path, names: list[str]) -> None:
    cache = ResultCache(tmp_path / "cache", 1000)
    cache.put("key", kept(tmp_path / "a", 100, *names), {"media_type": "image/tiff"})
    (tmp_path / "b").mkdir()
    cached = cache.get("key", tmp_path / "b")
    assert cached is not None
    files, about = cached
    assert files == {name: tmp_path / "b" / name for name in names}
    assert about == {"media_type": "image/tiff"}
    assert all(path.read_bytes() == b"x" * (100 // len(names)) for path in files.values())
    assert cache.get("other", tmp_path / "b") is None
    cache.put("key", kept(tmp_path / "c", 50), {})
    assert {e.name for e in cache.folder.iterdir()} == {"key"}


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache", 8 * 100)
    for number in range(6):
        cache.put(f"k{number}", kept(tmp_path / f"f{number}", 80), {})
        os.utime(cache.folder / f"k{number}", (number, number))
    (tmp_path / "out").mkdir()
    assert cache.get("k0", tmp_path / "out") is not None
    cache.put("k7", kept(tmp_path / "f7", 80), {})
    left = {e.name for e in cache.folder.iterdir()}
    assert {"k0", "k7"} <= left
    assert not {"k1"} & left
    assert sum(f.stat().st_size for f in cache.folder.rglob("*") if f.is_file()) <= cache.limit


def test_large_files_and_a_cache_of_nothing(tmp_path: Path) -> None:
    for limit in (0, 799):
        cache = ResultCache(tmp_path / f"cache{limit}", limit)
        cache.put("key", kept(tmp_path / "a", 100), {})
        assert not cache.folder.exists()
        assert cache.get("key", tmp_path) is None


def test_damage_and_crashes_do_no_harm(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache", 10_000)
    left = cache.folder / f"{INCOMING}x"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    cache.put("key", kept(tmp_path / "a", 10), {})
    assert not left.exists()
    (cache.folder / "key" / ABOUT).write_text("{")
    assert cache.get("key", tmp_path) is None
    kept(tmp_path, 1, "file")
    blocked = ResultCache(tmp_path / "file" / "cache", 10_000)
    blocked.put("key", kept(tmp_path / "a", 10), {})
    assert blocked.get("key", tmp_path) is None


def test_keys_differ_where_anything_does() -> None:
    assert make_key({"a": 1, "b": 2}, "u") == make_key({"b": 2, "a": 1}, "u")
    assert (
        len(
            {
                make_key({"a": 1}, "u"),
                make_key({"a": 1.5}, "u"),
                make_key({"a": "1"}, "u"),
                make_key({"a": 1}, "v"),
            }
        )
        == 4
    )


# --- Identity of graphs --------------------------------------------------------------------------


def call(process_id: str, **arguments: Any) -> dict[str, Any]:
    return {"process_graph": {"n": {"process_id": process_id, "arguments": arguments, "result": True}}}


def fingerprint(process: dict[str, Any], lookup: Lookup | None = None) -> Any:
    return prepare(process, lookup).compute_fingerprint()


def test_the_same_graph_is_the_same_however_described() -> None:
    plain, described = call("add", x=1, y=2), call("add", y=2, x=1)
    described["process_graph"]["n"]["description"] = "adds"
    assert fingerprint(plain) == fingerprint(described) is not None
    assert fingerprint(plain) != fingerprint(call("add", x=1, y=3))


def test_stored_process_is_fingerprinted_by_definition() -> None:
    def fingerprint_call(definition: dict[str, Any]) -> Any:
        return fingerprint(call("own"), lambda id_, _: definition if id_ == "own" else None)

    assert fingerprint_call(call("add", x=1, y=2)) == fingerprint_call(call("add", x=1, y=2)) is not None
    assert fingerprint_call(call("add", x=1, y=2)) != fingerprint_call(call("add", x=1, y=3))
    assert fingerprint_call(call("load_url", url="https://example.org/a.tif", format="GTiff")) is None


def test_external_sources_have_no_fingerprint() -> None:
    assert fingerprint(call("load_stac", url="https://example.org")) is None
    inner = call("load_uploaded_files", paths=["a.tif"], format="GTiff")
    assert fingerprint(call("array_apply", data=[1], process=inner)) is None


# --- Requests ------------------------------------------------------------------------------------

LOAD = {"id": "tiny_s2", "spatial_extent": None, "temporal_extent": None, "bands": ["B04"]}
PROCESS = {
    "process_graph": {
        "load": {"process_id": "load_collection", "arguments": LOAD},
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "load"}, "format": "netCDF"},
            "result": True,
        },
    }
}


def ask(client: FlaskClient, token: str, process: dict[str, Any] = PROCESS) -> bytes:
    headers = {"Authorization": f"Bearer basic//{token}"}
    response = client.post(f"{API}/result", json={"process": process}, headers=headers)
    assert response.status_code == 200, response.get_json()
    assert response.mimetype == "application/x-netcdf"
    return response.data


def test_requests_are_answered_again_until_the_data_change(
    odc_config: Config,
    index: Index,  # noqa: F811
    tmp_path: Path,
) -> None:
    first = scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z")
    index.add(first)
    client = create_app(odc_config).test_client()
    ada, eve = (
        accounts.issue_token(odc_config, accounts.create_user(odc_config, name, PASSWORD))
        for name in ("ada", "eve")
    )
    cache = odc_config.data_dir / "cache"
    answer = ask(client, ada)
    assert ask(client, ada) == answer
    assert len(list(cache.iterdir())) == 1
    ask(client, eve)
    assert len(list(cache.iterdir())) == 2
    index.add(scene(tmp_path / "b", 2, "2022-06-05T10:00:00Z"))
    assert ask(client, ada) != answer
    assert len(list(cache.iterdir())) == 3
    with rasterio.open(tmp_path / "a" / "B04.tif", "r+") as file:
        file.write(file.read(1) + 1, 1)
    first["properties"]["odc:processing_datetime"] = "2022-07-01T00:00:00Z"
    index.update(first)
    ask(client, ada)
    assert len(list(cache.iterdir())) == 4


def test_without_a_cache_each_request_is_computed(
    odc_config: Config,
    index: Index,  # noqa: F811
    tmp_path: Path,
) -> None:
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    config = odc_config.model_copy(update={"cache_max_bytes": 0})
    client = create_app(config).test_client()
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    answer = ask(client, token)
    with rasterio.open(tmp_path / "a" / "B04.tif", "r+") as file:
        file.write(file.read(1) + 1, 1)
    # The index does not know of this change: only computing anew shows it.
    assert ask(client, token) != answer
    assert not (config.data_dir / "cache").exists()
