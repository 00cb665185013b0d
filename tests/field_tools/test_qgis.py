"""Map services, and Items and assets of the STAC API, as layers of QGIS on a virtual screen."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pytest
import rasterio
import requests
from PIL import Image
from pystac_client import Client

from tests.field_tools.conftest import PRODUCT, REGION, ROOT

PYTHON = "/usr/bin/python3"
PICTURES = ROOT / "build" / "screenshots"
"""Pictures of the last run, to be looked at."""
ZOOM = 14
WORLD = 20037508.342789244
PLACE = (11.345, 46.49)
INSTALL = "apt-get install --no-install-recommends qgis python3-qgis xvfb xauth"


@pytest.fixture(scope="module")
def display() -> list[str]:
    """The beginning of a command that runs on a virtual screen with the Python of QGIS."""
    if shutil.which("xvfb-run") is None or not Path(PYTHON).exists():
        pytest.skip(f"no virtual screen (Debian: {INSTALL})")
    done = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"QGIS is not installed (Debian: {INSTALL})")
    return ["xvfb-run", "--auto-servernum", PYTHON]


@pytest.fixture(scope="module")
def services(connection: openeo.Connection) -> Iterator[dict[str, str]]:
    """Addresses of map services of a band, by type."""
    cube = connection.load_collection(PRODUCT, temporal_extent=["2022-06-01", "2022-06-03"], bands=["B08"])
    settings = {"range": [0, 5000], "public": True, "time": "2022-06-01T10:10:31"}
    running = {
        kind: connection.create_service(cube.flat_graph(), kind, configuration=settings)
        for kind in ("XYZ", "WMTS")
    }
    yield {kind.lower(): service.describe_service()["url"] for kind, service in running.items()}
    for service in running.values():
        service.delete_service()


@pytest.fixture(scope="module")
def tile() -> tuple[int, int]:
    """Column and row of the tile at the place."""
    column = (PLACE[0] + 180) / 360 * 2**ZOOM
    row = (1 - math.asinh(math.tan(math.radians(PLACE[1]))) / math.pi) / 2 * 2**ZOOM
    return int(column), int(row)


@pytest.fixture(scope="module")
def catalogue(stack: str) -> Client:
    """The STAC API."""
    return Client.open(f"{stack}/openeo/1.3/")


@pytest.fixture(scope="module")
def asset(catalogue: Client) -> str:
    """The address of a band of a scene."""
    search = catalogue.search(
        collections=[PRODUCT],
        datetime="2022-06-01",
        filter=f"odc:region_code = '{REGION}'",
        filter_lang="cql2-text",
    )
    return next(search.items()).assets["B08"].href


@pytest.fixture(scope="module")
def report(
    display: list[str], services: dict[str, str], tile: tuple[int, int], asset: str, stack: str
) -> dict[str, Any]:
    """What QGIS reads and draws."""
    size = 2 * WORLD / 2**ZOOM
    west, north = -WORLD + tile[0] * size, WORLD - tile[1] * size
    PICTURES.mkdir(parents=True, exist_ok=True)
    links = {
        **services,
        "asset": asset,
        "stac": f"{stack}/openeo/1.3/",
        "collection": PRODUCT,
        "extent": [west, north - size, west + size, north],
        "folder": str(PICTURES),
    }
    command = [*display, str(Path(__file__).with_name("show_in_qgis.py")), json.dumps(links)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_all_layers_load(report: dict[str, Any]) -> None:
    assert report["reasons"] == {}
    assert set(report["valid"]) == {"xyz", "wmts", "asset", "items"}


@pytest.mark.parametrize("kind", ["xyz", "wmts"])
def test_map_services_are_drawn(
    report: dict[str, Any], services: dict[str, str], tile: tuple[int, int], kind: str
) -> None:
    assert report["errors"][kind] == []
    answer = requests.get(services["xyz"].format(z=ZOOM, x=tile[0], y=tile[1]), stream=True, timeout=60)
    expected = np.asarray(Image.open(answer.raw).convert("RGBA"))
    drawn = np.asarray(Image.open(PICTURES / f"{kind}.png").convert("RGBA"))
    assert len(np.unique(expected.reshape(-1, 4), axis=0)) > 50
    np.testing.assert_array_equal(drawn, expected)


def test_assets_are_read(report: dict[str, Any], asset: str) -> None:
    with rasterio.open(asset) as file:
        assert report["asset"] == file.read(1).diagonal().sum()


def test_items_are_features(report: dict[str, Any], catalogue: Client) -> None:
    assert report["items"] == sorted(item.id for item in catalogue.search(collections=[PRODUCT]).items())
    assert {"id", "datetime", "eo:cloud_cover"} <= set(report["fields"])


def test_all_layers_on_one_map(report: dict[str, Any]) -> None:
    picture = np.asarray(Image.open(PICTURES / "canvas.png").convert("RGB")).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1:].max(axis=-1) < 60)
    assert red.sum() > 500, "outlines of the Items"
    grey = (np.ptp(picture, axis=-1) == 0) & (picture[..., 0] < 250)
    assert grey.mean() > 0.3, "the map service"
