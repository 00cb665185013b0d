"""`/jobs` through Flask's test client, with a real `odc-openeo worker` where jobs are to run."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from odc_openeo.config import Config, child_environment
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, addition, code
from tests.conftest import COMMAND


@pytest.fixture
def ask(client, bearer) -> Callable[..., Any]:
    """A request of ada."""

    def request(method: str, path: str, **more: Any) -> Any:
        return client.open(f"{API}{path}", method=method, headers=bearer, **more)

    return request


@pytest.fixture
def job(ask) -> str:
    """A job that was created."""
    response = ask("POST", "/jobs", json={"process": addition(), "title": "sum"})
    assert response.status_code == 201
    return response.headers["OpenEO-Identifier"]


@pytest.fixture
def worker(odc_config: Config) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([*COMMAND, "worker"], env=child_environment(odc_config))
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def until(ask, job: str, *states: str, seconds: float = 240) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while (document := ask("GET", f"/jobs/{job}").get_json())["status"] not in states:
        assert time.monotonic() < deadline, document
        time.sleep(0.1)
    return document


def test_create_and_describe(ask, job):
    document = ask("GET", f"/jobs/{job}").get_json()
    assert document["process"] == addition()
    assert (document["title"], document["status"], document["log_level"]) == ("sum", "created", "info")
    assert None not in document.values()
    location = ask("POST", "/jobs", json={"process": addition(), "job_options": {"a": 1}}).headers["Location"]
    assert urlsplit(location).path.startswith(f"{API}/jobs/")
    document = ask("GET", urlsplit(location).path.removeprefix(API)).get_json()
    assert document["job_options"] == {"a": 1}
    assert "title" not in document


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "ProcessInvalid"),
        ({"process": {}}, "ProcessGraphMissing"),
        ({"process": 3}, "ProcessInvalid"),
        ({"process": None}, "ProcessInvalid"),
        ({"process": addition(), "budget": -1}, "BudgetInvalid"),
        ({"process": addition(), "budget": True}, "BudgetInvalid"),
        ({"process": addition(), "budget": "5"}, "BudgetInvalid"),
        ({"process": addition(), "plan": "gold"}, "BillingPlanInvalid"),
        ({"process": addition(), "log_level": "loud"}, "RequestInvalid"),
        ({"process": addition(), "title": "x" * 501}, "RequestInvalid"),
        ({"process": addition(), "description": ["x"]}, "RequestInvalid"),
        ({"process": addition(), "title": "a\0b"}, "RequestInvalid"),
        ({"process": addition(), "x": float("nan")}, "RequestInvalid"),
        ({"process": addition(), "job_options": {"memory": "much"}}, "RequestInvalid"),
        ({"process": addition(), "job_options": {"memory": -1}}, "RequestInvalid"),
        ({"process": addition(), "job_options": {"threads": 0}}, "RequestInvalid"),
        ({"process": addition(), "job_options": {"threads": "2"}}, "RequestInvalid"),
        ({"process": addition(), "job_options": ["4GiB"]}, "RequestInvalid"),
    ],
)
def test_invalid_jobs_are_refused(ask, body, expected):
    response = ask("POST", "/jobs", data=json.dumps(body), content_type="application/json")
    assert response.status_code == 400
    assert code(response) == expected
    assert ask("GET", "/jobs").get_json()["jobs"] == []


def test_job_metadata_can_be_changed(ask, job):
    assert ask("PATCH", f"/jobs/{job}", json={}).status_code == 204
    assert ask("PATCH", f"/jobs/{job}", json={"title": None, "description": "d"}).status_code == 204
    document = ask("GET", f"/jobs/{job}").get_json()
    assert "title" not in document
    assert document["description"] == "d"
    assert code(ask("PATCH", f"/jobs/{job}", json={"status": "finished"})) == "PropertyNotEditable"
    assert 400 <= ask("PATCH", f"/jobs/{job}").status_code < 500
    ask("POST", f"/jobs/{job}/results")
    assert code(ask("PATCH", f"/jobs/{job}", json={"title": "late"})) == "JobLocked"


def test_null_of_what_is_optional_is_absent(ask):
    nulls = dict.fromkeys(("title", "description", "plan", "budget", "log_level", "job_options"))
    created = ask("POST", "/jobs", json={"process": addition(), **nulls})
    assert created.status_code == 201
    path = f"/jobs/{created.headers['OpenEO-Identifier']}"
    assert ask("PATCH", path, json={"title": "t", "log_level": "debug"}).status_code == 204
    assert ask("PATCH", path, json={**nulls, "process": None}).status_code == 204
    document = ask("GET", path).get_json()
    assert (document["process"], document["log_level"]) == (addition(), "debug")
    assert "title" not in document


def test_jobs_are_listed_in_pages(ask):
    created = [
        ask("POST", "/jobs", json={"process": addition()}).headers["OpenEO-Identifier"] for _ in range(5)
    ]
    items, path = [], "/jobs?limit=2"
    while path:
        page = ask("GET", path).get_json()
        assert len(page["jobs"]) <= 2
        items += [entry["id"] for entry in page["jobs"]]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        path = f"/jobs?{urlsplit(following[0]).query}" if following else ""
    assert items == created[::-1]
    for wrong in ("0", "-1", "x", "1e3"):
        assert code(ask("GET", f"/jobs?limit={wrong}")) == "RequestInvalid"
    assert len(ask("GET", "/jobs?limit=").get_json()["jobs"]) == 5


def test_files_are_private(client, odc_config, job):
    eve = accounts.issue_token(odc_config, accounts.create_user(odc_config, "eve", PASSWORD))
    ask = partial(client.open, headers={"Authorization": f"Bearer basic//{eve}"})
    places = [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/estimate"), ("GET", "/logs"),
        ("GET", "/results"), ("POST", "/results"), ("DELETE", "/results"),
    ]  # fmt: skip
    for method, rest in places:
        for id_ in (job, "00000000-0000-0000-0000-000000000000", "x"):
            response = ask(f"{API}/jobs/{id_}{rest}", method=method, json={} if method == "PATCH" else None)
            assert response.status_code == 404, (method, rest)
            assert code(response) == "JobNotFound"
        assert client.open(f"{API}/jobs/{job}{rest}", method=method).status_code == 401


def test_states_before_results(ask, job):
    assert code(ask("GET", f"/jobs/{job}/results")) == "JobNotStarted"
    assert ask("POST", f"/jobs/{job}/results").status_code == 202
    assert ask("POST", f"/jobs/{job}/results").status_code == 202
    assert code(ask("GET", f"/jobs/{job}/results")) == "JobNotFinished"
    assert ask("DELETE", f"/jobs/{job}/results").status_code == 204
    assert ask("GET", f"/jobs/{job}").get_json()["status"] == "created"
    estimate = ask("GET", f"/jobs/{job}/estimate").get_json()
    assert estimate["size"] > 0
    # Any number of downloads: the R client can't print an estimate without one.
    assert estimate["downloads_included"] > 10**9
    assert ask("DELETE", f"/jobs/{job}").status_code == 204
    assert code(ask("GET", f"/jobs/{job}")) == "JobNotFound"


def test_a_job_runs(ask, client, job, worker, odc_config):
    until(ask, job, "created")
    ask("POST", f"/jobs/{job}/results")
    result = until(ask, job, "finished", "error")
    assert result["status"] == "finished"
    assert {link["rel"] for link in result["links"]} == {"self", "monitor", "result"}
    response = ask("GET", f"/jobs/{job}/results")
    assert response.headers["OpenEO-Costs"] == "0"
    (asset,) = response.get_json()["assets"].values()
    path = urlsplit(asset["href"]).path
    whole = client.get(path)
    assert json.loads(whole.data) == 2
    assert whole.headers["ETag"]
    part = client.get(path, headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.data) == (206, b"2")
    head = client.head(path)
    assert (head.status_code, head.content_length, head.headers["Accept-Ranges"]) == (
        200,
        len(whole.data),
        "bytes",
    )
    folder = odc_config.data_dir / "storage" / "results" / job
    assert len(list(folder.rglob("result.json"))) == 1
    # Started again, the old link leads nowhere and the old files are gone.
    ask("POST", f"/jobs/{job}/results")
    assert client.get(path).status_code == 410
    until(ask, job, "finished")
    assert len(list(folder.rglob("result.json"))) == 1
    ask("DELETE", f"/jobs/{job}")
    assert not folder.exists()
    assert code(client.get(path)) == "ResultLinkExpired"


def test_a_job_fails(ask, worker):
    arguments = {"url": "http://127.0.0.1:9/a.tif", "format": "GTiff"}
    wrong = {"process_graph": {"no": {"process_id": "load_url", "arguments": arguments, "result": True}}}
    job = ask("POST", "/jobs", json={"process": wrong}).headers["OpenEO-Identifier"]
    assert ask("POST", f"/jobs/{job}/results").status_code == 202
    until(ask, job, "error")
    response = ask("GET", f"/jobs/{job}/results")
    assert response.status_code == 424
    (entry,) = ask("GET", f"/jobs/{job}/logs?level=error").get_json()["logs"]
    assert response.get_json() == entry
    assert entry["code"] == "UrlForbidden"
    assert entry["path"][0]["node_id"] == "no"
    partial_ = ask("GET", f"/jobs/{job}/results?partial=true").get_json()
    assert (partial_["openeo:status"], partial_["assets"]) == ("error", {})


def test_a_process_that_cannot_run_is_stored_with_warnings_and_not_started(ask):
    graph = {
        "no": {"process_id": "divide", "arguments": {"x": 1}},
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "no"}, "format": "GTIF"},
            "result": True,
        },
    }
    created = ask("POST", "/jobs", json={"process": {"process_graph": graph}})
    assert created.status_code == 201
    job = created.headers["OpenEO-Identifier"]
    logs = ask("GET", f"/jobs/{job}/logs").get_json()["logs"]
    assert {(entry["level"], entry["code"], entry["path"][0]["node_id"]) for entry in logs} == {
        ("warning", "ProcessParameterRequired", "no"),
        ("warning", "ProcessParameterInvalid", "save"),
        ("warning", "FileTypeInvalid", "save"),
    }
    refused = ask("POST", f"/jobs/{job}/results")
    assert (refused.status_code, code(refused)) == (400, "ProcessParameterRequired")
    assert ask("GET", f"/jobs/{job}").get_json()["status"] == "created"
    assert ask("PATCH", f"/jobs/{job}", json={"process": addition()}).status_code == 204
    assert ask("POST", f"/jobs/{job}/results").status_code == 202


def test_starting_answers_400_for_what_is_missing_elsewhere(ask):
    arguments = {"id": "no_such_collection", "spatial_extent": None, "temporal_extent": None}
    graph = {"load": {"process_id": "load_collection", "arguments": arguments, "result": True}}
    job = ask("POST", "/jobs", json={"process": {"process_graph": graph}}).headers["OpenEO-Identifier"]
    refused = ask("POST", f"/jobs/{job}/results")
    assert (refused.status_code, code(refused)) == (400, "CollectionNotFound")


def test_job_options_of_other_back_ends_are_named_in_the_log(ask):
    options = {"executor-memory": "512m", "executor-cores": 2, "logging-threshold": None, "queue": "fast"}
    created = ask("POST", "/jobs", json={"process": addition(), "job_options": options})
    job = created.headers["OpenEO-Identifier"]
    logs = ask("GET", f"/jobs/{job}/logs").get_json()["logs"]
    assert {entry["level"] for entry in logs} == {"warning"}
    assert [entry["message"].split("'")[1] for entry in logs] == [
        "executor-memory",
        "executor-cores",
        "queue",
    ]
    assert "512 MiB" in logs[0]["message"]
    assert ask("GET", f"/jobs/{job}").get_json()["job_options"] == options


def test_a_zarr_store_by_signed_link(ask, client, worker, odc_config):
    collection = {"type": "Point", "coordinates": [11.0, 46.0]}
    graph = {
        "load": {"process_id": "load_geojson", "arguments": {"data": collection, "properties": []}},
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "load"}, "format": "Zarr"},
            "result": True,
        },
    }
    job = ask("POST", "/jobs", json={"process": {"process_graph": graph}}).headers["OpenEO-Identifier"]
    ask("POST", f"/jobs/{job}/results")
    result = until(ask, job, "finished", "error")
    assert result["status"] == "finished", ask("GET", f"/jobs/{job}/logs").get_json()
    (asset,) = ask("GET", f"/jobs/{job}/results").get_json()["assets"].values()
    path = urlsplit(asset["href"]).path
    metadata = client.get(f"{path}/zarr.json")
    assert metadata.get_json()["zarr_format"] == 3
    assert client.get(f"{path}/nothing").status_code == 404
    assert client.get(f"{path}/../../x").status_code in (404, 410)
    whole = client.get(path)
    assert whole.mimetype == "application/zip"
    with zipfile.ZipFile(io.BytesIO(whole.data)) as archive:
        assert "zarr.json" in archive.namelist()
        assert sum(info.file_size for info in archive.infolist()) == asset["file:size"]
