"""Searches for STAC Items against a real index, compared with plain Python over the same documents."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
from pystac.validation import validate_dict

from odc_openeo.catalog import (
    Catalog,
    ItemQuery,
    Place,
    SortKey,
    item_search,
    parse_bbox,
    parse_filter,
    parse_geometry,
    parse_interval,
)
from odc_openeo.catalog.items import ALTERNATE
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound, NotFound, RequestInvalid, RequestTimeout
from tests.catalog.scenes import PRODUCT, Grid, Index, document, product, scene
from tests.support.index_drivers import copy_dataset, needs_postgres_driver

BASE = "https://example.org/openeo/1.3"
BANDS = {name: {"path": f"{name}.tif"} for name in ("B04", "B08", "B11", "SCL")}
START = datetime(2022, 1, 1, 10, tzinfo=UTC)


def places(uri: str, collection: str, item: str, key: str) -> Place | None:
    """Every file at a web server of its own."""
    return Place(f"https://files.example.org/{collection}/{item}/{key}")


def many(path: Path, count: int = 32) -> list[dict[str, Any]]:
    """Documents of scenes in two products; every third lacks the cloud cover, some share their time."""
    dice = random.Random(1)
    documents_ = []
    for i in range(count):
        grid = Grid(600000 + dice.randrange(20) * 3000, 5200000, 30, (100, 100))
        about = {} if i % 3 == 0 else {"eo__cloud_cover": float(dice.randrange(10))}
        time = START + timedelta(days=dice.randrange(25), hours=i % 2)
        name = "tiny_s2" if i % 4 else "other"
        scene_document = document(
            path / str(i),
            BANDS,
            {"default": grid},
            name,
            f"{time:%Y-%m-%dT%H:%M:%SZ}",
            eo__platform=f"sat-{i % 2}",
            **about,
        )
        documents_.append(scene_document)
    return documents_


@pytest.fixture
def documents(index: Index, tmp_path: Path) -> list[dict[str, Any]]:
    """The scenes of `many`, in the index; one more is archived."""
    index.add_product(product("other"))
    result = many(tmp_path)
    index.add(*result)
    gone = scene(tmp_path / "gone", 1, "2022-01-05T10:00:00Z")
    index.add(gone)
    index.archive(gone)
    return result


def pages(catalog: Catalog, **query: Any) -> Iterator[list[dict[str, Any]]]:
    """All pages of a search."""
    token = None
    while True:
        page = catalog.search_items(ItemQuery(**{"limit": 7, **query, "token": token}), BASE, places)
        yield list(page.items)
        token = page.token
        if token is None:
            return
        assert len(page.items) == query.get("limit", 7)


def ids(catalog: Catalog, **query: Any) -> list[str]:
    """Ids of the items of all pages, in order."""
    return [item["id"] for page in pages(catalog, **query) for item in page]


def time_of(document: dict[str, Any]) -> str:
    return str(document["properties"]["datetime"])


def newest_first(document: list[dict[str, Any]]) -> list[str]:
    ordered = sorted(document, key=lambda d: d["id"])
    ordered.sort(key=time_of, reverse=True)
    return [d["id"] for d in sorted(ordered, key=lambda d: d["product"]["name"])]


def test_pages_hold_every_item_once(catalog: Catalog, documents: list[dict[str, Any]]):
    assert ids(catalog) == newest_first(documents)
    assert ids(catalog, limit=1000) == newest_first(documents)
    assert ids(catalog, limit=1) == newest_first(documents)
    only = [d for d in documents if d["product"]["name"] == "other"]
    assert ids(catalog, collections=("other",)) == newest_first(only)


def test_a_gap_in_time_costs_nothing(
    catalog: Catalog, index: Index, odc_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One scene years after many: pages before the gap sort as few datasets as any others."""
    index.add(scene(tmp_path / "late", 1, "2022-01-05T10:00:00Z"))
    copy_dataset(odc_database, "^tiny_s2$", 3000)
    crowds: list[int] = []
    count_crowd = item_search._Search._count_crowd

    def note(search: Any, sources: Any, low: Any, high: Any, most: int) -> int:
        crowd = count_crowd(search, sources, low, high, most)
        crowds.append(min(crowd, most))
        return crowd

    monkeypatch.setattr(item_search, "CROWD", 60)
    monkeypatch.setattr(item_search._Search, "_count_crowd", note)
    first = catalog.search_items(ItemQuery(20), BASE, places)
    last = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=3000)
    times = [datetime(2022, 1, 5, 10, tzinfo=UTC), *(last - timedelta(hours=n) for n in range(19))]
    assert [item["properties"]["datetime"] for item in first.items] == [
        f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in times
    ]
    assert max(crowds) <= 60
    # A filter that rejects all reads more and more at a time.
    assert ids(catalog, filter=parse_filter("eo:instrument = 'none'", "cql2-text")) == []
    assert max(crowds) > 500


