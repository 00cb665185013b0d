"""Pages for everybody: the start page, collections, processes, and the pictures on them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from odc_openeo.api.pages import render_markdown
from odc_openeo.api.pages.chart import make_chart
from odc_openeo.api.pages.jobs import describe_usage
from odc_openeo.api.pages.locator import DegreeBox, find_extent_box, make_close_up, make_time_axis
from odc_openeo.api.pages.schemas import describe_type, list_values
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.registry.process import PROCESSES
from tests.api.conftest import API
from tests.api.html import HTML, checked, crawl, elements, text_of
from tests.catalog.scenes import PRODUCT, Index, product, scene

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{ 7 * 7 }}"


@pytest.fixture
def index(odc_database: str) -> Iterator[Index]:
    """An index to fill, with the tiny product and no dataset."""
    new_index = Index()
    new_index.add_product(PRODUCT)
    yield new_index
    new_index.datacube.close()


def page(client: FlaskClient, address: str) -> Any:
    """The checked document of a page."""
    response = client.get(address, headers=HTML)
    assert response.status_code == 200
    return checked(response, address)


def body(client: FlaskClient, address: str = "/") -> str:
    return text_of(next(elements(page(client, address), "body")))


# --- Start page ----------------------------------------------------------------------------------


def test_browsers_get_a_page_and_clients_the_capabilities(client: FlaskClient) -> None:
    answer = client.get("/", headers=HTML)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert "Accept" in answer.headers["Vary"]
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        followed = client.get("/", headers=headers, follow_redirects=True)
        assert followed.get_json()["type"] == "Catalog"


def test_page_shows_how_to_connect(client: FlaskClient) -> None:
    text = client.get("/", headers=HTML).text
    assert (
        "openeo.connect(&#34;http://localhost&#34;)" in text or 'openeo.connect("http://localhost")' in text
    )
    assert "https://editor.openeo.org?server=http%3A%2F%2Flocalhost" in text
    assert "Nothing is indexed yet" in text


def test_collections_can_be_searched_and_come_in_pages(client: FlaskClient, index: Index) -> None:
    for number in range(30):
        index.add_product(product(f"p{number:02}", description=f"The number {number}."))
    first, last = page(client, "/"), page(client, "/?page=2")
    assert len(list(elements(first, "article"))) == 24 + 4
    assert len(list(elements(last, "article"))) == 31 - 24 + 4
    assert "p07" in body(client, "/?q=number+7.")
    assert "p08" not in body(client, "/?q=number+7.")
    assert "tiny_s2" in body(client, "/?q=TINY+nir+b08")
    assert "No collection matches all of these words" in body(client, "/?q=nowhere")
    assert client.get("/?page=99&q=%00", headers=HTML).status_code == 400


def test_pages_are_not_sent_again_when_unchanged(client: FlaskClient) -> None:
    first = client.get("/processes", headers=HTML)
    again = client.get("/processes", headers={**HTML, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_all_pages_are_sound_and_all_links_lead_somewhere(
    client: FlaskClient, index: Index, tmp_path: Path
) -> None:
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    seen = crawl(client, "/")
    pages = {address for address, root in seen.items() if root is not None}
    assert {"/", "/collections/tiny_s2", "/processes", "/processes/ndvi", "/sign-in?to=/my/jobs"} <= pages
    assert {f"/processes/{id_}" for id_ in PROCESSES} <= pages
    assert {"/static/pages.css", f"{API}/processes", "/previews/tiny_s2"} <= seen.keys()


def test_behind_a_proxy_that_adds_a_path(odc_config: Config, index: Index) -> None:
    public = create_app(odc_config.model_copy(update={"public_url": "https://example.org/earth"}))
    root = checked(public.test_client().get("/collections/tiny_s2", headers=HTML))
    hrefs = [e.get("href") for e in elements(root, "a", "link") if (e.get("href") or "").startswith("/")]
    assert hrefs
    assert all(href.startswith("/earth/") for href in hrefs)


# --- A collection --------------------------------------------------------------------------------


def test_collection_page_shows_all_metadata(client: FlaskClient, index: Index, tmp_path: Path) -> None:
    days = ("2022-06-01", "2022-06-20", "2022-08-03")
    index.add(*(scene(tmp_path / day, n, f"{day}T10:00:00Z") for n, day in enumerate(days)))
    root = page(client, "/collections/tiny_s2")
    tables = list(elements(root, "table"))
    rows = [[text_of(cell) for cell in elements(row, "th", "td")] for row in elements(tables[1], "tr")]
    assert rows[1] == ["B04", "red", "665 nm", "10 m", "uint16", "0", "0.0001", "-0.1", ""]
    assert rows[4] == ["SCL", "", "", "20 m", "uint8", "255", "", "", ""]
    counts = {text_of(row[0]): text_of(row[1]) for row in elements(tables[0], "tr") if len(row) == 2}
    assert (counts["2022-06"], counts["2022-07"], counts["2022-08"]) == ("2", "0", "1")
    text = text_of(next(elements(root, "main")))
    for expected in ("2022-06-01 – 2022-08-03", "CC-BY-4.0", "EPSG:32632", "of 2022-08-03"):
        assert expected in text


def test_a_collection_without_datasets(client: FlaskClient, index: Index) -> None:
    text = body(client, "/collections/tiny_s2")
    assert "no datasets yet" in text
    assert "Load a part" not in text


def test_missing_page_has_an_error_page(client: FlaskClient) -> None:
    for address in ("/collections/nowhere", "/collections/a%2Fb"):
        answer = client.get(address, headers=HTML)
        assert answer.status_code == 404
        assert "CollectionNotFound" in text_of(checked(answer))
    assert client.get("/processes/nowhere").status_code == 404


def test_metadata_is_escaped_in_pages(odc_config: Config, index: Index, tmp_path: Path) -> None:
    bands = [{"name": "red", "aliases": [HOSTILE], "dtype": "uint8", "nodata": 0, "units": HOSTILE}]
    index.add_product(product("evil", description=HOSTILE, measurements=bands))
    said = {"title": HOSTILE, "keywords": [HOSTILE], "license": HOSTILE}
    said |= {"links": [{"rel": "about", "href": "javascript:alert(3)", "title": HOSTILE}]}
    said |= {"providers": [{"name": HOSTILE}], "description": f"[x](javascript:alert(4)) {HOSTILE}"}
    file = tmp_path / "overrides.yaml"
    file.write_text(yaml.safe_dump({"evil": said}))
    app = create_app(odc_config.model_copy(update={"collection_overrides": file, "title": HOSTILE}))
    for address in ("/", "/collections/evil", f"/?q={HOSTILE}", f"/processes?q={HOSTILE}&category={HOSTILE}"):
        answer = app.test_client().get(address, headers=HTML)
        root = checked(answer, address)
        assert "alert(1)" in text_of(root)
        assert "49" not in text_of(next(elements(root, "h1")))
        assert not [i for i in elements(root, "img") if i.get("src") == "x"]


def test_markdown_of_others_is_safe() -> None:
    assert "<script>" not in render_markdown("a <script>alert(1)</script> *b*")
    assert "<em>b</em>" in render_markdown("a <script>alert(1)</script> *b*")
    assert "href" not in render_markdown("[a](javascript:alert(1))")
    assert "<img" not in render_markdown("![a](https://example.org/track.png)")


# --- Previews ------------------------------------------------------------------------------------


def preview(app: Flask, id_: str = "tiny_s2") -> Any:
    answer = app.test_client().get(f"/previews/{id_}")
    assert answer.status_code == 200
    assert answer.headers["ETag"]
    assert "max-age" in answer.headers["Cache-Control"]
    return answer


def test_the_preview_shows_the_pixels(app: Flask, index: Index, tmp_path: Path) -> None:
    dull = scene(tmp_path / "a", 1, "2022-06-10T10:00:00Z", **{"eo:cloud_cover": 80.0})
    clear = scene(tmp_path / "b", 2, "2022-06-01T10:00:00Z", **{"eo:cloud_cover": 5.0})
    index.add(dull, clear)
    answer = preview(app)
    assert answer.mimetype == "image/png"
    image = np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGBA"))
    with rasterio.open(tmp_path / "b" / "B04.tif") as source:
        values = source.read(1)
    assert image.shape[:2] == values.shape
    np.testing.assert_array_equal(image[..., 3] == 0, values == 0)
    brightness, valid = image[..., :3].astype(int).sum(axis=-1), values > 0
    assert np.corrcoef(brightness[valid], values[valid])[0, 1] > 0.95
    again = app.test_client().get("/previews/tiny_s2", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_a_preview_follows_the_collection(app: Flask, index: Index, tmp_path: Path) -> None:
    assert "no scene to show" in preview(app).text
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    first = preview(app)
    index.add(scene(tmp_path / "b", 2, "2022-05-30T10:00:00Z"))
    assert preview(app).data == first.data
    index.add(scene(tmp_path / "c", 3, "2022-06-02T10:00:00Z"))
    assert preview(app).data != first.data


def test_a_scene_that_cannot_be_read_has_no_preview(app: Flask, index: Index, tmp_path: Path) -> None:
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    (tmp_path / "a" / "B04.tif").unlink()
    answer = preview(app)
    assert answer.mimetype == "image/svg+xml"
    assert "could not be" in answer.text
    assert str(tmp_path) not in answer.text


def test_previews_can_be_switched_off(odc_config: Config, index: Index, tmp_path: Path) -> None:
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    app = create_app(odc_config.model_copy(update={"collection_previews": False}))
    assert "disabled" in preview(app).text
    assert "/previews/" not in app.test_client().get("/collections/tiny_s2", headers=HTML).text


# --- Processes -----------------------------------------------------------------------------------


def test_processes_can_be_searched(client: FlaskClient) -> None:
    def ids(address: str) -> list[str]:
        return [text_of(e) for e in elements(page(client, address), "code") if e.tag == "code"]

    assert ids("/processes") == sorted(PROCESSES)
    assert ids("/processes?q=ndvi")[0] == "ndvi"
    logic = ids("/processes?category=logic")
    assert logic == sorted(id_ for id_, p in PROCESSES.items() if "logic" in p.categories)
    assert "No matching process" in body(client, "/processes?q=nowhere")


def test_a_process_with_parameters_examples_and_errors(client: FlaskClient) -> None:
    text = body(client, "/processes/divide")
    for parameter in PROCESSES["divide"].parameters:
        assert parameter in text
    assert "DivisionByZero" in text
    assert "number or null" in text
    assert "https://processes.openeo.org/#divide" in client.get("/processes/divide").text
    example = PROCESSES["absolute"].examples[0]
    assert json.dumps(example.returns) in body(client, "/processes/absolute")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": ["number", "null"]}, "number or null"),
        ([{"type": "array", "items": {"type": "string", "subtype": "band-name"}}, {"type": "null"}],)
        + ("array of band-name or null",),
        ({"type": "array", "items": {"type": ["number", "null"]}}, "array of (number or null)"),
        ({}, "any"),
        ({"anyOf": [{"type": "string"}, {"type": "string", "format": "date"}]}, "string"),
        (
            {
                "type": "object",
                "subtype": "process-graph",
                "parameters": [{"name": "x"}, {"name": "y"}],
                "returns": {"schema": {"type": "boolean"}},
            },
            "process (x, y) → boolean",
        ),
    ],
)
def test_types_in_words(schema: Any, words: str) -> None:
    assert describe_type(schema) == words


def test_values_in_words() -> None:
    assert list_values({"type": "string", "enum": ["near", "cubic"]}) == ['"near"', '"cubic"']
    assert len(list_values([{"enum": list(range(99))}])) == 41
    assert list_values({"type": "number"}) == []


# --- Drawings ------------------------------------------------------------------------------------


def collection(bbox: list[float], start: str | None, end: str | None) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[start, end]]}}
    return {"id": "a", "extent": extent}


def test_charts_of_months_and_years() -> None:
    few = make_chart({"2022-03": 5, "2022-04": 0, "2022-05": 7})
    assert few is not None
    assert (few.unit, few.top, len(few.bars)) == ("month", 10, 12)
    assert [b.count for b in few.bars] == [0, 0, 5, 0, 7, *[0] * 7]
    assert few.bars[4].height == pytest.approx(0.7 * few.height)
    assert few.bars[4].y + few.bars[4].height == pytest.approx(few.height)
    many = make_chart({f"{year}-{month:02}": 3 for year in range(1990, 2022) for month in range(1, 13)})
    assert many is not None
    assert (many.unit, len(many.bars), many.bars[0].count, many.top) == ("year", 32, 36, 40)
    assert make_chart({}) is None
    assert make_chart({"2022-01": 0}) is not None


@pytest.mark.parametrize("count", [*range(13), 99, 101, 12_345])
def test_charts_label_whole_numbers_of_datasets(count: int) -> None:
    chart = make_chart({"2022-03": count})
    assert chart is not None
    assert isinstance(chart.middle, int)
    assert 2 * chart.middle == chart.top >= max(count, 2)


def test_usage_in_words() -> None:
    usage = {
        "cpu": {"value": 1234.5678, "unit": "cpu-seconds"},
        "duration": {"value": 12.0, "unit": "seconds"},
        "memory": {"value": 6077.6, "unit": "mb-seconds"},
        "storage": {"value": 999_950, "unit": "b"},
    }
    assert describe_usage(usage) == {
        "Processor": "1,234.57 seconds",
        "Duration": "12 seconds",
        "Memory": "506.5 MB on average",
        "Storage": "1.0 MB",
    }
    assert describe_usage({"memory": usage["memory"]}) == {"Memory": "6.1 GB·s"}


@pytest.mark.parametrize(
    "bbox", [[11.25, 46.45, 11.48, 46.56], [-18, -35, 52, 38], [176, -20, -178, -15], [5, 5, 5, 5]]
)
def test_close_ups_hold_the_extent(bbox: list[float]) -> None:
    box = find_extent_box(collection(bbox, None, None))
    assert box is not None
    near = make_close_up(box)
    assert near.view.west < box.west <= box.east < near.view.east
    assert near.view.south < box.south <= box.north < near.view.north
    assert 1 <= len(near.parallels) <= 6
    assert 0 < near.scale_degrees < near.view.width / 2


def test_boxes_in_words() -> None:
    assert DegreeBox(11.25, 46.45, 11.48, 46.56).text == "11.25°E – 11.48°E, 46.45°N – 46.56°N"
    assert DegreeBox(-18, -35, 52, 38).text == "18°W – 52°E, 35°S – 38°N"
    assert DegreeBox(176, -20, 182, -15).text == "176.00°E – 178.00°W, 20.00°S – 15.00°S"


def test_spans_on_the_time_axis() -> None:
    year = collection([0, 0, 1, 1], "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z")
    open_end = collection([0, 0, 1, 1], "2020-07-01T12:00:00Z", None)
    axis = make_time_axis([year, open_end])
    assert axis is not None
    assert (axis.start, axis.end) == (
        datetime.fromisoformat("2020-01-01T00:00:00Z"),
        datetime.fromisoformat("2023-01-01T00:00:00Z"),
    )
    span = axis.find_span(year)
    assert span is not None
    assert span.left == pytest.approx(100 * 366 / 1096)
    assert span.width == pytest.approx(100 * 365 / 1096)
    later = axis.find_span(open_end)
    assert later is not None
    assert later.left + later.width == pytest.approx(100)
    assert later.text == "2020-07-01 – open"
    assert make_time_axis([collection([0, 0, 1, 1], None, None)]) is None
