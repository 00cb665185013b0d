"""R: the programs on the pages as they are, and the requests of the R client, where R is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from odc_openeo.indexing.samples import PRODUCTS, S2_PRODUCT
from tests.clients.test_pages import program, run
from tests.clients.truth import scenes

FLOW = Path(__file__).parent / "r" / "flow.R"


def require_r(*packages: str) -> str:
    """The program that runs R; skip without it or one of the packages."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        pytest.skip("R is not installed (Debian: apt-get install r-base-core r-cran-httr2 r-cran-jsonlite)")
    for package in packages:
        code = f"quit(status = !requireNamespace('{package}', quietly = TRUE))"
        if subprocess.run([rscript, "-e", code], capture_output=True, check=False).returncode:
            pytest.skip(f"R's package {package} is not installed")
    return rscript


def test_the_programs_are_r(stack: str, tmp_path: Path) -> None:
    rscript = require_r()
    for collection in PRODUCTS:
        (tmp_path / f"{collection}.R").write_text(program(stack, "r", collection))
    code = "for (file in list.files(pattern = 'R$')) cat(file, length(parse(file)), '\\n')"
    done = subprocess.run([rscript, "-e", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lengths = dict(line.split() for line in done.stdout.splitlines())
    assert lengths == {f"{collection}.R": "7" for collection in PRODUCTS}


def test_the_r_program_runs(stack: str, tmp_path: Path) -> None:
    rscript = require_r("openeo")
    (tmp_path / "program.R").write_text(program(stack, "r", S2_PRODUCT))
    piece: xr.Dataset = run([rscript, "program.R"], tmp_path)
    assert {"B04", "B03", "B02"} <= set(piece.data_vars)


@pytest.fixture(scope="module")
def report(stack: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the requests."""
    rscript = require_r("httr2", "jsonlite")
    command = [rscript, str(FLOW), stack, str(tmp_path_factory.mktemp("r"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_discovery(report: dict[str, Any]) -> None:
    assert report["version"] == "1.3.0"
    assert report["user"] == "demo"
    assert set(PRODUCTS) <= set(report["collections"])
    assert set(report["dimensions"]) == {"x", "y", "t", "bands"}
    assert {"GTiff", "netCDF"} <= set(report["formats"])
    assert {"XYZ", "WMTS"} == set(report["services"])


def test_results_and_jobs(report: dict[str, Any], samples: Path) -> None:
    assert report["errors"] == 0
    assert (report["status"], report["title"], report["listed"]) == ("finished", "Changed by R", True)
    assert report["estimate"] >= 0
    assert report["logs"] > 0
    with rasterio.open(report["result"]) as one, rasterio.open(report["asset"]) as other:
        pixels = one.read(1)
        np.testing.assert_array_equal(pixels, other.read(1))
        bounds = one.bounds
    layers = []
    for scene in scenes(samples / S2_PRODUCT / "32TPS", "2022-06-01", "2022-06-09"):
        with rasterio.open(scene.bands["B04"]) as file:
            layers.append(file.read(1, window=file.window(*bounds)))
    np.testing.assert_array_equal(pixels, np.max(layers, axis=0))


def test_services_and_stored_processes(report: dict[str, Any]) -> None:
    assert report["service"] == "XYZ"
    assert report["parameters"] == "x"