def test_number_of_items(catalog: Catalog, documents: list[dict[str, Any]]):
    assert catalog.search_items(ItemQuery(3), BASE, places).matched == len(documents)
    assert catalog.search_items(ItemQuery(3, start=START), BASE, places).matched is None
    assert catalog.search_items(ItemQuery(100, start=START), BASE, places).matched == len(documents)


@pytest.mark.parametrize("descending", [True, False])
def test_order_of_time_over_all_collections(
    catalog: Catalog, documents: list[dict[str, Any]], descending: bool
):
    item_ids = ids(catalog, sort=(SortKey("datetime", descending),))
    ordered = sorted(documents, key=lambda d: d["id"])
    ordered.sort(key=time_of, reverse=descending)
    assert item_ids == [d["id"] for d in ordered]


@pytest.mark.parametrize("descending", [True, False])
def test_order_of_a_property_that_some_lack(
    catalog: Catalog, documents: list[dict[str, Any]], descending: bool
):
    cover = {d["id"]: d["properties"].get("eo:cloud_cover") for d in documents}
    present = sorted((id_ for id_, c in cover.items() if c is not None))
    present.sort(key=lambda id_: cover[id_], reverse=descending)
    unknown = sorted(id_ for id_, c in cover.items() if c is None)
    assert ids(catalog, sort=(SortKey("eo:cloud_cover", descending),)) == present + unknown


def test_order_of_several_keys(catalog: Catalog, documents: list[dict[str, Any]]):
    ordered = sorted(documents, key=lambda d: d["id"], reverse=True)
    ordered.sort(key=lambda d: d["properties"]["eo:platform"], reverse=True)
    ordered.sort(key=lambda d: d["product"]["name"])
    keys = (SortKey("collection"), SortKey("platform", True), SortKey("id", True))
    assert ids(catalog, sort=keys) == [d["id"] for d in ordered]


def test_items_are_filtered_by_time(catalog: Catalog, documents: list[dict[str, Any]]):
    for text in (
        "2022-01-03T10:00:00Z/2022-01-09T10:00:00Z",
        "2022-01-09T11:00:00+01:00/..",
        "../2022-01-09T10:00:00Z",
        "/2022-01-09",
        "2022-01-04",
        time_of(documents[0]),
    ):
        start, end = parse_interval(text)
        inside = [
            d
            for d in documents
            if (start is None or start <= datetime.fromisoformat(time_of(d)))
            and (end is None or datetime.fromisoformat(time_of(d)) <= end)
        ]
        assert 0 < len(inside) < len(documents)
        assert ids(catalog, start=start, end=end) == newest_first(inside)


def outlines(catalog: Catalog) -> dict[str, Any]:
    return {i["id"]: shapely.geometry.shape(i["geometry"]) for page in pages(catalog) for i in page}


def test_items_are_filtered_by_area(catalog: Catalog, documents: list[dict[str, Any]]):
    shapes = outlines(catalog)
    triangle = {"type": "Polygon", "coordinates": [[[10.4, 46.9], [10.7, 46.9], [10.4, 47.1], [10.4, 46.9]]]}
    areas = [
        parse_bbox([10.5, 46, 10.6, 48]),
        parse_bbox([10.5, 46, 0, 10.6, 48, 9]),
        parse_geometry(triangle),
        parse_bbox([170, -90, 10.45, 90]),
    ]
    point = next(iter(shapes.values())).representative_point()
    for area in (*areas, point):
        inside = [d for d in documents if shapely.intersects(shapes[d["id"]], area)]
        assert 0 < len(inside) < len(documents)
        assert ids(catalog, area=area) == newest_first(inside)
    assert ids(catalog, area=parse_bbox([0, 0, 1, 1])) == []


