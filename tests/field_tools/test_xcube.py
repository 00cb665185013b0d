"""Zarr results in xcube: opened by its stores, and shown by `xcube serve`, as `docs/field-tools.md` says."""

from __future__ import annotations

import io
import json
import math
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from pyproj import Transformer

from odc_openeo.stack.embedded import free_port
from tests.conftest import wait_until_answering
from tests.field_tools.conftest import BOX, Results, find_python, run_script

NAME = "cube.zarr"
TIME = "2022-06-08T10:10:31Z"


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of the environment with xcube."""
    return find_python(".venv-xcube")


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store, downloaded and unpacked."""
    folder = tmp_path_factory.mktemp("xcube")
    archive = requests.get(results.zarr, timeout=60).content
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder / NAME)
    return folder


@pytest.fixture(scope="module")
def server(python: Path, folder: Path) -> Iterator[str]:
    """Root URL of `xcube serve` with the store."""
    port = free_port()
    command = [str(python.with_name("xcube")), "serve", "--address", "127.0.0.1", "--port", str(port), NAME]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until_answering(process, port, 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_stores_open_it(python: Path, folder: Path, results: Results, pixels: dict[str, np.ndarray]) -> None:
    report = json.loads(run_script(python, "read_with_xcube.py", results.zarr, str(folder), NAME))
    np.testing.assert_allclose(report["B04"], pixels["B04"] * 0.0001 - 0.01, atol=1e-9)
    assert report["sizes"] == dict(zip(("time", "y", "x"), pixels["B04"].shape, strict=True))
    assert (report["equal"], report["names"]) == (True, [NAME])
    assert (report["crs"], report["resolution"]) == (BOX["crs"], [10, 10])


def test_the_server_describes_it(server: str, pixels: dict[str, np.ndarray]) -> None:
    described = requests.get(f"{server}/datasets/{NAME}", timeout=60).json()
    assert described["spatialRef"] == "EPSG:32632"
    variables = {entry["name"]: entry for entry in described["variables"]}
    assert set(variables) == {"B04", "B08"}
    assert variables["B08"]["dims"] == ["time", "y", "x"]
    assert variables["B08"]["shape"] == list(pixels["B08"].shape)
    labels = requests.get(f"{server}/datasets/{NAME}/coords/time", timeout=60).json()["coordinates"]
    assert labels == ["2022-06-01T10:10:31Z", TIME]


def test_the_server_computes_series(server: str, pixels: dict[str, np.ndarray]) -> None:
    row, column = 40, 70
    to_degrees = Transformer.from_crs(BOX["crs"], 4326, always_xy=True)
    place = to_degrees.transform(BOX["west"] + 10 * column + 5, BOX["north"] - 10 * row - 5)
    point: dict[str, Any] = {"type": "Point", "coordinates": place}
    answer = requests.post(f"{server}/timeseries/{NAME}/B08", json=point, timeout=60).json()
    expected = pixels["B08"][:, row, column] * 0.0001 - 0.01
    assert [entry["mean"] for entry in answer["result"]] == pytest.approx(list(expected), abs=1e-6)


def test_the_server_draws_tiles(server: str) -> None:
    to_degrees = Transformer.from_crs(BOX["crs"], 4326, always_xy=True)
    lon, lat = to_degrees.transform((BOX["west"] + BOX["east"]) / 2, (BOX["south"] + BOX["north"]) / 2)
    x = int((lon + 180) / 360 * 2**14)
    y = int((1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * 2**14)
    shades = {}
    for low, high in ((0, 1), (0, 0.4)):
        query = {"crs": "EPSG:3857", "vmin": low, "vmax": high, "time": TIME}
        answer = requests.get(f"{server}/tiles/{NAME}/B08/14/{y}/{x}", query, timeout=60)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
        shades[high] = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA")).astype(int)
    visible = shades[1][..., 3] > 0
    assert visible.mean() > 0.05
    assert len(np.unique(shades[1][visible], axis=0)) > 20
    assert (shades[1] != shades[0.4]).any()
