"""Odd requests to the application with a real database: none may end in a server error or a hang."""

from __future__ import annotations

import gzip
import json
import logging
import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask
from werkzeug.test import create_environ, run_wsgi_app

from odc_openeo import db
from odc_openeo.api.pages import forms
from odc_openeo.app import create_app
from odc_openeo.config import Config, odc_database_environment, use_odc_database
from odc_openeo.db import migrate
from odc_openeo.indexing.index import init_command, run_datacube
from odc_openeo.stack import postgres
from odc_openeo.users import accounts, browser_sessions
from tests.fuzz.request_cases import API, UUID, Case, Site, generate_cases
from tests.fuzz.trials import Outcome, Report, run_trials

DEADLINE_S = 20.0
SECONDS = 5.0
"""Limit of the service's own computations here."""


def run(cases: int, seed: int) -> Report:
    """Try requests on a database of its own."""
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-fuzz-"))
    folder.chmod(0o711)
    settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
    server = postgres.start_server(folder / "server" / "pg", folder / "postgresql.log", settings)
    try:
        url = server.create_database("fuzz")
        use_odc_database(url)
        migrate.upgrade(_config(url, str(folder / "data")))
        run_datacube(init_command("postgres"), {**os.environ, **odc_database_environment(url)})
        return run_cases(make_site(url, folder), cases, seed)
    finally:
        server.stop(5)


def run_cases(site: Site, cases: int, seed: int) -> Report:
    """Try requests on a service that is there already."""
    routes = [
        (rule.rule, tuple(sorted(rule.methods or ())))
        for rule in create_app(_config(site.database_url, site.data_dir)).url_map.iter_rules()
    ]
    attempts = ((site, case) for case in generate_cases(site, routes, cases, seed))
    report = Report("requests", seed)
    return run_trials(report, attempts, send_request, deadline_s=DEADLINE_S, has_children=True)


def _config(url: str, data_dir: str) -> Config:
    limits = {"requests_per_minute_user": 0, "requests_per_minute_address": 0, "login_attempts": 10**6}
    seconds = {"search_timeout_s": SECONDS, "tile_timeout_s": SECONDS, "sync_timeout_s": SECONDS}
    return Config(database_url=url, data_dir=data_dir, runners=1, log_level="error", **limits, **seconds)


# --- Something to ask for ----------------------------------------------------------------------------------


def make_site(url: str, folder: Path) -> Site:
    """Fill an index and the tables: scenes, a user, and one of each thing that a user can have."""
    from tests.catalog.scenes import PRODUCT, Index, scene

    config = _config(url, str(folder / "data"))
    index = Index()
    index.add_product(PRODUCT)
    scenes = [scene(folder / f"{i}", i, f"2022-06-0{i}T10:00:00Z", eo__cloud_cover=10.0 * i) for i in (1, 2)]
    index.add(*scenes)
    index.datacube.close()
    user = accounts.create_user(config, "ada", "correct horse")
    token, session = accounts.issue_token(config, user), browser_sessions.begin(config, user)
    app = create_app(config)
    with app.test_request_context("/"):
        keys = {"form_key": forms.make_csrf_token("visit"), "session_key": forms.make_csrf_token(session)}
    ids = _make_things(app, token)
    names = {
        "collection_id": [PRODUCT["name"], "none"],
        "item_id": [str(document["id"]) for document in scenes],
        "key": ["B02", "red", "x"],
        "y": ["0", "5.png", "x"],
        "row": ["0", "5.png"],
        "action": ["start", "cancel", "delete", "x"],
        "matrix_set": ["WebMercatorQuad", "x"],
    }
    db.dispose_engine(config)
    return Site(url, str(config.data_dir), token, session, "visit", values={**names, **ids}, **keys)


def _make_things(app: Flask, token: str) -> dict[str, list[str]]:
    client, headers = app.test_client(), {"Authorization": f"Bearer basic//{token}"}
    graph = {"one": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}
    process = {"process_graph": graph}

    def post(path: str, body: Any) -> str:
        answer = client.post(f"{API}{path}", json=body, headers=headers)
        assert answer.status_code == HTTPStatus.CREATED, answer.get_data(as_text=True)
        return str(answer.headers["OpenEO-Identifier"])

    jobs = [post("/jobs", {"process": process}) for _ in range(3)]
    service = post("/services", {"type": "xyz", "process": process})
    for path, body in (("/process_graphs/p1", json.dumps(process)), ("/files/a/b.txt", "0123456789" * 100)):
        assert client.put(f"{API}{path}", data=body, headers=headers).status_code == HTTPStatus.OK
    return {
        "job_id": [*jobs, UUID],
        "job": [*jobs, UUID],
        "service_id": [service, UUID],
        "process_graph_id": ["p1", "p2"],
        "process_id": ["add", "x"],
        "path": ["a/b.txt", "x"],
        "share": [UUID],
        "workspace_id": ["w1"],
    }


# --- In the child ------------------------------------------------------------------------------------------


class _Tracebacks(logging.Handler):
    """Keeps what was logged of the last exception."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.last = "".join(traceback.format_exception(record.exc_info[1])[-6:])


@cache
def _application(url: str, data_dir: str) -> tuple[Flask, _Tracebacks]:
    use_odc_database(url)
    tracebacks = _Tracebacks()
    app = create_app(_config(url, data_dir))
    logging.getLogger().handlers[:] = [tracebacks]
    logging.getLogger("odc_openeo").handlers[:] = [tracebacks]
    return app, tracebacks


def send_request(attempt: tuple[Site, Case]) -> Outcome:
    """Let the application answer a request; errors of the API must be those of openEO."""
    site, case = attempt
    app, tracebacks = _application(site.database_url, site.data_dir)
    tracebacks.last = ""
    with _environment(case) as environ:
        chunks, status, headers = run_wsgi_app(app, environ, buffered=True)
        content = b"".join(chunks)
    if headers.get("Content-Encoding") == "gzip" and content:
        content = gzip.decompress(content)
    code = int(status.split()[0])
    if code >= 500 and code != HTTPStatus.NOT_IMPLEMENTED:
        return Outcome(fault=f"status {status}: {content[:300]!r}\n{tracebacks.last}")
    if code >= 400 and case.path.startswith(f"{API}/") and case.method != "HEAD" and not _is_error(content):
        return Outcome(fault=f"status {status} without an openEO error: {content[:300]!r}")
    location = headers.get("Location", "")
    if code < 400 and "evil.example" in location.partition("?")[0].split("/evil.example")[0]:
        return Outcome(fault=f"redirect to {location!r}")
    return Outcome(refused=code >= 400)


@contextmanager
def _environment(case: Case) -> Iterator[dict[str, Any]]:
    environ = create_environ(path="/", base_url="http://127.0.0.1:8080", method=case.method, data=case.body)
    environ["PATH_INFO"] = unquote_to_bytes(case.path.encode("latin-1")).decode("latin-1")
    environ["QUERY_STRING"] = case.query
    environ["REMOTE_ADDR"] = "127.0.0.1"
    environ["wsgi.errors"] = open(os.devnull, "w")  # noqa: SIM115  (closed below)
    for name, value in case.headers:
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    try:
        yield environ
    finally:
        environ["wsgi.errors"].close()


def _is_error(content: bytes) -> bool:
    try:
        body = json.loads(content)
    except ValueError:
        return False
    return isinstance(body, dict) and {"id", "code", "message"} <= body.keys()