def test_items_are_selected_by_id(catalog: Catalog, documents: list[dict[str, Any]]):
    some = [documents[3]["id"], documents[8]["id"]]
    assert sorted(ids(catalog, ids=(*some, "no-uuid", "00000000-0000-0000-0000-000000000000"))) == sorted(
        some
    )
    assert ids(catalog, ids=(some[0].upper(),)) == []


POLYGON = "POLYGON((10.4 46.9, 10.7 46.9, 10.4 47.1, 10.4 46.9))"
FILTERS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("\"eo:cloud_cover\" < 5", lambda p: p["cover"] is not None and p["cover"] < 5),
    ("NOT eo:cloud_cover < 5", lambda p: p["cover"] is not None and p["cover"] >= 5),
    ("eo:cloud_cover IS NULL", lambda p: p["cover"] is None),
    ("eo:cloud_cover IS NOT NULL", lambda p: p["cover"] is not None),
    ("eo:cloud_cover BETWEEN 2 AND 4", lambda p: p["cover"] in (2, 3, 4)),
    ("eo:cloud_cover IN (2, 4)", lambda p: p["cover"] in (2, 4)),
    ("eo:cloud_cover <> 4", lambda p: p["cover"] not in (None, 4)),
    ("platform = 'sat-1' AND collection = 'other'", lambda p: False),
    ("platform = 'sat-0' AND collection = 'other'", lambda p: p["name"] == "other"),
    ("eo:platform LIKE 'sat_1' OR eo:cloud_cover = 3", lambda p: p["platform"] == "sat-1" or p["cover"] == 3),
    ("platform = 3", lambda p: False),
    ("datetime < TIMESTAMP('2022-01-09T00:00:00Z')", lambda p: p["time"] < "2022-01-09"),
    ("T_AFTER(datetime, DATE('2022-01-09'))", lambda p: p["time"] > "2022-01-09"),
    ("T_DURING(datetime, INTERVAL('2022-01-05T00:00:00Z', '..'))", lambda p: p["time"] > "2022-01-05"),
    (
        "T_INTERSECTS(INTERVAL(start_datetime, end_datetime), INTERVAL('..', '2022-01-05'))",
        lambda p: p["time"] < "2022-01-06",
    ),
    (f"S_INTERSECTS(geometry, {POLYGON})", lambda p: p["near"]),
    (f"NOT S_INTERSECTS({POLYGON}, geometry)", lambda p: not p["near"]),
    (
        f"S_DISJOINT(geometry, {POLYGON}) AND platform = 'sat-1'",
        lambda p: not p["near"] and p["platform"] == "sat-1",
    ),
    (
        f"S_INTERSECTS(geometry, {POLYGON}) OR eo:cloud_cover < 5",
        lambda p: p["near"] or (p["cover"] is not None and p["cover"] < 5),
    ),
    (
        f"NOT (S_INTERSECTS(geometry, {POLYGON}) OR eo:cloud_cover < 5)",
        lambda p: not p["near"] and p["cover"] is not None and p["cover"] >= 5,
    ),
    ("S_WITHIN(geometry, BBOX(10, 46, 10.6, 48))", lambda p: p["within"]),
]  # fmt: skip


def test_cql2_filters_select_matching_items(catalog: Catalog, documents: list[dict[str, Any]]):
    shapes = outlines(catalog)
    area, whole = shapely.from_wkt(POLYGON), shapely.box(10, 46, 10.6, 48)

    def about(d: dict[str, Any]) -> dict[str, Any]:
        shape, properties = shapes[d["id"]], d["properties"]
        return {
            "cover": properties.get("eo:cloud_cover"),
            "platform": properties["eo:platform"],
            "time": properties["datetime"],
            "name": d["product"]["name"],
            "near": shape.intersects(area),
            "within": shape.within(whole),
        }

    wrong = {
        text: (item_ids, expected)
        for text, accepts in FILTERS
        if (item_ids := ids(catalog, limit=100, filter=parse_filter(text, "cql2-text")))
        != (expected := newest_first([d for d in documents if accepts(about(d))]))
    }
    assert wrong == {}


def test_filters_as_json_equal_those_as_text(catalog: Catalog, documents: list[dict[str, Any]]):
    clouds = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 5]}
    late = {"op": "t_after", "args": [{"property": "datetime"}, {"timestamp": "2022-01-09T00:00:00Z"}]}
    item_ids = ids(catalog, filter=parse_filter({"op": "and", "args": [clouds, late]}, "cql2-json"))
    text = "eo:cloud_cover < 5 AND T_AFTER(datetime, TIMESTAMP('2022-01-09T00:00:00Z'))"
    assert item_ids == ids(catalog, filter=parse_filter(text, "cql2-text")) != []


