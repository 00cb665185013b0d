"""Health checks name the parts of the service, and nothing about where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.stack import readiness
from odc_openeo.storage import check_storage

ALL_WELL = {"database": "ok", "index": "ok", "storage": "ok", "dask": "not configured"}


def ask(app: Flask) -> tuple[int, str, dict[str, str]]:
    """Status, state and states of the parts."""
    answer = app.test_client().get("/health/ready")
    body = answer.get_json()
    assert body.keys() == {"status", "dependencies"}
    return answer.status_code, body["status"], {d["name"]: d["status"] for d in body["dependencies"]}


def test_all_is_well(app: Flask, client: FlaskClient) -> None:
    assert client.get("/health/live").get_json() == {"status": "ok"}
    assert ask(app) == (200, "ok", ALL_WELL)


def test_a_lost_database_is_named(odc_config: Config) -> None:
    gone = odc_config.model_copy(
        update={"database_url": SecretStr("postgresql://me:secret@127.0.0.1:1/none")}
    )
    app = create_app(gone)
    assert ask(app) == (503, "unavailable", {**ALL_WELL, "database": "unusable"})
    assert app.test_client().get("/health/live").status_code == 200


def test_a_lost_index_is_named(app: Flask, odc_database: str) -> None:
    engine = create_engine(odc_database)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS agdc CASCADE"))
        connection.execute(text("DROP SCHEMA IF EXISTS odc CASCADE"))
    engine.dispose()
    assert ask(app) == (503, "unavailable", {**ALL_WELL, "index": "unusable"})
    answer = app.test_client().get("/openeo/1.3/collections")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "InfrastructureBusy")
    assert "doctor" in answer.get_json()["message"]


def test_a_lost_scheduler_leaves_the_rest(odc_config: Config) -> None:
    app = create_app(odc_config.model_copy(update={"dask_scheduler": "tcp://127.0.0.1:1"}))
    assert ask(app) == (200, "degraded", {**ALL_WELL, "dask": "no answer"})
    assert "127.0.0.1" not in app.test_client().get("/health").get_data(as_text=True)


def test_a_folder_that_cannot_be_written_is_named(odc_config: Config, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    app = create_app(odc_config.model_copy(update={"storage_url": str(file / "storage")}))
    assert ask(app) == (503, "unavailable", {**ALL_WELL, "storage": "unusable"})
    if os.geteuid():
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(ValueError, match="cannot write"):
            check_storage(odc_config.model_copy(update={"storage_url": str(closed)}))


def test_many_questions_are_one_look(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    state: readiness.Readiness = app.extensions["odc_openeo_readiness"]
    monkeypatch.setattr(state, "_checks", {"database": lambda: looks.append(1) or "ok"})
    for _ in range(20):
        assert ask(app)[0] == 200
    assert len(looks) == 1


def test_a_part_that_hangs_is_asked_once(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release, looks = threading.Event(), []
    state: readiness.Readiness = app.extensions["odc_openeo_readiness"]

    def hang() -> str:
        looks.append(1)
        release.wait(20)
        return "ok"

    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(state, "_checks", {"index": hang})
    for _ in range(5):
        assert ask(app) == (503, "unavailable", {"index": "no answer"})
    assert len(looks) == 1
    release.set()
