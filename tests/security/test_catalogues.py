"""Static STAC catalogues that lead in circles, fan out or never end: within limits, each address once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from odc_openeo.catalog import Query
from odc_openeo.errors import ProcessGraphComplexity, UrlUnreachable
from odc_openeo.load import stac_crawler
from odc_openeo.load.stac_crawler import find_items

ROOT = "https://stac.example/"
ITEM = {"type": "Feature", "id": "a", "properties": {}, "assets": {}, "links": []}


class Web:
    """Documents by address; counts how often each is read."""

    def __init__(self, **documents: Any) -> None:
        self.documents = documents
        self.reads: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, url: str) -> Any:
        with self._lock:
            self.reads[url] += 1
        return self.documents[url.removeprefix(ROOT).partition("?")[0]]


def catalogue(*children: str, items: tuple[str, ...] = ()) -> dict[str, Any]:
    links = [{"rel": "child", "href": f"{ROOT}{name}"} for name in children]
    return {"type": "Catalog", "links": [*links, *({"rel": "item", "href": f"{ROOT}{i}"} for i in items)]}


CIRCLES = {
    "itself": {"a": catalogue("a", items=("i",))},
    "itself by fragment": {"a": catalogue("a#x", "a#y", items=("i#z", "i"))},
    "itself many times": {"a": catalogue(*["a"] * 50, items=("i",) * 50)},
    "a circle": {"a": catalogue("b"), "b": catalogue("c"), "c": catalogue("a", items=("i",))},
    "all to all": {name: catalogue(*"abcdef", items=("i",)) for name in "abcdef"},
    "a diamond": {
        "a": catalogue("b", "c"),
        "b": catalogue("d"),
        "c": catalogue("d"),
        "d": catalogue(items=("i",)),
    },
}


@pytest.mark.parametrize("documents", CIRCLES.values(), ids=list(CIRCLES))
def test_each_address_is_read_once(documents: dict[str, Any]) -> None:
    web = Web(**documents, i=ITEM)
    assert len(find_items(web, f"{ROOT}a", Query(), 10)) == 1
    assert set(web.reads.values()) == {1}, web.reads


class Endless(Web):
    """Every document leads to new ones."""

    def __init__(self, width: int, padding: int = 0) -> None:
        super().__init__()
        self.width, self.padding = width, padding

    def __call__(self, url: str) -> Any:
        with self._lock:
            self.reads[url] += 1
        children = [f"{url.removeprefix(ROOT)}-{n}" for n in range(self.width)]
        return {**catalogue(*children), "description": "x" * self.padding}


@pytest.mark.parametrize("width", [1, 3, 500])
def test_the_number_of_documents_is_limited(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_crawler, "MOST_DOCUMENTS", 600)
    web = Endless(width)
    with pytest.raises(ProcessGraphComplexity, match="600 documents"):
        find_items(web, f"{ROOT}a", Query(), 10)
    assert sum(web.reads.values()) <= 600


def test_their_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_crawler, "MOST_BYTES", 100_000)
    web = Endless(1, padding=10_000)
    with pytest.raises(ProcessGraphComplexity, match="100000 bytes"):
        find_items(web, f"{ROOT}a", Query(), 10)
    assert sum(web.reads.values()) <= 11


def test_their_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_crawler, "MOST_SECONDS", 0.2)
    with pytest.raises(ProcessGraphComplexity, match=r"0\.2 s"):
        find_items(Endless(1), f"{ROOT}a", Query(), 10)


def test_pages_that_never_end_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_crawler, "MOST_DOCUMENTS", 20)

    def fetch_page(url: str) -> Any:
        following = [{"rel": "next", "href": f"{url}x"}]
        return {"type": "FeatureCollection", "features": [], "links": following}

    with pytest.raises(ProcessGraphComplexity, match="20 documents"):
        find_items(fetch_page, f"{ROOT}a", Query(), 10)


@pytest.mark.parametrize(
    "links",
    [
        None,
        "x",
        {"rel": "child"},
        [None],
        ["x"],
        [{"rel": "child"}],
        [{"rel": "child", "href": 1}],
        [{"rel": ["child"], "href": "b"}],
    ],
    ids=str,
)
def test_invalid_links_are_skipped(links: Any) -> None:
    assert find_items(Web(a={"type": "Catalog", "links": links}), f"{ROOT}a", Query(), 10) == []


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_documents_that_are_no_objects_are_refused(document: Any) -> None:
    for web in (Web(a=catalogue("b"), b=document), Web(a=catalogue(items=("b",)), b=document)):
        with pytest.raises(UrlUnreachable):
            find_items(web, f"{ROOT}a", Query(), 10)
    with pytest.raises(UrlUnreachable):
        find_items(
            Web(a={"type": "Catalog", "links": [{"rel": "child", "href": "http://[x"}]}),
            f"{ROOT}a",
            Query(),
            10,
        )