UNUSABLE = [
    ("eo:cloud_cover <", "not valid CQL2"),
    ("clouds < 5", "no property 'clouds'"),
    ("eo:cloud_cover + 1 < 5", r"'\+' is not supported"),
    ("CASEI(platform) = CASEI('x')", "'casei' is not supported"),
    ("S_INTERSECTS(geometry, POLYGON((0 0, 1 1, 0 1, 1 0, 0 0)))", "geometry is invalid"),
    ("S_INTERSECTS(footprint, POINT(0 0))", "'geometry'"),
    ("datetime > 5", "TIMESTAMP"),
    ("datetime > 'yesterday'", "not a valid time"),
    ("A_CONTAINS(platform, ('x'))", "not supported"),
]


def test_filters_that_cannot_be_used(catalog: Catalog, documents: list[dict[str, Any]]):
    for text, why in UNUSABLE:
        with pytest.raises(RequestInvalid, match=why):
            ids(catalog, filter=parse_filter(text, "cql2-text"))


def test_invalid_searches_are_refused(catalog: Catalog, documents: list[dict[str, Any]]):
    with pytest.raises(CollectionNotFound, match="'nowhere'"):
        ids(catalog, collections=("tiny_s2", "nowhere"))
    with pytest.raises(RequestInvalid, match="'clouds'"):
        ids(catalog, sort=(SortKey("clouds"),))
    for token in ("", "x", "e30", "WzFd"):
        with pytest.raises(RequestInvalid, match="'token'"):
            catalog.search_items(ItemQuery(5, token=token), BASE, places)
    other = catalog.search_items(ItemQuery(5, sort=(SortKey("id"),)), BASE, places).token
    with pytest.raises(RequestInvalid, match="'token'"):
        catalog.search_items(ItemQuery(5, token=other), BASE, places)
    with pytest.raises(NotFound, match="no item"):
        catalog.get_item("tiny_s2", documents[0]["id"], BASE, places)


def test_searches_that_take_too_long_end(odc_config: Config, documents: list[dict[str, Any]]):
    catalog = Catalog(odc_config.model_copy(update={"search_timeout_s": 1e-9}))
    with pytest.raises(RequestTimeout, match="search took longer"):
        catalog.search_items(ItemQuery(5), BASE, places)
    catalog.close()


def test_item_has_properties_of_its_scene(catalog: Catalog, index: Index, tmp_path: Path):
    interval = {"dtr__start_datetime": "2022-06-01T10:00:00Z", "dtr__end_datetime": "2022-06-01T10:00:01Z"}
    document_ = scene(tmp_path / "a", 1, "2022-06-01T10:00:00.250Z", eo__platform="s2a", **interval)
    document_["accessories"] = {"thumbnail": {"path": "thumb.jpg"}, "checksum:sha1": {"path": "sums.txt"}}
    index.add(document_)
    item = catalog.get_item("tiny_s2", document_["id"], BASE, places)
    assert validate_dict({**item, "stac_extensions": []})
    assert (
        pystac.Item.from_dict(item).get_self_href() == f"{BASE}/collections/tiny_s2/items/{document_['id']}"
    )
    properties = item["properties"]
    assert properties["datetime"] == "2022-06-01T10:00:00.250Z"
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2022-06-01T10:00:00Z",
        "2022-06-01T10:00:01Z",
    )
    assert (properties["platform"], properties["instruments"], properties["proj:code"]) == (
        "s2a",
        ["MSI"],
        "EPSG:32632",
    )
    assert (properties["proj:shape"], properties["proj:transform"][:3]) == ([60, 80], [10, 0, 600000])
    assert item["bbox"] == pytest.approx((10.3119, 46.9385, 10.3228, 46.9441), abs=2e-3)
    assert list(item["assets"]) == ["B04", "B08", "B11", "SCL", "thumbnail", "checksum:sha1"]
    red = item["assets"]["B04"]
    assert red["href"] == f"https://files.example.org/tiny_s2/{document_['id']}/B04"
    assert red["type"] == "image/tiff; application=geotiff"
    assert red["roles"] == ["data"]
    assert red["bands"] == catalog.get_collection("tiny_s2")["item_assets"]["B04"]["bands"]
    assert item["assets"]["SCL"]["proj:shape"] == [30, 40]
    assert item["assets"]["thumbnail"]["roles"] == ["thumbnail"]
    assert str(tmp_path) not in str(item)


