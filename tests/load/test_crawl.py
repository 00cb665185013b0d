"""What is asked of STAC APIs and static catalogues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from odc.geo.geom import box

from odc_openeo.catalog import Query
from odc_openeo.errors import ProcessGraphComplexity, UrlUnreachable
from odc_openeo.load.stac_crawler import find_items

ROOT = "https://stac.example/collections/s2"


class Web:
    """Documents by address without query; remembers what was asked."""

    def __init__(self, **documents: Any) -> None:
        self.documents = {path.replace("__", "/"): d for path, d in documents.items()}
        self.requested: list[str] = []

    def __call__(self, url: str) -> Any:
        self.requested.append(url)
        return self.documents[urlsplit(url).path.strip("/").removeprefix("collections/")]


def feature(id_: str, **more: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": id_, **more}


def links(**hrefs: Any) -> list[dict[str, str]]:
    return [
        {"rel": rel.partition("_")[0], "href": href}
        for rel, target in hrefs.items()
        for href in ([target] if isinstance(target, str) else target)
    ]


def test_stac_api_is_searched_page_by_page() -> None:
    web = Web(
        s2={"type": "Collection", "links": links(items="s2/items")},
        s2__items={"features": [feature("a")], "links": links(next=f"{ROOT}/more?token=2")},
        s2__more={
            "features": [feature("b", links=links(self="https://files.example/b/b.json"))],
            "links": links(next=f"{ROOT}/more?token=2"),
        },
    )
    query = Query(
        box(10, 45, 11, 46, "EPSG:4326"), datetime(2022, 1, 1, tzinfo=UTC), datetime(2022, 2, 1, tzinfo=UTC)
    )
    items = find_items(web, ROOT, query, 10)
    assert [(item["id"], urlsplit(item["base"]).path) for item in items] == [
        ("a", "/collections/s2/items"),
        ("b", "/b/b.json"),
    ]
    parameters = parse_qs(urlsplit(web.requested[1]).query)
    assert parameters["bbox"] == ["10,45,11,46"]
    assert parameters["datetime"] == ["2022-01-01T00:00:00Z/2022-02-01T00:00:00Z"]
    assert len(web.requested) == 3, "a page that leads to itself is not asked for again"


def test_open_intervals_and_tokens_in_the_address_are_kept() -> None:
    web = Web(
        s2={"type": "Collection", "links": links(items=f"{ROOT}/items?key=1")}, s2__items={"features": []}
    )
    assert find_items(web, ROOT, Query(None, datetime(2022, 1, 1, tzinfo=UTC)), 10) == []
    query = parse_qs(urlsplit(web.requested[1]).query)
    assert (query["key"], query["datetime"]) == (["1"], ["2022-01-01T00:00:00Z/.."])


def test_static_catalogues_are_walked() -> None:
    web = Web(
        **{"top.json": {"type": "Catalog", "links": links(child=["one/c.json", "two/c.json"])}},
        **{"one/c.json": {"type": "Collection", "links": links(item=["a.json", "b.json"])}},
        **{"two/c.json": {"type": "Collection", "links": [], "assets": {"x": {"href": "x.tif"}}}},
        **{"one/a.json": feature("a"), "one/b.json": feature("b")},
    )
    items = find_items(web, "https://stac.example/top.json", Query(), 10)
    assert [item["base"].rpartition("example/")[2] for item in items] == [
        "one/a.json",
        "one/b.json",
        "two/c.json",
    ]


def test_too_much_and_no_stac() -> None:
    web = Web(
        **{"many": {"type": "FeatureCollection", "features": [feature(str(i)) for i in range(11)]}},
        **{"huge": {"type": "Catalog", "links": links(item=[f"{i}.json" for i in range(3000)])}},
        **{"other": {"type": "Table"}, "list": []},
    )
    for path in ("many", "huge"):
        with pytest.raises(ProcessGraphComplexity):
            find_items(web, f"https://stac.example/{path}", Query(), 10)
    for path in ("other", "list"):
        with pytest.raises(UrlUnreachable):
            find_items(web, f"https://stac.example/{path}", Query(), 10)


@pytest.mark.parametrize("kind", ["API", "static"])
def test_collections_declare_what_their_items_do_not(kind: str) -> None:
    declared = {
        "red": {"bands": [{"name": "B04", "nodata": 0}], "raster:bands": [{"nodata": 0}], "roles": ["data"]},
        "odd": "not an object",
    }
    item = feature("a", assets={"red": {"href": "a.tif", "eo:bands": [{"name": "red"}]}, "odd": {}, "x": 1})
    documents = {
        "API": {"s2__items": {"features": [item]}},
        "static": {"s2__a.json": item},
    }
    listing = links(items=f"{ROOT}/items") if kind == "API" else links(item=f"{ROOT}/a.json")
    web = Web(s2={"type": "Collection", "item_assets": declared, "links": listing}, **documents[kind])
    (item,) = find_items(web, ROOT, Query(), 10)
    assert item["assets"] == {
        "red": {
            **{"href": "a.tif", "eo:bands": [{"name": "red"}], "raster:bands": [{"nodata": 0}]},
            "roles": ["data"],
        },
        "odd": {},
        "x": 1,
    }
