"""Usage reports, and quotas by role: what they count and what they refuse."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from flask.testing import FlaskClient
from rasterio.transform import from_origin

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.jobs import queue, quotas
from odc_openeo.jobs.usage import Amounts, add_usage, count_cpu_seconds, find_collections, read_usage
from odc_openeo.services import store
from odc_openeo.services.model import ServiceDraft
from odc_openeo.user_data import files
from odc_openeo.users import accounts
from odc_openeo.users.accounts import Account
from tests.api.conftest import API, PASSWORD, addition, code

LOAD = {"process_id": "load_collection", "arguments": {"id": "s2"}}
NESTED = {"process_id": "load_collection", "arguments": {"id": "dem"}}
QUOTAS = """
default:
  cpu_hours_per_month: 1
  storage: 1KiB
  jobs: 1
roles:
  staff: {cpu_hours_per_month: 100, storage: 1GiB, jobs: 3}
  boss: {}
"""


@pytest.fixture
def ada(odc_config: Config, token: str) -> Account:
    """The user who is signed in."""
    return accounts.get_user_by_token(odc_config, token)


@pytest.fixture
def limited(odc_config: Config, tmp_path: Path) -> Config:
    path = tmp_path / "quotas.yaml"
    path.write_text(QUOTAS)
    return Config(**{**vars(odc_config), "quotas": path})


def run_command(config: Config, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    for name, value in config.environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_collections_are_found_in_all_branches() -> None:
    child = {"process_graph": {"b": NESTED}}
    process = {"process_graph": {"a": LOAD, "c": {"process_id": "apply", "arguments": {"process": child}}}}
    assert find_collections(process) == ["dem", "s2"]
    odd = {"process_graph": {str(i): {**LOAD, "arguments": {"id": ["x" * 999, i]}} for i in range(99)}}
    assert len(find_collections(odd)) == 1
    assert find_collections({"process_graph": {"a": {"process_id": "load_collection"}}}) == []


def test_usage_adds_up(config: Config) -> None:
    ada, bob = (accounts.create_user(config, name, PASSWORD) for name in ("ada", "bob"))
    for _ in range(2):
        add_usage(config, ada.id, "job", ["s2", "dem"], Amounts(1, 7200, 3600, 100))
    add_usage(config, bob.id, "result", [], Amounts(1, 36, 1, 0))
    by_user = read_usage(config, "user")
    assert by_user[f"ada {ada.id}"] == Amounts(2, 14400, 7200, 200)
    assert read_usage(config, "collection") == {
        "-": Amounts(1, 36, 1, 0),
        "dem": Amounts(2, 7200, 3600, 100),
        "s2": Amounts(2, 7200, 3600, 100),
    }
    month = f"{db.now():%Y-%m}"
    assert read_usage(config, "month") == {month: Amounts(3, 14436, 7201, 200)}
    assert read_usage(config, "month", until=date(2020, 1, 1)) == {}
    assert count_cpu_seconds(config, ada.id) == 14400


def test_usage_stays_when_its_user_goes(config: Config) -> None:
    gone = uuid4()
    add_usage(config, gone, "job", [], Amounts(1))
    assert list(read_usage(config, "user")) == [f"(deleted) {gone}"]


def test_the_report_is_a_table_or_csv(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    user = accounts.create_user(config, "ada", PASSWORD)
    add_usage(config, user.id, "job", ['=HYPERLINK("x"),"'], Amounts(1, 1800, 3600, 5))
    text = run_command(config, monkeypatch, "usage", "--by", "collection", "--csv")
    header, row = csv.reader(io.StringIO(text))
    assert header == ["collection", "runs", "cpu_hours", "hours", "bytes"]
    assert row == ['\'=HYPERLINK("x"),"', "1", "0.5000", "1.0000", "5"]
    assert f"ada {user.id}" in run_command(config, monkeypatch, "usage", "--since", "2020-01-01")
    assert "ada" not in run_command(config, monkeypatch, "usage", "--until", "2020-01-01")


def test_synchronous_requests_are_counted(
    client: FlaskClient, bearer: dict[str, str], odc_config: Config
) -> None:
    assert client.post(f"{API}/result", json={"process": addition()}, headers=bearer).status_code == 200
    (amounts,) = read_usage(odc_config, "user").values()
    assert amounts.runs == 1
    assert 0 < amounts.seconds < 60


def test_tiles_are_counted(odc_config: Config, ada: Account) -> None:
    draft = ServiceDraft(type="XYZ", process={"process_graph": {"a": LOAD}})
    service = store.create_service(odc_config, ada.id, draft)
    store.add_usage(odc_config, service, 3, 300, 1.5)
    assert read_usage(odc_config, "collection") == {"s2": Amounts(3, 1.5, 0, 300)}


def test_the_best_role_counts(limited: Config) -> None:
    def hours(*roles: str) -> float | None:
        quota = quotas.get_quota(limited, roles)
        assert quota is not None
        return quota.cpu_hours_per_month

    assert [hours(), hours("other"), hours("staff"), hours("staff", "boss")] == [1, 1, 100, None]
    assert quotas.get_quota(Config(), ["staff"]) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("default: {cpu_hours: 1}", "default.cpu_hours"),
        ("default: {jobs: 0}", "default.jobs"),
        ("roles: {Staff!: {}}", "not a valid role"),
        ("default: {cpu_hours_per_month: .nan}", "cpu_hours_per_month"),
        ("- 1", "dictionary"),
        ("{", "YAML"),
    ],
)
def test_a_faulty_file_says_what_to_fix(odc_config: Config, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "quotas.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        create_app(odc_config.model_copy(update={"quotas": path}))
    with pytest.raises(ValueError, match="cannot be read"):
        create_app(odc_config.model_copy(update={"quotas": tmp_path / "none.yaml"}))


def test_the_account_shows_what_is_left(limited: Config, ada: Account, bearer: dict[str, str]) -> None:
    client = create_app(limited).test_client()
    add_usage(limited, ada.id, "job", [], Amounts(1, 900))
    account = client.get(f"{API}/me", headers=bearer).get_json()
    assert account["budget"] == pytest.approx(0.75)
    assert account["storage"] == {"free": 1024, "quota": 1024}
    accounts.set_roles(limited, "ada", ["boss"])
    account = client.get(f"{API}/me", headers=bearer).get_json()
    assert (account["budget"], account["storage"]) == (None, None)


def test_nothing_starts_without_cpu_hours(limited: Config, ada: Account, bearer: dict[str, str]) -> None:
    client = create_app(limited).test_client()
    job = client.post(f"{API}/jobs", json={"process": addition()}, headers=bearer)
    path = job.headers["Location"].removeprefix("http://localhost")
    assert client.get(f"{path}/estimate", headers=bearer).status_code == 200
    add_usage(limited, ada.id, "job", [], Amounts(1, 3600))
    requests: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
        (client.post, f"{path}/results", {}),
        (client.post, f"{API}/result", {"json": {"process": addition()}}),
    ]
    for send, url, body in requests:
        answer = send(url, headers=bearer, **body)
        assert (answer.status_code, code(answer)) == (402, "PaymentRequired")
        assert "1 CPU hours" in answer.get_json()["message"]
    assert client.get(f"{path}/estimate", headers=bearer).get_json()["left"]["cpu_hours"] == 0
    accounts.set_roles(limited, "ada", ["staff"])
    assert client.post(f"{path}/results", headers=bearer).status_code == 202


def test_jobs_that_wait_end_when_the_budget_does(limited: Config, ada: Account) -> None:
    import multiprocessing
    import threading

    from odc_openeo.worker.heartbeats import Heartbeats
    from odc_openeo.worker.supervisor import Supervision

    job = jobs.create_job(limited, ada.id, jobs.JobDraft(addition()))
    jobs.start_job(limited, ada.id, str(job))
    add_usage(limited, ada.id, "job", [], Amounts(1, 3600))
    claim = queue.claim_job(limited, "worker")
    assert claim is not None
    with Heartbeats(limited, claim) as heartbeats:
        context = multiprocessing.get_context("forkserver")
        Supervision(limited, claim, context, heartbeats).run(threading.Event())
    stored = jobs.get_job(limited, ada.id, str(job))
    assert stored.status == "error"
    assert jobs.get_last_error(limited, stored).more["code"] == "PaymentRequired"


def test_results_count_for_the_storage(limited: Config, ada: Account, bearer: dict[str, str]) -> None:
    client = create_app(limited).test_client()
    ids = [jobs.create_job(limited, ada.id, jobs.JobDraft(addition())) for _ in range(2)]
    jobs.start_job(limited, ada.id, str(ids[0]))
    claim = queue.claim_job(limited, "worker")
    assert claim is not None
    assert queue.finish_run(limited, claim, [{"name": "a", "file:size": 1000}], {}, {})
    assert client.get(f"{API}/me", headers=bearer).get_json()["storage"] == {"free": 24, "quota": 1024}
    full = client.put(f"{API}/files/a.bin", data=b"x" * 25, headers=bearer)
    assert (full.status_code, code(full)) == (400, "StorageQuotaExceeded")
    assert client.put(f"{API}/files/a.bin", data=b"x" * 24, headers=bearer).status_code == 200
    answer = client.post(f"{API}/jobs/{ids[1]}/results", headers=bearer)
    assert (answer.status_code, code(answer)) == (400, "StorageQuotaExceeded")


def test_roles_set_how_many_jobs_run_at_once(limited: Config, ada: Account) -> None:
    bob = accounts.create_user(limited, "bob", PASSWORD)
    for user in (ada, bob):
        for _ in range(5):
            id_ = jobs.create_job(limited, user.id, jobs.JobDraft(addition()))
            jobs.start_job(limited, user.id, str(id_))
    accounts.set_roles(limited, "bob", ["staff"])
    claims = [queue.claim_job(limited, "worker") for _ in range(8)]
    owners = [claim.job.user for claim in claims if claim is not None]
    assert (owners.count(ada.id), owners.count(bob.id)) == (1, 3)
    accounts.set_roles(limited, "bob", ["boss"])
    assert queue.claim_job(limited, "worker") is not None
    assert json.loads(quotas.describe_job_limits(limited))["boss"] == quotas.UNLIMITED


# --- Estimates against what is left --------------------------------------------------------------

INPUT_BYTES = 2 * 40 * 50 * 8


@pytest.fixture
def raster_job(odc_config: Config, ada: Account, tmp_path: Path) -> str:
    """The path of a job that reads and writes `INPUT_BYTES`; workers read a byte in a second of CPU time."""
    path = tmp_path / "mine.tif"
    values = np.arange(2 * 40 * 50, dtype="float64").reshape(2, 40, 50)
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", dtype="float64", count=2, height=40, width=50, **grid) as f:
        f.write(values)
    with path.open("rb") as stream:
        files.receive_file(odc_config, str(ada.id), "mine.tif", stream, None)
    load = {"process_id": "load_uploaded_files", "arguments": {"paths": ["mine.tif"], "format": "GTiff"}}
    save = {"process_id": "save_result", "arguments": {"data": {"from_node": "a"}, "format": "GTiff"}}
    graph = {"a": load, "b": {**save, "result": True}}
    job = jobs.create_job(odc_config, ada.id, jobs.JobDraft({"process_graph": graph}))
    done = jobs.create_job(odc_config, ada.id, jobs.JobDraft(addition()))
    begin = db.now()
    with db.session(odc_config) as session:
        session.add(db.JobSplitRow(job_id=done, attempt=uuid4(), split="{}", parts=1, details="{}"))
        session.flush()
        part = {"part": json.dumps({"input_bytes": 100}), "status": "done", "cpu_s": 100.0, "is_last": False}
        times = {"started": begin - timedelta(seconds=10), "ended": begin}
        session.add(db.JobPartRow(job_id=done, number=0, **part, **times))
    return f"{API}/jobs/{job}"


HOURS = INPUT_BYTES / 3600
STORED = INPUT_BYTES * 2
"""Somewhat more than the uploaded file."""


@pytest.mark.parametrize(
    ("quota", "outcome"),
    [
        ({"cpu_hours_per_month": HOURS * 1.1, "storage": STORED * 9}, None),
        ({"cpu_hours_per_month": HOURS / 1.5}, "warning"),
        ({"cpu_hours_per_month": HOURS / 4}, "PaymentRequired"),
        ({"cpu_hours_per_month": HOURS * 1.1, "storage": STORED}, "warning"),
        ({"storage": INPUT_BYTES + 9000}, "StorageQuotaExceeded"),
        ({"jobs": 3}, None),
        ({}, None),
    ],
)
def test_estimates_are_compared_with_what_is_left(
    odc_config: Config,
    raster_job: str,
    bearer: dict[str, str],
    tmp_path: Path,
    quota: dict[str, float],
    outcome: str | None,
) -> None:
    path = tmp_path / "quotas.yaml"
    path.write_text(json.dumps({"default": quota}))
    client = create_app(odc_config.model_copy(update={"quotas": path})).test_client()
    estimate = client.get(f"{raster_job}/estimate", headers=bearer).get_json()
    assert estimate["cpu_hours"] == pytest.approx(HOURS, rel=1e-4)
    assert estimate["hours"] == pytest.approx(HOURS / 10, rel=1e-4)
    assert estimate["left"].keys() == {name.removesuffix("_per_month") for name in quota}
    if "cpu_hours_per_month" in quota:
        assert estimate["left"]["cpu_hours"] == pytest.approx(quota["cpu_hours_per_month"], abs=1e-4)
    assert bool(estimate["warnings"]) is (outcome is not None)
    answer = client.post(f"{raster_job}/results", headers=bearer)
    logs = client.get(f"{raster_job}/logs", headers=bearer).get_json()["logs"]
    if outcome in (None, "warning"):
        assert answer.status_code == 202
        assert [entry["level"] for entry in logs] == ["warning"] * (outcome is not None)
        assert [entry["message"] for entry in logs] == estimate["warnings"]
    else:
        assert code(answer) == outcome
        assert answer.get_json()["message"] == estimate["warnings"][0]
        assert client.get(raster_job, headers=bearer).get_json()["status"] == "created"


def test_estimates_without_quotas_name_none(
    client: FlaskClient, raster_job: str, bearer: dict[str, str]
) -> None:
    assert not {"left", "warnings"} & client.get(f"{raster_job}/estimate", headers=bearer).get_json().keys()