def test_files_of_several_bands_are_one_asset(catalog: Catalog, index: Index, tmp_path: Path):
    index.add_product(product("stacked", measurements=PRODUCT["measurements"][:2]))
    bands = {"B04": {"path": "all.tif", "band": 3}, "B08": {"path": "all.tif", "band": 1}}
    scene_document = document(
        tmp_path, bands, {"default": Grid(600000, 5200000, 10, (5, 5))}, "stacked", "2022-06-01T10:00:00Z"
    )
    index.add(scene_document)
    (asset,) = catalog.get_item("stacked", scene_document["id"], BASE, places)["assets"].items()
    assert asset[0] == "all"
    assert [band["name"] for band in asset[1]["bands"]] == ["B08", "all_2", "B04"]


def test_files_that_clients_cannot_read_are_no_assets(catalog: Catalog, index: Index, tmp_path: Path):
    document_ = scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z")
    index.add(document_)
    assert catalog.get_item("tiny_s2", document_["id"], BASE, lambda *_: None)["assets"] == {}
    both = Place("https://x.example.org/1", {"s3": "s3://bucket/1"})
    item = catalog.get_item("tiny_s2", document_["id"], BASE, lambda *_: both)
    assert item["assets"]["B04"]["alternate"] == {"s3": {"href": "s3://bucket/1", "alternate:name": "s3"}}
    assert ALTERNATE in item["stac_extensions"]


def test_scene_over_the_antimeridian(catalog: Catalog, index: Index, tmp_path: Path):
    grid = Grid(700000, 5000000, 1000, (100, 120), 32660)
    scene_document = document(tmp_path, BANDS, {"default": grid}, "tiny_s2", "2022-06-01T10:00:00Z")
    index.add(scene_document)
    item = catalog.get_item("tiny_s2", scene_document["id"], BASE, places)
    shape = shapely.geometry.shape(item["geometry"])
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    assert shape.area < 3
    west, _, east, _ = item["bbox"]
    assert 179 < west <= 180
    assert -180 <= east < -178
    for bbox, there in (([179, 44, -179, 46], 1), ([-179.9, 44, -179, 46], 1), ([-10, 44, 10, 46], 0)):
        assert len(ids(catalog, area=parse_bbox(bbox))) == there


@needs_postgres_driver("it cannot index a dataset without a place")
def test_products_without_datasets_and_without_extents(catalog: Catalog, index: Index, tmp_path: Path):
    assert ids(catalog) == []
    document_ = scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z")
    plain = {k: v for k, v in document_.items() if k not in ("crs", "grids", "measurements")}
    index.add_product(product("plain", measurements=[]))
    index.datacube.index.products.get_by_name_unsafe("plain")
    nowhere = {**plain, "product": {"name": "plain"}, "id": "11111111-2222-3333-4444-555555555555"}
    from datacube.model import Dataset

    dataset = Dataset(index.index.products.get_by_name_unsafe("plain"), nowhere, uri="file:///nowhere.yaml")
    index.index.datasets.add(dataset, with_lineage=False)
    (item,) = next(pages(catalog, collections=("plain",)))
    assert (item["geometry"], "bbox" in item, item["assets"]) == (None, False, {})
    assert validate_dict({**item, "stac_extensions": []})
    assert ids(catalog, area=parse_bbox([-180, -90, 180, 90])) == []


@pytest.mark.parametrize(
    "text",
    ["", "..", "../..", "yesterday", "2022-13-01", "2022-01-01/2021-01-01", "2022-01-01T10:00:00", "1/2/3"],
)
def test_invalid_times_are_refused(text: str):
    with pytest.raises(RequestInvalid):
        parse_interval(text)


@pytest.mark.parametrize(
    "bounds",
    [[1, 2, 3], "1,2,3,4", [0, 5, 1, 4], [0, 0, 200, 1], [0, 0, True, 1], [0, float("nan"), 1, 1], None],
)
def test_invalid_boxes_are_refused(bounds: Any):
    with pytest.raises(RequestInvalid, match="bbox"):
        parse_bbox(bounds)
