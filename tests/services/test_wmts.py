"""WMTS by key-value pairs and by paths, on the map of the world and on the pixels of the collection."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from flask.testing import FlaskClient
from PIL import Image

from tests.services.conftest import TIMES, Create, graph, load, node
from tests.services.test_tiles import HERE, RED, ZOOM, grey

NS = {"w": "http://www.opengis.net/wmts/1.0", "ows": "http://www.opengis.net/ows/1.1"}
XLINK = "{http://www.w3.org/1999/xlink}href"


def document(client: FlaskClient, path: str) -> ET.Element:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content_type == "application/xml"
    return ET.fromstring(answer.data)


def test_wmts_capabilities_describe_the_service(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(RED, "WMTS")
    root = document(client, path)
    for same in (
        "?request=GetCapabilities&service=WMTS",
        "?REQUEST=getcapabilities",
        "/WMTSCapabilities.xml",
    ):
        assert ET.tostring(document(client, f"{path}{same}")) == ET.tostring(root)
    sets = [link.text for link in root.findall(".//w:TileMatrixSetLink/w:TileMatrixSet", NS)]
    assert sets == ["EPSG:3857", "EPSG:32632"]
    assert [link.text for link in root.findall(".//w:Dimension/w:Value", NS)] == list(TIMES)
    west, south = map(float, root.findtext(".//ows:LowerCorner", "", NS).split())
    assert (round(west, 2), round(south, 2)) == (10.31, 46.94)
    get = root.find(".//ows:Get", NS)
    assert get is not None
    assert get.attrib[XLINK] == f"http://localhost{path}?"


def test_the_same_tile_by_pairs_and_by_path(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(RED, "WMTS")
    root = document(client, path)
    template = root.find(".//w:ResourceURL", NS).attrib["template"].removeprefix("http://localhost")
    values = {"TileMatrixSet": "EPSG:3857", "TileMatrix": ZOOM, "TileCol": HERE[0], "TileRow": HERE[1]}
    by_path = client.get(template.format(Time=TIMES[0], **values))
    pairs = "&".join(f"{name.lower()}={value}" for name, value in values.items())
    by_pairs = client.get(f"{path}?service=WMTS&Request=GetTile&layer=result&{pairs}&TIME={TIMES[0]}")
    assert by_path.status_code == by_pairs.status_code == 200
    assert by_path.data == by_pairs.data
    assert np.isfinite(grey(Image.open(io.BytesIO(by_path.data)))).any()
    latest = client.get(f"{path}?service=WMTS&request=GetTile&{pairs}")
    assert latest.data != by_pairs.data


def test_pixels_of_the_collection_are_shown_as_they_are(
    two: list[dict[str, Any]], create: Create, client: FlaskClient
) -> None:
    path = create(RED, "WMTS")
    answer = client.get(f"{path}/wmts/EPSG:32632/0/0/0.png")
    assert answer.status_code == 200
    pixels = np.asarray(Image.open(io.BytesIO(answer.data)).convert("LA"))
    file = two[1]["location"].removeprefix("file://").replace("scene.odc-metadata.yaml", "B04.tif")
    with rasterio.open(file) as source:
        values = source.read(1)
    assert (pixels[:60, :80, 0] == values)[values > 0].all()
    assert ((pixels[:60, :80, 1] > 0) == (values > 0)).all()
    assert not pixels[60:, :, 1].any()
    assert not pixels[:, 80:, 1].any()


def test_errors_as_ogc_clients_read_them(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(graph(load=load(), save=node("save_result", format="GTiff")), "WMTS")
    for query, code in (
        ("request=GetTile&service=WMTS", "InvalidParameterValue"),
        ("request=GetMap", "InvalidParameterValue"),
        ("request=GetTile&tilematrixset=X&tilematrix=1&tilecol=0&tilerow=0", "InvalidParameterValue"),
        ("request=GetTile&tilematrixset=EPSG:3857&tilematrix=1&tilecol=5&tilerow=0", "TileOutOfRange"),
        (
            f"request=GetTile&tilematrixset=EPSG:3857&tilematrix=14&tilecol={HERE[0]}&tilerow={HERE[1]}",
            "NoApplicableCode",
        ),
    ):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code >= 400
        root = ET.fromstring(answer.data)
        result = root.find("ows:Exception", NS)
        assert result is not None
        assert result.attrib["exceptionCode"] == code, query
        assert result.findtext("ows:ExceptionText", "", NS).strip()
