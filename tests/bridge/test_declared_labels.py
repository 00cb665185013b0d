"""Labels on back-ends without `dimension_labels`: from metadata and Items, else the user passes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import openeo
import pytest
import requests
import xarray as xr
from openeo_xarray.declared_labels import find_declared_labels
from openeo_xarray.errors import LabelsUnknown

import openeo_xarray
from odc_openeo.indexing.samples import CLIMATE_PRODUCT, DEM_PRODUCT, S2_PRODUCT
from tests.bridge.conftest import BOX, PERIOD
from tests.bridge.equality import check_equal

MISSING = "dimension_labels"


class Relay(BaseHTTPRequestHandler):
    """Passes requests on to a service, as if it had no process `dimension_labels`."""

    def __init__(self, service: str, *arguments: Any) -> None:
        self.service = service
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.pass_on("GET", None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if MISSING.encode() in body:
            self.answer(
                400, json.dumps({"code": "ProcessUnsupported", "message": "No such process."}).encode()
            )
        else:
            self.pass_on("POST", body)

    def pass_on(self, method: str, body: bytes | None) -> None:
        names = ("Authorization", "Content-Type", "Accept")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        answer = requests.request(method, self.service + self.path, data=body, headers=headers, timeout=60)
        content = answer.content
        if self.path.endswith("/processes"):
            listed = answer.json()
            listed["processes"] = [p for p in listed["processes"] if p["id"] != MISSING]
            content = json.dumps(listed).encode()
        if "json" in answer.headers.get("Content-Type", ""):
            # Links of the service lead past the relay.
            content = content.replace(self.service.encode(), f"http://{self.headers['Host']}".encode())
        self.answer(answer.status_code, content, answer.headers.get("Content-Type", ""))

    def answer(self, status: int, content: bytes, media_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def plain(stack: str) -> Iterator[openeo.Connection]:
    """A connection to the running stack that has no `dimension_labels`."""
    root, _, path = stack.partition("//")[2].partition("/")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Relay, f"http://{root}")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = openeo.connect(f"http://127.0.0.1:{server.server_port}/{path}", auto_validate=False)
        assert f":{server.server_port}/" in connection.root_url
        yield connection.authenticate_basic("demo", "demo")
        server.shutdown()


DEGREES = {"west": 11.339, "south": 46.487, "east": 11.342, "north": 46.489}


def test_pixels_and_times(
    plain: openeo.Connection, connection: openeo.Connection, downloaded: xr.Dataset
) -> None:
    times = openeo_xarray.open(connection, S2_PRODUCT, bbox=DEGREES, time=PERIOD, bands=["B04"]).time.values
    dataset = openeo_xarray.open(
        plain, S2_PRODUCT, bbox=BOX, crs=32632, time=PERIOD, bands=["B04", "SCL"], labels={"time": times}
    )
    for name in ("time", "y", "x"):
        np.testing.assert_array_equal(dataset[name], downloaded[name])
    clear = dataset.B04.where(dataset.SCL == 4).mean("time")
    check_equal(clear.compute(), downloaded.red.where(downloaded.scl == 4).mean("time").rename("B04"))


@pytest.mark.parametrize("collection", [DEM_PRODUCT, CLIMATE_PRODUCT])
def test_whole_collections(plain: openeo.Connection, connection: openeo.Connection, collection: str) -> None:
    labels = openeo_xarray.open(connection, collection)
    dataset = openeo_xarray.open(plain, collection)
    for name in labels.dims:
        np.testing.assert_allclose(
            dataset[name].values.astype(float), labels[name].values.astype(float), rtol=1e-12
        )


def test_times_of_items(plain: openeo.Connection, connection: openeo.Connection) -> None:
    labels = openeo_xarray.open(connection, S2_PRODUCT, bbox=DEGREES, time=PERIOD, bands=["B04"])
    given = {name: labels[name].values for name in ("x", "y")}
    dataset = openeo_xarray.open(plain, S2_PRODUCT, bbox=DEGREES, time=PERIOD, bands=["B04"], labels=given)
    np.testing.assert_array_equal(dataset.time, labels.time)
    series = [d.B04.max(["y", "x"]).compute().values for d in (dataset, labels)]
    np.testing.assert_array_equal(*series)


def test_what_to_pass_is_said(plain: openeo.Connection) -> None:
    with pytest.raises(LabelsUnknown, match=r"labels=\{'t': \[...\]\}"):
        openeo_xarray.open(plain, S2_PRODUCT, bbox=BOX, crs=32632, time=PERIOD, bands=["B04"])
    with pytest.raises(LabelsUnknown, match=r"neither a step .* in EPSG:4326.*labels=\{'y': \[...\]\}"):
        openeo_xarray.open(plain, S2_PRODUCT, bbox=DEGREES, time=PERIOD, bands=["B04"])


def test_other_errors_stay(plain: openeo.Connection, connection: openeo.Connection) -> None:
    with pytest.raises(openeo.rest.OpenEoApiError) as failure:
        openeo_xarray.open(connection, S2_PRODUCT, time=("1990-01-01", "1990-02-01"), bands=["B04"])
    assert failure.value.code == "NoDataAvailable"


# --- Metadata of other back-ends -----------------------------------------------------------------


@dataclass
class Part:
    """What is asked for of a collection."""

    spatial_extent: dict[str, Any] | None = None
    temporal_extent: tuple[str | None, str | None] | None = None
    finest_resolution: float | None = None
    connection: Any = None
    collection: str = "c"


def find(kind: str, declared: dict[str, Any], **part: Any) -> np.ndarray:
    metadata = {"cube:dimensions": {"d": declared}}
    return find_declared_labels(Part(**part), metadata, "d", kind)


BOX_IN_METRES = {"west": 600012, "south": 5199988, "east": 600041, "north": 5200019, "crs": 32632}


def test_grids_in_metres_are_counted_from_zero() -> None:
    box = {"spatial_extent": BOX_IN_METRES, "finest_resolution": 10.0}
    np.testing.assert_array_equal(find("x", {"extent": [11, 12]}, **box), [600015, 600025, 600035])
    np.testing.assert_array_equal(find("y", {"extent": [46, 47]}, **box), [5200015, 5200005, 5199995])


@pytest.mark.parametrize("code", [32632, "EPSG:32632", {"id": {"authority": "EPSG", "code": 32632}}])
def test_grids_of_the_collection_are_counted_from_its_edge(code: Any) -> None:
    declared = {"extent": [599997, 700000], "step": 20, "reference_system": code}
    labels = find("x", declared, spatial_extent=BOX_IN_METRES)
    np.testing.assert_array_equal(labels, [600027])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("P10D", ["2022-06-11", "2022-06-21", "2022-07-01"]),
        ("P1M", ["2022-07-01"]),
        ("P1Y", []),
        ("PT12H", None),
        ("P2W", ["2022-06-15", "2022-06-29"]),
    ],
)
def test_regular_times(step: str, expected: list[str] | None) -> None:
    declared = {"extent": ["2022-06-01T00:00:00Z", None], "step": step}
    part = {"temporal_extent": ("2022-06-05", "2022-07-05")}
    if expected == []:
        with pytest.raises(LabelsUnknown, match="no time"):
            find("time", declared, **part)
        return
    labels = find("time", declared, **part)
    if expected is None:
        assert labels.size == 60
    else:
        np.testing.assert_array_equal(labels, np.array(expected, "datetime64[ns]"))


def test_listed_times_in_other_zones() -> None:
    labels = find("time", {"values": ["2022-06-02T01:00:00+02:00", "2022-06-01T12:30:00.5Z", "2022-06-03"]})
    expected = ["2022-06-01T12:30:00.500", "2022-06-01T23:00", "2022-06-03"]
    np.testing.assert_array_equal(labels, np.array(expected, "datetime64[ns]"))


@pytest.mark.parametrize(
    ("kind", "declared", "part", "reason"),
    [
        ("x", {"extent": [0, 1]}, {}, "neither a step"),
        ("x", {"step": 1}, {}, "no extent"),
        ("other", {}, {}, "list no values"),
        ("time", {}, {}, "no Items"),
        ("time", {"step": "monthly", "extent": ["2022-01-01", None]}, {}, "'monthly'"),
        ("time", {"step": "P1D", "extent": ["2022-01-01", None]}, {}, "has an end"),
        ("x", {"extent": [0, 9], "step": 3}, {"spatial_extent": {"west": 1.6, "east": 2.9}}, "no pixel"),
    ],
)
def test_what_metadata_do_not_say(kind: str, declared: Any, part: Any, reason: str) -> None:
    with pytest.raises(LabelsUnknown, match=reason):
        find(kind, declared, **part)


def test_pages_of_items() -> None:
    """The times of all pages count, each once."""
    pages = {
        "https://host/items": {
            "features": [{"properties": {"datetime": "2022-06-02T10:00:00Z"}}],
            "links": [{"rel": "next", "href": "items?page=2"}],
        },
        "https://host/items?page=2": {
            "features": [
                {"properties": {"datetime": None, "start_datetime": "2022-06-01T10:00:00Z"}},
                {"properties": {"datetime": "2022-06-02T10:00:00Z"}},
            ]
        },
    }
    sent: list[Any] = []

    def get(url: str, params: Any = None) -> Any:
        sent.append(params)
        return SimpleNamespace(json=lambda: pages[url])

    connection = SimpleNamespace(root_url="https://host/", get=get)
    metadata = {"cube:dimensions": {"t": {}}, "links": [{"rel": "items", "href": "items"}]}
    part = Part(DEGREES, ("2022-06-01", None), connection=connection)
    labels = find_declared_labels(part, metadata, "t", "time")
    np.testing.assert_array_equal(labels, np.array(["2022-06-01T10", "2022-06-02T10"], "datetime64[ns]"))
    assert sent[0] == {
        "limit": 100,
        "bbox": "11.339,46.487,11.342,46.489",
        "datetime": "2022-06-01T00:00:00Z/..",
    }
