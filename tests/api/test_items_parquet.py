"""Items as stac-geoparquet: of collections by HTTP and by command, and of the results of jobs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from stac_geoparquet.arrow import stac_table_to_items

from odc_openeo.catalog import items_parquet
from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.formats import Output
from odc_openeo.users import accounts
from tests.api.conftest import API, code
from tests.catalog.scenes import PRODUCT, Index, product, scene
from tests.formats.cubes import raster
from tests.support.finished_jobs import finish_job

NAME = PRODUCT["name"]


@pytest.fixture
def scenes(odc_database: str, tmp_path: Path) -> list[dict[str, Any]]:
    index = Index()
    index.add_product(PRODUCT)
    index.add_product(product("empty"))
    documents = [
        scene(tmp_path / f"{i}", i, f"2022-06-0{i}T10:00:00Z", eo__cloud_cover=10.0 * i) for i in (1, 2, 3)
    ]
    index.add(*documents)
    index.datacube.close()
    return documents


def read_items(content: bytes | Path) -> list[dict[str, Any]]:
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return list(stac_table_to_items(pq.read_table(source)))


def get_path(url: str) -> str:
    return url.removeprefix("http://localhost")


def describe(item: dict[str, Any]) -> dict[str, Any]:
    """What must survive: nulls and the order of members may differ."""
    bare = json.loads(json.dumps({key: item[key] for key in ("id", "geometry", "assets", "properties")}))
    bare["assets"] = {key: (asset["href"], asset["roles"]) for key, asset in bare["assets"].items()}
    names = ("eo:cloud_cover", "proj:code", "proj:shape", "platform")
    bare["properties"] = {name: bare["properties"].get(name) for name in names}
    return bare


def iter_pages(client: FlaskClient, path: str) -> Iterator[list[dict[str, Any]]]:
    while True:
        response = client.get(path)
        assert response.status_code == 200, response.data
        assert response.mimetype == "application/vnd.apache.parquet"
        yield read_items(response.data)
        if "Link" not in response.headers:
            return
        path = get_path(response.headers["Link"].partition(">")[0].lstrip("<"))


def test_collections_in_pages(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    expected = client.get(f"{API}/collections/{NAME}/items").get_json()["features"]
    document = client.get(f"{API}/collections/{NAME}").get_json()
    first, table = [link for link in document["links"] if link["rel"] == "items"]
    assert first["type"] == "application/geo+json"
    pages = list(iter_pages(client, f"{get_path(table['href'])}?limit=2"))
    assert [len(page) for page in pages] == [2, 1]
    assert [describe(item) for page in pages for item in page] == [describe(item) for item in expected]
    (page,) = iter_pages(client, f"{get_path(table['href'])}?filter=eo:cloud_cover>15&sortby=datetime")
    assert [item["id"] for item in page] == [document["id"] for document in scenes[1:]]
    (nothing,) = iter_pages(client, f"{API}/collections/empty/items.parquet")
    assert nothing == []


def test_refusals(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    assert code(client.get(f"{API}/collections/nope/items.parquet")) == "CollectionNotFound"
    for query in ("fields=id", "limit=0", "token=x", "filter=(", "unknown=1"):
        assert code(client.get(f"{API}/collections/{NAME}/items.parquet?{query}")) == "RequestInvalid", query


def test_export_by_command(
    odc_config: Config,
    scenes: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    client: FlaskClient,
) -> None:
    for name, value in odc_config.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(items_parquet, "PAGE_ITEMS", 2)
    target = tmp_path / "exported.parquet"
    done = CliRunner().invoke(cli, ["export", "items", NAME, str(target)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "3 items" in done.output
    items = read_items(target)
    assert {item["id"] for item in items} == {document["id"] for document in scenes}
    assert all(asset["href"].startswith("file://") for item in items for asset in item["assets"].values())
    assert list(tmp_path.glob(".items-*")) == []
    refused = CliRunner().invoke(cli, ["export", "items", "nope", str(target)])
    assert (refused.exit_code, "nope" in refused.output) == (1, True)
    assert read_items(target) == items


def test_results_of_jobs(client: FlaskClient, odc_config: Config, bearer: dict[str, str]) -> None:
    (user,) = accounts.list_users(odc_config)
    outputs = [Output.from_data(raster("uint8", dates=2, bands=1), "GTiff")]
    id_ = finish_job(odc_config, user.id, outputs)
    document = client.get(f"{API}/jobs/{id_}/results", headers=bearer).get_json()
    (link,) = [link for link in document["links"] if link["rel"] == "items"]
    response = client.get(get_path(link["href"]))
    assert response.status_code == 200
    items = {item["id"]: item for item in read_items(response.data)}
    assert len(items) == 2
    for link in document["links"]:
        if link["rel"] == "item":
            item = client.get(get_path(link["href"])).get_json()
            assert items[item["id"]]["geometry"] == item["geometry"]
            assert set(items[item["id"]]["assets"]) >= set(item["assets"])
    path = get_path(response.request.path)
    forged = path.replace(path.split("/")[4], "x" * len(path.split("/")[4]))
    assert client.get(forged).status_code in (403, 404, 410)
