"""The start page, and the pictures of extents on it."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient

from odc_openeo.api.locator import Box, close_up, extent_box, time_axis
from odc_openeo.api.pages import markdown
from tests.api.conftest import API

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def collection(bbox: list[float], start: str | None, end: str | None) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[start, end]]}}
    return {"id": "a", "extent": extent}


def test_browsers_get_a_page_and_clients_the_capabilities(client: FlaskClient) -> None:
    page = client.get("/", headers=HTML)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = client.get("/", headers=headers, follow_redirects=True)
        assert answer.get_json()["type"] == "Catalog"


class Checker(HTMLParser):
    """Collects addresses, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("href", "src") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("href", "src") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_its_own_links_work(client: FlaskClient) -> None:
    page = client.get("/", headers=HTML)
    checker = Checker()
    checker.feed(page.text)
    assert checker.open == []
    own = {a.removeprefix("http://localhost") for a in checker.addresses if "localhost" in a or a[0] == "/"}
    own = {a for a in own if not a.startswith("https://")}
    assert {"/static/pages.css", f"{API}/processes"} <= own
    for address in own:
        assert client.get(address).status_code == 200, address
    assert not re.search(r'(src|url\()["\']?https?:', page.text)


def test_the_page_tells_how_to_connect(client: FlaskClient) -> None:
    page = client.get("/", headers=HTML).text
    assert 'openeo.connect("http://localhost")' in page
    assert "https://editor.openeo.org?server=http%3A%2F%2Flocalhost" in page
    assert "Nothing is indexed yet" in page


def test_text_of_others_is_never_markup() -> None:
    assert "<script>" not in markdown("a <script>alert(1)</script> *b*")
    assert "<em>b</em>" in markdown("a <script>alert(1)</script> *b*")
    assert "href" not in markdown("[a](javascript:alert(1))")


@pytest.mark.parametrize(
    "bbox", [[11.25, 46.45, 11.48, 46.56], [-18, -35, 52, 38], [176, -20, -178, -15], [5, 5, 5, 5]]
)
def test_close_ups_hold_the_extent(bbox: list[float]) -> None:
    box = extent_box(collection(bbox, None, None))
    assert box is not None
    near = close_up(box)
    assert near.view.west < box.west <= box.east < near.view.east
    assert near.view.south < box.south <= box.north < near.view.north
    assert 1 <= len(near.parallels) <= 6
    assert 0 < near.scale_degrees < near.view.width / 2


def test_boxes_in_words() -> None:
    assert Box(11.25, 46.45, 11.48, 46.56).text == "11.25°E – 11.48°E, 46.45°N – 46.56°N"
    assert Box(-18, -35, 52, 38).text == "18°W – 52°E, 35°S – 38°N"
    assert Box(176, -20, 182, -15).text == "176.00°E – 178.00°W, 20.00°S – 15.00°S"


def test_spans_on_the_time_axis() -> None:
    year = collection([0, 0, 1, 1], "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z")
    open_end = collection([0, 0, 1, 1], "2020-07-01T12:00:00Z", None)
    axis = time_axis([year, open_end])
    assert axis is not None
    assert (axis.start, axis.end) == (
        datetime.fromisoformat("2020-01-01T00:00:00Z"),
        datetime.fromisoformat("2023-01-01T00:00:00Z"),
    )
    span = axis.span(year)
    assert span is not None
    assert span.left == pytest.approx(100 * 366 / 1096)
    assert span.width == pytest.approx(100 * 365 / 1096)
    later = axis.span(open_end)
    assert later is not None
    assert later.left + later.width == pytest.approx(100)
    assert later.text == "2020-07-01 – open"
    assert time_axis([collection([0, 0, 1, 1], None, None)]) is None
