"""An upgrade from 0.2.0: rows of every table stay, and are read through the API."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from flask.testing import FlaskClient
from sqlalchemy import MetaData

from odc_openeo import db
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.indexing.index import index_products, product_definitions
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD

REVISION = "services"
"""The last migration of 0.2.0."""

TOKEN = "a token from before the upgrade"
USER, JOB, ATTEMPT, SERVICE, WORKSPACE, SHARE = (UUID(int=number) for number in range(1, 7))
NOW = datetime.now(UTC)
GRAPH = {"add": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}
PROCESS = json.dumps({"process_graph": GRAPH})
ITEM = {
    "type": "Feature",
    "stac_version": "1.1.0",
    "id": "scene",
    "geometry": None,
    "properties": {"datetime": "2026-01-01T00:00:00Z"},
    "links": [],
    "assets": {},
}
STAC = {"title": "Mine", "description": "Of ada", "license": "other", "keywords": None, "providers": None}
BAND = {"name": "B04", "aliases": [], "common_name": "red", "dtype": "uint16", "nodata": 0, "units": "1"}
BAND |= {"scale": None, "offset": None, "wavelength": None, "bandwidth": None, "extra_dimension": None}
BAND |= {"given_aliases": [], "alias": None}
SUMMARY = {"lon": [9.0, 10.0], "lat": [50.0, 51.0], "x": [5e5, 6e5], "y": [5.5e6, 5.6e6], "count": 1}
SUMMARY |= {"time": ["2026-01-01T00:00:00+00:00"] * 2, "crs": ["EPSG:32632"], "grids": {"B04": [10.0, 10.0]}}
SUMMARY |= {"properties": {"datetime": "string"}}
DETAILS = {"bands": [BAND], "summary": SUMMARY}


def describe_rows(product: str) -> dict[str, dict[str, Any]]:
    """A row of every table, as 0.2.0 wrote it."""
    entry = {"level": 20, "time": NOW, "message": "It has begun", "entry": "{}"}
    usage = {"cpu": {"value": 7.5, "unit": "cpu-seconds"}}
    asset = {"name": "result.json", "type": "application/json", "roles": ["data"], "file:size": 1}
    owner, dates = {"user_id": USER}, {"created": NOW, "updated": NOW}
    hashed = accounts._hasher.hash(PASSWORD)
    return {
        "users": {"id": USER, "name": "ada", "password_hash": hashed, "roles": ["staff"], "disabled": False}
        | {"created": NOW},
        "tokens": {"hash": hashlib.sha256(TOKEN.encode()).digest(), "created": NOW, **owner}
        | {"expires": NOW + timedelta(days=1)},
        "attempts": {"key": "login ada 127.0.0.1", "count": 3, "since": NOW},
        "collection_summaries": {"product": product, "count": 0, "details": {}, "updated": NOW},
        "jobs": {"id": JOB, **owner, **dates, "status": "finished", "title": "Sum", "process": PROCESS}
        | {"log_level": "info", "extras": '{"x": 1}', "progress": 100.0, "usage": usage, "tries": 1}
        | {"queued": NOW, "started": NOW, "budget": 5.0},
        "job_logs": {"job_id": JOB, **entry},
        "job_results": {"job_id": JOB, "attempt": ATTEMPT, "complete": True, "assets": json.dumps([asset])}
        | {"details": "{}", "nbytes": 1, "created": NOW, "expires": NOW + timedelta(days=9)},
        "stored_processes": {
            **owner,
            "id": "sum",
            "process": PROCESS,
            "public": True,
            "share": SHARE,
            **dates,
        },
        "workspaces": {
            "key": WORKSPACE,
            **owner,
            "id": "shelf",
            "provider": "storage",
            "title": "Shelf",
            **dates,
        },
        "user_collections": {**owner, "id": "mine", "stac": json.dumps(STAC), **dates}
        | {"details": json.dumps(DETAILS)},
        "user_items": {**owner, "collection": "mine", "id": "scene", "run": "1", "item": json.dumps(ITEM)},
        "services": {"id": SERVICE, **owner, **dates, "type": "XYZ", "title": "Map", "process": PROCESS}
        | {"configuration": "{}", "enabled": True, "log_level": "info", "extras": "{}", "version": 1}
        | {"tiles": 4, "nbytes": 40, "cpu_s": 1.5},
        "service_logs": {"service_id": SERVICE, **entry},
    }


@pytest.fixture
def upgraded(odc_config: Config) -> FlaskClient:
    """The application after an upgrade of a database of 0.2.0 with rows in every table."""
    definition = product_definitions()[0]
    index_products([definition])
    migrate.downgrade(odc_config)
    migrate.upgrade(odc_config, REVISION)
    rows = describe_rows(yaml.safe_load(definition.read_text())["name"])
    metadata = MetaData(schema=db.SCHEMA)
    with db.get_engine(odc_config).begin() as connection:
        metadata.reflect(connection)
        tables = [table for table in metadata.sorted_tables if table.name != "alembic_version"]
        assert {table.name for table in tables} == rows.keys()
        for table in tables:
            connection.execute(table.insert(), rows[table.name])
    get_storage(odc_config).write(f"results/{JOB}/{ATTEMPT}/result.json", io.BytesIO(b"2"))
    migrate.upgrade(odc_config)
    return create_app(odc_config).test_client()


def test_everything_is_read_after_an_upgrade_from_0_2_0(upgraded: FlaskClient) -> None:
    headers = {"Authorization": f"Bearer basic//{TOKEN}"}

    def get(path: str) -> Any:
        answer = upgraded.get(f"{API}{path}", headers=headers)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))
        return answer.get_json()

    me = get("/me")
    assert (me["user_id"], me["name"], me["roles"], me["budget"]) == (
        str(USER),
        "ada",
        ["user", "staff"],
        None,
    )
    assert upgraded.get(f"{API}/credentials/basic", auth=("ada", PASSWORD)).status_code == 200
    assert [job["id"] for job in get("/jobs")["jobs"]] == [str(JOB)]
    job = get(f"/jobs/{JOB}")
    assert (job["status"], job["title"], job["budget"], job["x"]) == ("finished", "Sum", 5, 1)
    assert (job["process"], job["usage"]["cpu"]["value"]) == ({"process_graph": GRAPH}, 7.5)
    assert [entry["message"] for entry in get(f"/jobs/{JOB}/logs")["logs"]] == ["It has begun"]
    (asset,) = get(f"/jobs/{JOB}/results")["assets"].values()
    assert upgraded.get(asset["href"]).get_data() == b"2"
    assert get("/process_graphs/sum")["process_graph"] == GRAPH
    service = get(f"/services/{SERVICE}")
    assert (service["title"], service["enabled"]) == ("Map", True)
    assert [entry["message"] for entry in get(f"/services/{SERVICE}/logs")["logs"]] == ["It has begun"]
    assert get("/workspaces/shelf")["title"] == "Shelf"
    titles = {collection["id"]: collection["title"] for collection in get("/collections")["collections"]}
    assert (len(titles), titles["mine"]) == (2, "Mine")
    collection = get("/collections/mine")
    assert collection["extent"]["spatial"]["bbox"] == [[9, 50, 10, 51]]
    assert collection["cube:dimensions"]["bands"]["values"] == ["B04"]


def test_all_rows_stay(upgraded: FlaskClient) -> None:
    config = upgraded.application.extensions["odc_openeo"].config
    with db.get_engine(config).connect() as connection:
        counts = {
            table.name: len(connection.execute(table.select()).all())
            for table in db.Base.metadata.sorted_tables
        }
    assert {name for name, count in counts.items() if count != 1} == {"job_parts", "job_splits", "usage"}


def test_the_upgraded_service_takes_new_work(upgraded: FlaskClient) -> None:
    headers = {"Authorization": f"Bearer basic//{TOKEN}"}
    assert upgraded.post(f"{API}/jobs/{JOB}/results", headers=headers).status_code == 202
    assert upgraded.get(f"{API}/jobs/{JOB}", headers=headers).get_json()["status"] == "queued"
    body = {"process": {"process_graph": GRAPH}, "title": str(uuid4())}
    assert upgraded.post(f"{API}/jobs", json=body, headers=headers).status_code == 201
