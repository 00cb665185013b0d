"""What the `openeo` client does first, against the running stack."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import openeo
import pytest
import rasterio
import requests
from openeo.rest import OpenEoApiError
from rich.console import Console

from odc_openeo.indexing.samples import CONFORMANCE_BOX, PRODUCTS, S2_PRODUCT
from odc_openeo.stack.demo import run_demo

DAYS = ["2022-06-01", "2022-06-03"]


def small_cube(connection: openeo.Connection, bands: list[str]) -> Any:
    """100 m x 100 m of one date, on the grid of the files."""
    west, south = CONFORMANCE_BOX["west"], CONFORMANCE_BOX["south"]
    box = {"west": west, "south": south, "east": west + 100, "north": south + 100, "crs": 32632}
    return connection.load_collection(S2_PRODUCT, spatial_extent=box, temporal_extent=DAYS, bands=bands)


def test_capabilities(connection: openeo.Connection, stack: str) -> None:
    capabilities = connection.capabilities()
    assert capabilities.api_version() == "1.3.0"
    assert capabilities.supports_endpoint("/credentials/basic", "GET")
    assert capabilities.supports_endpoint("/jobs", "POST")
    assert capabilities.supports_endpoint("/services", "POST")
    assert connection.root_url.rstrip("/") == f"{stack}/openeo/1.3"
    assert connection.describe_account()["name"] == "demo"


def test_discovery(connection: openeo.Connection) -> None:
    assert set(PRODUCTS) <= set(connection.list_collection_ids())
    described = connection.describe_collection(S2_PRODUCT)
    assert set(described["cube:dimensions"]) == {"x", "y", "t", "bands"}
    assert "GTiff" in connection.list_file_formats()["output"]
    assert {"load_collection", "save_result", "add"} <= {p["id"] for p in connection.list_processes()}


def test_one_plus_one_is_two(connection: openeo.Connection) -> None:
    node = {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}
    assert connection.execute({"add": node}) == 2


def test_download(connection: openeo.Connection, tmp_path: Path) -> None:
    target = tmp_path / "small.tif"
    small_cube(connection, ["B08", "B04"]).download(target, format="gtiff")
    with rasterio.open(target) as source:
        assert (source.width, source.height, source.count) == (10, 10, 2)
        assert source.descriptions == ("B08", "B04")
        assert source.crs.to_epsg() == 32632


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": "nowhere"}, "CollectionNotFound"),
        ({"bands": ["B99"]}, "ProcessParameterInvalid"),
        ({"temporal_extent": ["2022-06-03", "2022-06-01"]}, "TemporalExtentEmpty"),
        ({"spatial_extent": {"west": 2, "south": 0, "east": 1, "north": 1}}, "ProcessParameterInvalid"),
        (
            {"spatial_extent": {"west": 1, "south": 0, "east": 2, "north": 1, "crs": 999999}},
            "ProcessParameterInvalid",
        ),
        ({"spatial_extent": {"west": 1, "south": 0, "east": 2, "north": 1}}, "NoDataAvailable"),
    ],
)
def test_errors_reach_the_user(connection: openeo.Connection, change: dict[str, Any], expected: str) -> None:
    box = {"west": 11.30, "south": 46.47, "east": 11.31, "north": 46.48}
    arguments = {"id": S2_PRODUCT, "spatial_extent": box, "temporal_extent": DAYS, **change}
    node = {"process_id": "load_collection", "arguments": arguments, "result": True}
    with pytest.raises(OpenEoApiError) as caught:
        connection.execute({"load": node}, validate=False)
    assert 400 <= caught.value.http_status_code < 500
    assert caught.value.code == expected


def test_a_body_of_100_megabytes_is_refused_at_once(stack: str) -> None:
    start = time.monotonic()
    token = requests.get(f"{stack}/openeo/1.3/credentials/basic", auth=("demo", "demo"), timeout=60)
    headers = {"Authorization": f"Bearer {token.json()['access_token']}", "Content-Type": "application/json"}
    url = f"{stack}/openeo/1.3/result"
    whole, in_chunks = b" " * 100_000_000, (b" " * 100_000 for _ in range(1000))
    for body in (whole, in_chunks):
        answer = requests.post(url, data=body, headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (413, "RequestTooLarge")
    assert time.monotonic() - start < 10
    assert requests.get(f"{stack}/health", timeout=60).status_code == 200


def test_the_demonstration(stack: str, tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    run_demo(stack, tmp_path / "out", "demo", "demo", console)
    root = {path.name for path in (tmp_path / "out").iterdir()}
    assert root == {
        "ndvi-composite.tif",
        "ndvi-composite.png",
        "ndvi-series.csv",
        "ndvi-series.json",
        "ndvi-series.png",
    }
    assert S2_PRODUCT in console.export_text()
    with rasterio.open(tmp_path / "out" / "ndvi-composite.tif") as source:
        ndvi = source.read(1, masked=True)
        assert source.overviews(1)
    assert ndvi.count() > 0.95 * ndvi.size
    assert ndvi.min() < 0.2 < 0.75 < ndvi.max()
    series = json.loads((tmp_path / "out" / "ndvi-series.json").read_text())
    assert len(series) == 35
    assert all(len(values) == 3 for values in series.values())
