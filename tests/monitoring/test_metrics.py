"""Metrics: what they count, who may read them, and that no request can add labels."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.jobs import queue
from odc_openeo.monitoring import recorder
from odc_openeo.stack.embedded import free_port
from odc_openeo.telemetry.counts import set_sink
from odc_openeo.users import accounts
from tests.conftest import COMMAND
from tests.support.sandbox import needs_sandbox
from tests.support.waiting import wait_for

TOKEN = "a token of the operator"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """All samples by name and labels; the format is checked by Prometheus' own parser."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    values = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}
    assert len(values) == len(samples)
    return values


def get(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"odc_openeo_{name}", tuple(sorted(labels.items()))), 0)


@pytest.fixture
def _fresh_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recorder, "_recorders", {})
    yield
    set_sink(None)


@pytest.fixture
def metered(odc_config: Config, _fresh_recorder: None) -> FlaskClient:
    """The application with a token for metrics."""
    return create_app(Config(**{**vars(odc_config), "metrics_token": TOKEN})).test_client()


def scrape(client: FlaskClient) -> Samples:
    answer = client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    return parse(answer.get_data(as_text=True))


def test_are_not_there_without_a_setting(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers=BEARER).status_code == 404


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}é"]
)
def test_need_the_token(metered: FlaskClient, header: str | None) -> None:
    answer = metered.get("/metrics", headers={"Authorization": header} if header else {})
    assert answer.status_code in (401, 403)
    assert "odc_openeo_requests" not in answer.get_data(as_text=True)


def test_a_users_token_is_not_the_operators(metered: FlaskClient, bearer: dict[str, str]) -> None:
    assert metered.get("/metrics", headers=bearer).status_code == 403


def test_a_token_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        Config(metrics_token="short")


def test_count_requests_by_endpoint(metered: FlaskClient) -> None:
    for path in ("a", "b", "c"):
        assert metered.get(f"/openeo/1.3/collections/{path}").status_code == 404
    metered.get("/openeo/1.3/jobs")
    samples = scrape(metered)
    endpoint = {"method": "GET", "endpoint": "/openeo/1.3/collections/<collection_id>"}
    assert get(samples, "requests_total", status="404", **endpoint) == 3
    assert get(samples, "request_duration_seconds_count", **endpoint) == 3
    assert get(samples, "errors_total", code="CollectionNotFound") == 3
    assert get(samples, "errors_total", code="AuthenticationRequired") == 1


def test_show_jobs_and_the_queue(metered: FlaskClient, odc_config: Config) -> None:
    user = accounts.create_user(odc_config, "bob", "correct horse")
    draft = jobs.JobDraft({"process_graph": {}})
    ids = [jobs.create_job(odc_config, user.id, draft) for _ in range(3)]
    for id_ in ids[:2]:
        jobs.start_job(odc_config, user.id, str(id_))
    with db.session(odc_config) as session:
        earlier = "UPDATE openeo.jobs SET queued = queued - interval '1 hour' WHERE queued IS NOT NULL"
        session.execute(text(earlier))
    samples = scrape(metered)
    assert [get(samples, "jobs", status=s) for s in ("created", "queued", "running")] == [1, 2, 0]
    assert 3600 <= get(samples, "job_queue_age_seconds") < 3700
    assert queue.claim_job(odc_config, "one") is not None
    assert queue.read_queue_state(odc_config).counts == {"created": 1, "queued": 1, "running": 1}
    assert get(samples, "part_up", part="database") == 1


def test_count_runs_and_the_cache(metered: FlaskClient, bearer: dict[str, str]) -> None:
    graph = {"add": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}
    body = {"process": {"process_graph": graph}}
    assert metered.post("/openeo/1.3/result", json=body, headers=bearer).status_code == 200
    samples = scrape(metered)
    assert get(samples, "runs_total", lane="results", outcome="finished") == 1
    assert get(samples, "runs_active", lane="results") == 0
    assert get(samples, "run_duration_seconds_count", lane="results") == 1


@needs_sandbox
def test_count_user_code_of_runners(metered: FlaskClient, bearer: dict[str, str]) -> None:
    for body, status in (("return data", 200), ("raise ValueError('no')", 400)):
        udf = f"from openeo.udf import UdfData\ndef transform(data: UdfData) -> UdfData:\n    {body}\n"
        arguments = {"data": [1, 2], "udf": udf, "runtime": "Python"}
        graph = {"run": {"process_id": "run_udf", "arguments": arguments, "result": True}}
        answer = metered.post(
            "/openeo/1.3/result", json={"process": {"process_graph": graph}}, headers=bearer
        )
        assert answer.status_code == status, answer.get_data(as_text=True)
    samples = scrape(metered)
    calls = {outcome: get(samples, "udf_calls_total", outcome=outcome) for outcome in ("finished", "failed")}
    assert calls == {"finished": 1, "failed": 1}
    assert get(samples, "udf_processes_started_total") >= 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.text(max_size=30),
    method=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=12),
    header=st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=20),
)
def test_requests_add_no_labels(metered: FlaskClient, path: str, method: str, header: str) -> None:
    before = {labels for _, labels in scrape(metered)}
    metered.open(f"/{quote(path)}", method=method, headers={"X-Request-Id": header, "User-Agent": header})
    new = {label for _, labels in scrape(metered) for label in labels if labels not in before}
    assert {value for name, value in new if name == "method"} <= {*recorder_methods(), "other"}
    rules = {rule.rule for rule in metered.application.url_map.iter_rules()}
    assert {value for name, value in new if name == "endpoint"} <= {*rules, "unknown"}
    codes = {value for name, value in new if name == "code"}
    assert all(hasattr(__import__("odc_openeo.errors").errors, code) for code in codes)


