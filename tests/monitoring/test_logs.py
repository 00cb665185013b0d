"""Logs as JSON and the audit log: ids to correlate, one line per record, no secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from odc_openeo.app import create_app
from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.indexing.index import index_products, product_definitions
from odc_openeo.runners import RunnerPool
from odc_openeo.runners.pool import Lane
from odc_openeo.runners.server_log import IdFilter, JsonFormatter, write_audit_log
from odc_openeo.telemetry.log_records import log_ids, record_event
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, addition
from tests.runners import tasks


class Lines(logging.Handler):
    """Keeps records as lines of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(IdFilter())
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the service logs meanwhile."""
    handler, log = Lines(), logging.getLogger("odc_openeo")
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


@pytest.fixture
def audited(odc_config: Config, tmp_path: Path) -> Iterator[Config]:
    """A configuration with a file for the audit log."""
    config = Config(**{**vars(odc_config), "audit_log": tmp_path / "audit.jsonl"})
    write_audit_log(config)
    yield config
    write_audit_log(odc_config)


@pytest.fixture
def audited_client(audited: Config) -> FlaskClient:
    return create_app(audited).test_client()


def read_events(config: Config) -> list[dict[str, object]]:
    return [json.loads(line) for line in config.audit_log.read_text().splitlines()]


def test_every_request_has_its_ids(client: FlaskClient, bearer: dict[str, str], lines: list[str]) -> None:
    answer = client.post(f"{API}/jobs", json={"process": addition()}, headers=bearer)
    job = answer.headers["OpenEO-Identifier"]
    user = client.get(f"{API}/me", headers=bearer).get_json()["user_id"]
    lines.clear()
    answer = client.get(f"{API}/jobs/{job}", headers=bearer)
    (entry,) = map(json.loads, lines)
    assert entry["request"] == answer.headers["X-Request-Id"]
    assert (entry["job"], entry["user"]) == (job, user)
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", f"{API}/jobs/{job}", 200)
    lines.clear()
    assert client.get(f"{API}/jobs/no").status_code == 401
    ids = {json.loads(line)["request"] for line in lines}
    assert len(ids) == 1
    assert all("user" not in json.loads(line) for line in lines)


def test_runners_log_with_the_ids_of_the_request(config: Config) -> None:
    pool = RunnerPool(config, Lane("tests", 1, 2, 4, 4))
    with log_ids(request="r-1", user="u-1"):
        assert pool.run(tasks.report_log_ids, user="u-1", seconds=180) == {"request": "r-1", "user": "u-1"}
    assert pool.run(tasks.report_log_ids, user="u-1", seconds=180) == {}
    pool.stop()


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_breaks_the_line(text: str) -> None:
    record = logging.LogRecord("odc_openeo.run", logging.INFO, "x.py", 1, "%s", (text,), None)
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert set(json.loads(line)) == {"time", "level", "logger", "message", "process"}


@pytest.mark.parametrize("path", ["/a%0a%7b%22level%22:%22error%22%7d", "/%1b%5b31m", "/%e2%80%a8x"])
def test_requests_forge_no_records(client: FlaskClient, lines: list[str], path: str) -> None:
    client.get(path, headers={"User-Agent": "x\\n{}", "X-Request-Id": "forged"})
    assert all(json.loads(line)["level"] == "info" for line in lines)
    assert all(line.isprintable() and "forged" not in line for line in lines)


def test_tracebacks_are_part_of_the_record_without_passwords() -> None:
    try:
        raise ValueError("postgresql://me:secret@host/db")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    entry = json.loads(JsonFormatter().format(record))
    assert "Traceback" in entry["exception"]
    assert "secret" not in json.dumps(entry)


def test_accounts_are_audited(audited: Config, audited_client: FlaskClient) -> None:
    eve = accounts.create_user(audited, "eve", PASSWORD)
    accounts.set_roles(audited, "eve", ["admin"])
    for name, password in (("eve", PASSWORD), ("eve", "wrong password"), (PASSWORD, "eve")):
        audited_client.get(f"{API}/credentials/basic", auth=(name, password))
    accounts.disable_user(audited, "eve")
    events = read_events(audited)
    names = ["user_created", "roles_changed", "sign_in", "sign_in_failed", "sign_in_failed", "user_disabled"]
    assert [event["event"] for event in events] == names
    assert [event.get("target") for event in events] == [*[str(eve.id)] * 4, None, str(eve.id)]
    assert (events[1]["roles"], events[1]["before"]) == (["admin"], [])
    assert events[2]["address"] == "127.0.0.1"
    assert {"request", "time"} <= events[2].keys()
    content = audited.audit_log.read_text()
    assert PASSWORD not in content
    assert "wrong password" not in content
    assert audited.audit_log.stat().st_mode & 0o777 == 0o600


def test_jobs_and_services_are_audited(
    audited: Config, audited_client: FlaskClient, bearer: dict[str, str]
) -> None:
    location = audited_client.post(f"{API}/jobs", json={"process": addition()}, headers=bearer).headers[
        "Location"
    ]
    path = location.removeprefix("http://localhost")
    audited_client.post(f"{path}/results", headers=bearer)
    audited_client.delete(f"{path}/results", headers=bearer)
    audited_client.delete(path, headers=bearer)
    body = {"type": "XYZ", "process": addition()}
    service = audited_client.post(f"{API}/services", json=body, headers=bearer)
    assert service.status_code == 201, service.get_data()
    audited_client.delete(service.headers["Location"].removeprefix("http://localhost"), headers=bearer)
    events = [event for event in read_events(audited) if "owner" in event]
    names = ["job_started", "job_canceled", "job_deleted", "service_created", "service_deleted"]
    assert [event["event"] for event in events] == names
    assert {event["job"] for event in events[:3]} == {path.rpartition("/")[2]}
    assert all(event["user"] == event["owner"] for event in events)


def test_commands_are_audited(audited: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in audited.environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, ["user", "add", "bob", "--password-stdin"], input=f"{PASSWORD}\n")
    assert done.exit_code == 0, done.output
    assert [event["event"] for event in read_events(audited)] == ["user_created"]


def test_refused_collections_are_audited(audited: Config, tmp_path: Path, bearer: dict[str, str]) -> None:
    definition = product_definitions()[0]
    name = yaml.safe_load(definition.read_text())["name"]
    index_products([definition])
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(f"{name}:\n  access:\n    roles: [staff]\n")
    app = create_app(audited.model_copy(update={"collection_overrides": overrides}))
    for collection in (name, "unknown"):
        assert app.test_client().get(f"{API}/collections/{collection}", headers=bearer).status_code == 404
    (event,) = [event for event in read_events(audited) if event["event"] == "access_refused"]
    assert event["collection"] == name
    assert event["user"]


def test_events_are_among_other_messages_without_a_file(lines: list[str]) -> None:
    record_event("sign_in", target="x", address=None)
    assert json.loads(lines[0])["event"] == "sign_in"
    assert "address" not in json.loads(lines[0])
