"""The catalogue in `docs/intake.yaml`: scenes of the STAC API and results of jobs through intake."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import rasterio
import requests

from tests.field_tools.conftest import ROOT, Results, find_python, run_script


@pytest.fixture(scope="module")
def report(stack: str, results: Results) -> dict[str, Any]:
    """What intake reads."""
    links = {"OPENEO_URL": stack, "OPENEO_RESULTS": results.collection, "OPENEO_ZARR": results.zarr}
    python = find_python(".venv-tools")
    return dict(
        json.loads(run_script(python, "read_with_intake.py", str(ROOT / "docs/intake.yaml"), **links))
    )


def test_scenes(report: dict[str, Any], stack: str) -> None:
    query = {
        "collections": ["s2_l2a_sample"],
        "datetime": "2022-06-01T00:00:00Z/2022-06-30T23:59:59Z",
        "limit": 100,
    }
    items = requests.post(f"{stack}/openeo/1.3/search", json=query, timeout=60).json()["features"]
    assert len(items) > 5
    assert report["scenes"] == sorted(item["id"] for item in items)
    with rasterio.open(next(i for i in items if i["id"] == report["item"])["assets"]["B04"]["href"]) as file:
        assert report["asset"] == [*file.shape, int(file.read(1).sum())]


def test_results(report: dict[str, Any], results: Results, pixels: dict[str, np.ndarray]) -> None:
    assert set(results.files) < set(report["results"])
    name, values = report["file"]
    with rasterio.open(results.files[name]) as file:
        assert file.tags()["T"] == "2022-06-01T10:10:31Z"
    np.testing.assert_array_equal(values, np.nan_to_num(pixels["B04"][0]))
    sizes, total = report["cube"]
    assert sorted(sizes) == sorted(pixels["B04"].shape)
    assert total == pytest.approx(np.nansum(pixels["B04"] * 0.0001 - 0.01))
