"""`odc-openeo jobs`: jobs of all users for operators."""

from __future__ import annotations

import io
import json
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from odc_openeo import db, jobs
from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.jobs import queue
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts

PASSWORD = "correct horse"


class Operator:
    """Runs the commands for one service."""

    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in config.environment().items():
            monkeypatch.setenv(name, value)
        self.config = config
        self.users = {name: accounts.create_user(config, name, PASSWORD).id for name in ("ada", "bob")}

    def run(self, *arguments: str, fails: bool = False) -> Result:
        done = CliRunner().invoke(cli, ["jobs", *arguments])
        assert (done.exit_code != 0) == fails, done.output
        return done

    def list(self, *options: str) -> list[str]:
        return [row["id"] for row in json.loads(self.run("list", "--json", *options).stdout)]

    def add_job(self, user: str, state: str, title: str = "title") -> str:
        """A job in a state, which it has reached as jobs do."""
        owner = self.users[user]
        id_ = jobs.create_job(self.config, owner, jobs.JobDraft({"process_graph": {}}, title=title))
        if state != "created":
            jobs.start_job(self.config, owner, str(id_))
        if state in ("running", "finished", "error"):
            claim = queue.claim_job(self.config, "host:1")
            assert claim is not None
            assert claim.job.id == id_
            if state == "finished":
                get_storage(self.config).write(f"{claim.folder}/a.json", io.BytesIO(b"1"))
                queue.finish_run(self.config, claim, [{"name": "a.json", "file:size": 1}], {}, {})
            if state == "error":
                queue.fail_run(self.config, claim, {}, [])
        return str(id_)

    def get_state(self, user: str, id_: str) -> str:
        return jobs.get_job(self.config, self.users[user], id_).status


@pytest.fixture
def operator(config: Config, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(config, monkeypatch)


def test_list_filters(operator: Operator) -> None:
    failed = operator.add_job("ada", "error")
    running = operator.add_job("bob", "running")
    queued = operator.add_job("ada", "queued")
    assert operator.list() == [queued, running, failed]
    assert operator.list("--user", "ada") == [queued, failed]
    assert operator.list("--user", str(operator.users["bob"])) == [running]
    assert operator.list("--state", "error", "--state", "running") == [running, failed]
    assert operator.list("--limit", "1") == [queued]
    assert operator.list("--older", "1h") == []
    with db.session(operator.config) as session:
        earlier = text("UPDATE openeo.jobs SET created = created - interval '2 days' WHERE id = :id")
        session.execute(earlier, {"id": UUID(failed)})
    assert operator.list("--older", "1d") == [failed]
    assert operator.list("--user", "nobody") == []


def test_the_table_stays_a_table(operator: Operator) -> None:
    id_ = operator.add_job("ada", "created", title="a\n\x1b[31mforged")
    header, row = operator.run("list").stdout.splitlines()
    assert header.split()[:3] == ["id", "user", "state"]
    assert row.split()[:3] == [id_, "ada", "created"]
    assert row.isprintable()


@pytest.mark.parametrize("age", ["7", "7w", "-1d", "1d2h", "٣d", "9999999d"])
def test_ages_that_are_none(operator: Operator, age: str) -> None:
    assert "number and a unit" in operator.run("list", "--older", age, fails=True).output


def test_cancel(operator: Operator) -> None:
    finished = operator.add_job("ada", "finished")
    running, queued = operator.add_job("ada", "running"), operator.add_job("bob", "queued")
    operator.run("cancel", running)
    assert operator.get_state("ada", running) == "created"
    operator.run("cancel", "--user", "bob")
    assert operator.get_state("bob", queued) == "created"
    assert "neither queued nor running" in operator.run("cancel", finished).output
    assert operator.get_state("ada", finished) == "finished"


def test_requeue(operator: Operator) -> None:
    finished, failed = operator.add_job("ada", "finished"), operator.add_job("bob", "error")
    untouched = operator.add_job("bob", "created")
    running = operator.add_job("bob", "running")
    folder = operator.config.data_dir / "storage" / "results" / finished
    assert list(folder.rglob("a.json"))
    operator.run("requeue", finished)
    assert operator.get_state("ada", finished) == "queued"
    assert not list(folder.rglob("a.json"))
    operator.run("requeue", "--user", "bob")
    assert [operator.get_state("bob", id_) for id_ in (failed, untouched, running)] == [
        "queued",
        "created",
        "queued",
    ]
    assert "already" in operator.run("requeue", failed).output


@pytest.mark.parametrize("action", ["cancel", "requeue"])
def test_nothing_is_changed_by_mistake(operator: Operator, action: str) -> None:
    running = operator.add_job("ada", "running")
    assert "name jobs" in operator.run(action, fails=True).output
    assert "name jobs" in operator.run(action, running, "--user", "ada", fails=True).output
    for id_ in (str(uuid4()), "no", "x'; DROP TABLE jobs"):
        assert "not changed" in operator.run(action, id_, fails=True).output
    assert operator.get_state("ada", running) == "running"