def recorder_methods() -> set[str]:
    return {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


PROGRAM = """
import os, sys
from odc_openeo.monitoring.recorder import start_recording
from odc_openeo.telemetry.counts import add_count, set_gauge
start_recording()
add_count("udf_calls", 2, outcome="finished")
set_gauge("runs_active", 3, lane="results")
print("counted", flush=True)
sys.stdin.read()
"""


def test_add_up_over_processes_and_forget_those_that_ended(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == b"counted\n"
        assert read_folder(tmp_path) == (4, 6)
        processes[0].kill()
        processes[0].wait()
        assert read_folder(tmp_path) == (4, 3)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def read_folder(folder: Path) -> tuple[float, float]:
    """Calls of user code and runs in progress of all processes, as another process sees them."""
    program = (
        "from odc_openeo.monitoring.recorder import start_recording as s\n"
        "from prometheus_client import generate_latest as g\nprint(g(s()).decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    samples = parse(done.stdout.decode())
    calls = get(samples, "udf_calls_total", outcome="finished")
    return calls, get(samples, "runs_active", lane="results")


@pytest.fixture
def served(odc_config: Config) -> Iterator[tuple[str, str, int]]:
    """`odc-openeo serve` with two processes and a port for metrics: both URLs, and the process."""
    port, metrics_port = free_port(), free_port()
    url = db.get_database_url(odc_config).render_as_string(hide_password=False)
    environment = {
        **os.environ,
        "ODC_OPENEO_DATABASE_URL": url,
        "ODC_OPENEO_DATA_DIR": str(odc_config.data_dir),
        "ODC_OPENEO_GUNICORN_WORKERS": "2",
        "ODC_OPENEO_METRICS_PORT": str(metrics_port),
    }
    process = subprocess.Popen([*COMMAND, "serve", "--port", str(port)], env=environment)
    try:
        wait_for(lambda: reaches(f"http://127.0.0.1:{metrics_port}/metrics"))
        wait_for(lambda: reaches(f"http://127.0.0.1:{port}/health/live"))
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics", process.pid
    finally:
        process.terminate()
        process.wait(60)


def reaches(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def count_live(url: str) -> float:
    samples = parse(requests.get(url, timeout=60).text)
    return get(samples, "requests_total", method="GET", endpoint="/health/live", status="200")


def test_of_several_http_processes_are_added_up(served: tuple[str, str, int], tmp_path: Path) -> None:
    root, url, pid = served
    before = count_live(url)
    for _ in range(20):
        requests.get(f"{root}/health/live", timeout=10)
    assert count_live(url) == before + 20
    # The other process listens when the one that does is killed.
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    listening = [int(child) for child in children if holds(int(child), url)]
    assert len(listening) == 1
    os.kill(listening[0], signal.SIGKILL)
    wait_for(lambda: reaches(url))
    assert count_live(url) == before + 20
    assert requests.get(f"{root}/metrics", timeout=10).status_code == 404
    check_with_promtool(requests.get(url, timeout=60).text)
    check_with_prometheus(url, tmp_path)


def holds(pid: int, url: str) -> bool:
    """Whether a process listens on the port of a URL."""
    import psutil

    port = int(url.split(":")[2].split("/")[0])
    return any(
        c.laddr.port == port and c.status == "LISTEN" for c in psutil.Process(pid).net_connections("tcp")
    )


def check_with_promtool(text: str) -> None:
    if shutil.which("promtool") is None:
        return
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def check_with_prometheus(url: str, folder: Path) -> None:
    """Let a real Prometheus scrape the metrics, and ask it for a sum."""
    if shutil.which("prometheus") is None:
        pytest.skip("the rest needs the program prometheus (Debian: apt-get install prometheus)")
    port, target = free_port(), url.removeprefix("http://").removesuffix("/metrics")
    settings = folder / "prometheus.yml"
    settings.write_text(
        "scrape_configs:\n  - job_name: openeo\n    scrape_interval: 1s\n    static_configs:\n"
        f"      - targets: ['{target}']\n"
    )
    options = [f"--config.file={settings}", f"--storage.tsdb.path={folder}/tsdb", "--log.level=error"]
    command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command) as process:
        try:
            expected = count_live(url)
            query = {"query": 'sum(odc_openeo_requests_total{endpoint="/health/live"})'}

            def has_scraped() -> bool:
                try:
                    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params=query, timeout=5)
                except requests.ConnectionError:
                    return False
                result = answer.json()["data"]["result"] if answer.ok else []
                return bool(result) and float(result[0]["value"][1]) == expected

            wait_for(has_scraped)
        finally:
            process.terminate()
