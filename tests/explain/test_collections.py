"""The whole way: a graph that loads a collection, explained by command, over HTTP and on a page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from flask.testing import FlaskClient

from odc_openeo import jobs
from odc_openeo.api.backend import API_PATH
from odc_openeo.config import Config
from odc_openeo.jobs import JobDraft
from odc_openeo.registry.environment import Environment
from odc_openeo.users import accounts
from tests.api.conftest import PASSWORD
from tests.api.html import checked
from tests.api.test_browser_sessions import sign_in
from tests.catalog.scenes import scene
from tests.conftest import COMMAND
from tests.explain.programs import compare_program
from tests.support.graphs import child, value

BOX = {"west": 600100, "south": 5199500, "east": 600600, "north": 5199900, "crs": 32632}
HOSTILE = 'x"""\nimport os; os.abort()  # \'\u2028<script>alert(1)</script>'


def make_graph(**names: str) -> dict[str, Any]:
    """The mean of the NDVI of a collection, saved."""
    load, index, mean = (names.get(name, name) for name in ("load", "index", "mean"))
    return {
        load: {
            "process_id": "load_collection",
            "arguments": {
                "id": "tiny_s2",
                "spatial_extent": BOX,
                "temporal_extent": ["2022-06-01", "2022-06-13"],
                "bands": ["B04", "B08"],
            },
        },
        index: {
            "process_id": "ndvi",
            "arguments": {"data": {"from_node": load}, "nir": "B08", "red": "B04"},
        },
        mean: {
            "process_id": "reduce_dimension",
            "arguments": {
                "data": {"from_node": index},
                "dimension": "t",
                "reducer": child("mean", data=value("data")),
            },
        },
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": mean}, "format": "netCDF"},
            "result": True,
        },
    }


def test_by_command_and_in_a_process_of_its_own(tiny: Any, odc_database: str, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(make_graph()))
    environment = {
        **os.environ,
        "ODC_OPENEO_DATABASE_URL": odc_database,
        "ODC_OPENEO_DATA_DIR": str(tmp_path / "data"),
    }
    command = [*COMMAND, "explain", "graph.json", "--program", "program.py"]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "load (load_collection): tiny_s2" in shown.stdout
    assert "50 x 40 pixels" in shown.stdout
    source = (tmp_path / "program.py").read_text()
    assert "odc_openeo" not in source
    alone = {name: text for name, text in environment.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    written = xr.load_dataarray(tmp_path / "result.nc")
    expected = compare_program({"process_graph": make_graph()}, env=Environment(tiny)).expected
    # Sums of float32 in another order differ in their last digits.
    np.testing.assert_allclose(written.values, expected.values, rtol=1e-6, atol=1e-7)


def test_over_http(tiny: Any, client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = client.post(
        f"{API_PATH}/explain", json={"process": {"process_graph": make_graph()}}, headers=bearer
    )
    assert answer.status_code == 200, answer.get_json()
    explained = answer.get_json()
    assert explained.keys() == {"plan", "text", "diagram", "program", "incomplete"}
    (load,) = explained["plan"]["loads"]
    assert (load["width"], load["height"], load["bands"]) == (50, 40, ["B04", "B08"])
    assert load["crs"] == "EPSG:32632"
    assert load["datasets"] == 4
    assert load["bytes"] == 50 * 40 * 2 * 3 * 2
    assert explained["incomplete"] == []
    assert explained["diagram"].startswith("flowchart TD\n")
    assert explained["plan"]["estimate"]["tasks"] > 0


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({}, "ProcessInvalid", 400),
        (
            {"process": {"process_graph": {"a": {"process_id": "nothing", "arguments": {}, "result": True}}}},
            "ProcessUnsupported",
            400,
        ),
        ({"process": {"process_graph": {}}}, "ProcessGraphInvalid", 400),
    ],
)
def test_errors_are_those_of_the_graph(
    client: FlaskClient, bearer: dict[str, str], body: Any, code: str, status: int
) -> None:
    answer = client.post(f"{API_PATH}/explain", json=body, headers=bearer)
    result = client.post(f"{API_PATH}/result", json=body, headers=bearer)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert answer.get_json()["message"] == result.get_json()["message"]


def test_only_for_users(client: FlaskClient) -> None:
    assert client.post(f"{API_PATH}/explain", json={"process": {}}).status_code == 401


def test_names_of_users_are_no_code(tiny: Any) -> None:
    names = {"load": HOSTILE, "index": "import", "mean": "np"}
    compared = compare_program({"process_graph": make_graph(**names)}, env=Environment(tiny))
    assert "abort()" not in compared.explanation.program.replace("os_abort", "")


def test_page_of_a_job(tiny: Any, client: FlaskClient, odc_config: Config) -> None:
    ada = accounts.create_user(odc_config, "ada", PASSWORD)
    draft = JobDraft(process={"process_graph": make_graph(load=HOSTILE)}, title=HOSTILE)
    job = jobs.create_job(odc_config, ada.id, draft)
    assert client.get(f"/my/jobs/{job}/explanation").status_code == 303
    sign_in(client)
    page = client.get(f"/my/jobs/{job}/explanation")
    assert page.status_code == 200
    checked(page)
    assert "dc.load(" in page.text
    program = client.get(f"/my/jobs/{job}/program.py")
    assert program.mimetype == "text/x-python"
    compile(program.text, "program.py", "exec")
    assert f"/my/jobs/{job}/explanation" in client.get(f"/my/jobs/{job}").text


@pytest.fixture
def clouded(index: Any, catalog: Any, tmp_path: Path) -> Any:
    """Scenes with different cloud covers, one without a value."""
    for seed, cover in enumerate((5, 60, None)):
        more = {} if cover is None else {"eo:cloud_cover": cover}
        index.add(scene(tmp_path / f"c{seed}", seed, f"2022-06-0{seed + 1}T10:00:00Z", **more))
    return catalog


def test_conditions_on_properties(clouded: Any) -> None:
    load = dict(make_graph()["load"]["arguments"])
    load["properties"] = {"eo:cloud_cover": child("lt", x=value("value"), y=20)}
    graph = {"load": {"process_id": "load_collection", "arguments": load, "result": True}}
    comparison = compare_program({"process_graph": graph}, env=Environment(clouded))
    assert comparison.expected.sizes["t"] == 1
    assert comparison.explanation.incomplete == []


POLYGON = {
    "type": "Polygon",
    "coordinates": [[[600113, 5199512], [600571, 5199533], [600333, 5199877], [600113, 5199512]]],
    "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
}


def test_extents_of_polygons(tiny: Any) -> None:
    load = {**make_graph()["load"]["arguments"], "spatial_extent": POLYGON}
    graph = {"load": {"process_id": "load_collection", "arguments": load, "result": True}}
    comparison = compare_program({"process_graph": graph}, env=Environment(tiny))
    assert comparison.explanation.incomplete == []
    outside = np.isnan(comparison.result.isel(t=0, bands=0)).mean()
    assert 0.3 < outside < 0.7
