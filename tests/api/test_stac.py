"""STAC API over HTTP: what is answered, what is refused, and the files that items lead to."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.api.conftest import API, code
from tests.catalog.scenes import PRODUCT, Index, product, scene


@pytest.fixture
def scenes(odc_database: str, tmp_path: Path) -> list[dict[str, Any]]:
    """Three scenes of one product; there is another product without any."""
    index = Index()
    index.add_product(PRODUCT)
    index.add_product(product("empty"))
    root = [
        scene(tmp_path / f"{i}", i, f"2022-06-0{i}T10:00:00Z", eo__cloud_cover=10.0 * i) for i in (1, 2, 3)
    ]
    index.add(*root)
    index.datacube.close()
    return root


def test_pages_by_links(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    address = f"{API}/search?limit=2&filter=eo:cloud_cover>0&sortby=-datetime"
    first = client.get(address)
    assert first.mimetype == "application/geo+json"
    body = first.get_json()
    (following,) = [link for link in body["links"] if link["rel"] == "next"]
    assert following["method"] == "GET"
    second = client.get(following["href"].removeprefix("http://localhost")).get_json()
    result = [f["id"] for f in body["features"] + second["features"]]
    assert result == [s["id"] for s in reversed(scenes)]
    assert "next" not in {link["rel"] for link in second["links"]}


def test_pages_by_bodies(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    search = {"limit": 2, "collections": ["tiny_s2"], "fields": {"include": ["properties.datetime"]}}
    body = client.post(f"{API}/search", json=search).get_json()
    assert (body["numberReturned"], body["numberMatched"]) == (2, 3)
    (following,) = [link for link in body["links"] if link["rel"] == "next"]
    assert following["method"] == "POST"
    assert following["body"] == {**search, "token": following["body"]["token"]}
    second = client.post(
        following["href"].removeprefix("http://localhost"), json=following["body"]
    ).get_json()
    assert second["features"] == [
        {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": scenes[0]["id"],
            "collection": "tiny_s2",
            "properties": {"datetime": "2022-06-01T10:00:00Z"},
        }
    ]


def test_items_of_a_collection(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    listed = client.get(f"{API}/collections/tiny_s2/items?bbox=10,46,11,47&datetime=2022-06-02/..").get_json()
    assert [f["id"] for f in listed["features"]] == [scenes[2]["id"], scenes[1]["id"]]
    one = client.get(f"{API}/collections/tiny_s2/items/{scenes[1]['id']}")
    assert one.get_json() == listed["features"][1]
    again = client.get(one.request.path, headers={"If-None-Match": one.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get(f"{API}/collections/empty/items").get_json()["features"] == []


@pytest.mark.parametrize(
    ("fields", "there", "gone"),
    [
        ("properties.datetime", {"id", "collection", "properties"}, {"assets", "links", "geometry"}),
        ("-assets,-links", {"id", "properties", "geometry"}, {"assets", "links"}),
        ("-id,assets.B04.href", {"assets"}, {"id", "properties"}),
    ],
)
def test_fields_select_item_members(
    client: FlaskClient, scenes: list[dict[str, Any]], fields: str, there: set[str], gone: set[str]
) -> None:
    (item,) = client.get(f"{API}/search", query_string={"fields": fields, "limit": 1}).get_json()["features"]
    assert there <= set(item)
    assert not gone & set(item)
    if "href" in fields:
        assert {name: set(asset) for name, asset in item["assets"].items()} == {"B04": {"href"}}


def test_intersects_and_filters_in_query_strings(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    point = json.dumps({"type": "Point", "coordinates": [10.319, 46.943]})
    clouds = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 20]}
    query = {"intersects": point, "filter": json.dumps(clouds), "filter-lang": "cql2-json"}
    document = client.get(f"{API}/search", query_string=query).get_json()
    assert [f["id"] for f in document["features"]] == [scenes[1]["id"], scenes[0]["id"]]
    ids = ",".join(s["id"] for s in scenes[1:])
    document = client.get(f"{API}/search", query_string={"ids": ids, "sortby": "+properties.eo:cloud_cover"})
    assert [f["id"] for f in document.get_json()["features"]] == [s["id"] for s in scenes[1:]]


REFUSED = [
    ({"bbox": "1,2,3"}, 400, "4 or 6"),
    ({"bbox": "a,b,c,d"}, 400, "4 or 6"),
    ({"bbox": "0,5,1,4"}, 400, "south first"),
    ({"datetime": "yesterday"}, 400, "not a valid time"),
    ({"datetime": "2022-02-01/2022-01-01"}, 400, "before it starts"),
    ({"collections": "nowhere"}, 404, "nowhere"),
    ({"filter": "eo:cloud_cover <"}, 400, "not valid CQL2"),
    ({"filter": "clouds < 5"}, 400, "no property 'clouds'"),
    ({"filter": "{", "filter-lang": "cql2-json"}, 400, "not valid JSON"),
    ({"filter": "a=1", "filter-lang": "ecql"}, 400, "cql2-text"),
    ({"filter": "a=1", "filter-crs": "EPSG:3857"}, 400, "filter-crs"),
    ({"intersects": '{"type": "Point"}'}, 400, "GeoJSON"),
    ({"intersects": '{"type": "Point", "coordinates": [1, 2]}', "bbox": "0,0,1,1"}, 400, "exclusive"),
    ({"limit": "0"}, 400, "limit"),
    ({"limit": "many"}, 400, "limit"),
    ({"sortby": "clouds"}, 400, "clouds"),
    ({"token": "x"}, 400, "token"),
    ({"query": "{}"}, 400, "Unknown query parameter 'query'"),
]


def test_invalid_searches_are_refused(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    for query, status, why in REFUSED:
        response = client.get(f"{API}/search", query_string=query)
        assert response.status_code == status, query
        code(response)
        assert why in response.get_json()["message"], query
    for body in (
        {"limit": True},
        {"ids": "x"},
        {"sortby": ["id"]},
        {"fields": []},
        {"query": {}},
        {"datetime": 1},
    ):
        assert code(client.post(f"{API}/search", json=body)) == "RequestInvalid"
    assert code(client.get(f"{API}/collections/nowhere/items")) == "CollectionNotFound"
    assert code(client.get(f"{API}/collections/nowhere/items/x")) == "CollectionNotFound"
    assert code(client.get(f"{API}/collections/tiny_s2/items/x")) == "NotFound"


def test_a_great_limit_is_cut(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    assert client.get(f"{API}/search?limit=100000").get_json()["numberReturned"] == 3


def test_queryables_describe_the_collection(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    response = client.get(f"{API}/queryables")
    assert response.mimetype == "application/schema+json"
    properties = response.get_json()["properties"]
    assert {"id", "collection", "datetime", "geometry", "eo:cloud_cover", "platform"} <= set(properties)
    links = client.get(f"{API}/").get_json()["links"]
    assert {link["method"] for link in links if link["rel"] == "search"} == {"GET", "POST"}


# --- Collections ---------------------------------------------------------------------------------


def test_collections_in_pages(client: FlaskClient, scenes: list[dict[str, Any]]) -> None:
    first = client.get(f"{API}/collections?limit=1").get_json()
    (following,) = [link["href"] for link in first["links"] if link["rel"] == "next"]
    second = client.get(following.removeprefix("http://localhost")).get_json()
    assert [c["id"] for c in first["collections"] + second["collections"]] == ["empty", "tiny_s2"]
    assert "next" not in {link["rel"] for link in second["links"]}


def test_collections_are_compressed_and_not_sent_again(
    client: FlaskClient, scenes: list[dict[str, Any]]
) -> None:
    for path in ("/collections", "/collections/tiny_s2", "/search"):
        plain = client.get(f"{API}{path}")
        assert "Content-Encoding" not in plain.headers
        packed = client.get(f"{API}{path}", headers={"Accept-Encoding": "br, gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in packed.headers["Vary"]
        assert gzip.decompress(packed.data) == plain.data
        assert len(packed.data) < 0.7 * len(plain.data)
        for etag in (plain.headers["ETag"], packed.headers["ETag"]):
            again = client.get(f"{API}{path}", headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
            assert (again.status_code, again.data) == (304, b"")
        head = client.head(f"{API}{path}")
        assert (head.status_code, head.data) == (200, b"")
        assert head.headers["Content-Length"] == plain.headers["Content-Length"]


@pytest.mark.parametrize("accepted", ["gzip;q=0", "identity", "br", ""])
def test_nothing_is_compressed_for_clients_that_do_not_accept_gzip(
    client: FlaskClient, accepted: str
) -> None:
    response = client.get(f"{API}/processes", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers
    assert "Accept-Encoding" in response.headers["Vary"]


# --- Files ---------------------------------------------------------------------------------------


def assets(client: FlaskClient, **query: Any) -> dict[str, Any]:
    (item,) = client.get(f"{API}/search", query_string={"limit": 1, **query}).get_json()["features"]
    return dict(item["assets"])


def test_files_of_this_machine(client: FlaskClient, scenes: list[dict[str, Any]], tmp_path: Path) -> None:
    href = assets(client)["B04"]["href"]
    path = href.removeprefix("http://localhost")
    content = (tmp_path / "3" / "B04.tif").read_bytes()
    whole = client.get(path)
    assert whole.data == content
    assert whole.mimetype == "image/tiff"
    part = client.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, content[10:20])
    head = client.head(path)
    assert (head.headers["Accept-Ranges"], head.headers["Content-Length"]) == ("bytes", str(len(content)))
    assert client.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_only_files_that_the_index_names(
    client: FlaskClient, scenes: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = assets(client)["B04"]["href"].removeprefix("http://localhost")
    (tmp_path / "3" / "other.tif").write_text("secret")
    for wrong in (
        path.replace("/B04/", "/other/"),
        path.replace("B04.tif", "other.tif"),
        path.replace("B04.tif", "..%2Fother.tif"),
        path.replace("tiny_s2", "empty"),
        path.replace("tiny_s2", "nowhere"),
        path.replace(scenes[2]["id"], "00000000-0000-0000-0000-000000000000"),
        path.replace(scenes[2]["id"], "x"),
    ):
        assert client.get(wrong).status_code == 404, wrong
    (tmp_path / "3" / "B04.tif").unlink()
    gone = client.get(path)
    assert gone.status_code == 404
    assert str(tmp_path) not in gone.text


@pytest.mark.parametrize(
    "settings", [{"serve_assets": False}, {"host": "0.0.0.0"}, {"public_url": "https://example.org"}]
)  # fmt: skip
def test_files_are_not_served_by_reachable_service(
    odc_config: Config, client: FlaskClient, scenes: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    path = assets(client)["B04"]["href"].removeprefix("http://localhost")
    closed = create_app(odc_config.model_copy(update=settings)).test_client()
    assert assets(closed) == {}
    assert closed.get(path).status_code == 404


def test_addresses_as_the_operator_says(
    odc_config: Config, scenes: list[dict[str, Any]], tmp_path: Path
) -> None:
    hrefs = f"file:///=https://all.example.org/,{tmp_path.as_uri()}/=https://data.example.org/"
    mapped = create_app(odc_config.model_copy(update={"asset_hrefs": hrefs})).test_client()
    response = mapped.get(f"{API}/search?limit=1")
    assert response.get_json()["features"][0]["assets"]["B04"]["href"] == "https://data.example.org/3/B04.tif"
    assert str(tmp_path) not in response.text
