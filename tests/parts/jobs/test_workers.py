"""Real workers at parts: lost, several at once, paused; parts that fail; what other users see."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy import select

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.cli import cli
from odc_openeo.config import child_environment
from odc_openeo.jobs.part_progress import find_parts_progress
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from tests.parts.jobs.site import TORN, TORN_SHAPE, PartsSite, Worker, compute_expected, load, reduce_graph

API = "/openeo/1.3"
Start = Callable[..., Worker]


@pytest.fixture
def start(parts_site: PartsSite) -> Iterator[Start]:
    """Starts workers, which are killed in the end."""
    workers: list[Worker] = []

    def start_worker(*options: str) -> Worker:
        workers.append(parts_site.start_worker("--parts", *options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.kill()


@pytest.fixture
def client(parts_site: PartsSite) -> FlaskClient:
    return create_app(parts_site.config).test_client()


def sign_in(site: PartsSite, name: str) -> dict[str, str]:
    user = next((u for u in accounts.list_users(site.config) if u.name == name), None)
    account = user or accounts.create_user(site.config, name, "correct horse")
    return {"Authorization": f"Bearer basic//{accounts.issue_token(site.config, account)}"}


def list_rows(site: PartsSite, id_: str) -> list[db.JobPartRow]:
    """The parts of a job in the book."""
    query = select(db.JobPartRow).where(db.JobPartRow.job_id == UUID(id_)).order_by(db.JobPartRow.number)
    with db.session(site.config) as session:
        return list(session.scalars(query))


def list_stored(site: PartsSite, id_: str) -> list[str]:
    return get_storage(site.config).walk(f"results/{id_}")


def check_pixels(site: PartsSite, id_: str, folder: Path) -> None:
    with rasterio.open(site.fetch_files(id_, folder)["result.vrt"]) as file:
        np.testing.assert_array_equal(file.read(), compute_expected())


def test_a_job_goes_on_after_its_worker_was_killed(
    parts_site: PartsSite, start: Start, client: FlaskClient, tmp_path: Path
) -> None:
    id_ = parts_site.submit(reduce_graph("GTiff"))
    first = start()
    parts_site.wait_for_parts(id_, 2)
    first.kill()
    before = {row.number: row.attempt for row in list_rows(parts_site, id_) if row.status == "done"}
    headers = sign_in(parts_site, "ada")
    document = client.get(f"{API}/jobs/{id_}", headers=headers).get_json()
    assert document["odc:parts"]["total"] == 6
    assert document["odc:parts"]["done"] == len(before)
    assert document["progress"] == pytest.approx(100 * len(before) / 6, abs=0.1)
    partial = client.get(f"{API}/jobs/{id_}/results?partial=true", headers=headers).get_json()
    assert len(partial["assets"]) == len(before)
    href = next(iter(partial["assets"].values()))["href"]
    assert client.get(href.partition("/results/")[1] + href.partition("/results/")[2]).status_code == 200
    second = start()
    job = parts_site.wait(id_, "finished", "error")
    assert job.status == "finished", (parts_site.list_messages(id_), second.output.read_text())
    after = {row.number: row for row in list_rows(parts_site, id_)}
    assert all(after[number].attempt == attempt for number, attempt in before.items())
    assert all(after[number].tries == 1 for number in before)
    check_pixels(parts_site, id_, tmp_path)
    # Only what counts is left, once the worker has cleaned up.
    second.wait_until_idle()
    kept = [key for key in list_stored(parts_site, id_) if not key.endswith("skeleton")]
    assert len(kept) == 7, kept


def test_two_workers_share_a_job(parts_site: PartsSite, start: Start, tmp_path: Path) -> None:
    workers = [start(), start()]
    for worker in workers:
        worker.wait_until_ready()
    id_ = parts_site.submit(reduce_graph("GTiff"))
    assert parts_site.wait(id_, "finished", "error").status == "finished", parts_site.list_messages(id_)
    rows = list_rows(parts_site, id_)
    assert {int(str(row.worker).rpartition(":")[2]) for row in rows} == {w.process.pid for w in workers}
    assert all(row.tries == 1 for row in rows)
    check_pixels(parts_site, id_, tmp_path)


def test_pause_and_resume_and_cancel(
    parts_site: PartsSite, start: Start, client: FlaskClient, tmp_path: Path
) -> None:
    worker = start()
    id_ = parts_site.submit(reduce_graph("GTiff"))
    parts_site.wait_for_parts(id_, 1)
    environment = child_environment(parts_site.config, **parts_site.environment)

    def call(*words: str) -> Any:
        return CliRunner().invoke(cli, ["jobs", *words], env=environment)

    paused = call("pause", id_)
    assert (paused.exit_code, "paused" in paused.output) == (0, True), paused.output
    worker.wait_until_idle()
    progress = find_parts_progress(parts_site.config, UUID(id_))
    assert progress is not None
    assert progress.paused
    assert progress.done < 6
    assert parts_site.get_job(id_).status == "running"
    assert call("pause", "nonsense").exit_code == 1
    headers = sign_in(parts_site, "bob")
    for path in ("", "/logs", "/results?partial=true", "/estimate"):
        assert client.get(f"{API}/jobs/{id_}{path}", headers=headers).status_code == 404
    assert call("resume", id_).exit_code == 0
    assert parts_site.wait(id_, "finished", "error").status == "finished"
    check_pixels(parts_site, id_, tmp_path)
    headers = sign_in(parts_site, "ada")
    other = parts_site.submit(reduce_graph("Zarr"))
    parts_site.wait_for_parts(other, 1)
    # Its other parts may take less time than the request.
    worker.send_signal(signal.SIGSTOP)
    answer = client.delete(f"{API}/jobs/{other}/results", headers=headers)
    worker.send_signal(signal.SIGCONT)
    assert answer.status_code == 204
    assert parts_site.get_job(other).status == "canceled"
    worker.wait_until_idle()
    assert sum(row.status == "done" for row in list_rows(parts_site, other)) < 6
    jobs.delete_job(parts_site.config, parts_site.user, other)
    assert list_rows(parts_site, other) == []


def test_a_part_that_fails_ends_the_job_or_is_left_out(
    parts_site: PartsSite, start: Start, client: FlaskClient, tmp_path: Path
) -> None:
    start()
    graph = reduce_graph("GTiff")
    graph["load"] = load(id=TORN, bands=["B04", "B08"])
    hard, soft, merged = (
        parts_site.submit(graph),
        parts_site.submit(graph, **{"soft-errors": 0.4}),
        parts_site.submit(
            {**graph, "save": reduce_graph("GTiff", {"merge": True})["save"]}, **{"soft-errors": True}
        ),
    )
    assert parts_site.wait(hard, "finished", "error").status == "error"
    messages = parts_site.list_messages(hard)
    assert any(m.startswith("error: Part 2 of 3: ") for m in messages), messages
    assert [row.tries for row in list_rows(parts_site, hard)][1] >= 2
    for number, id_ in enumerate((soft, merged)):
        assert parts_site.wait(id_, "finished", "error").status == "finished", parts_site.list_messages(id_)
        headers = sign_in(parts_site, "ada")
        collection = client.get(f"{API}/jobs/{id_}/results", headers=headers).get_json()
        (missing,) = collection["odc:missing_parts"]
        assert missing["part"] == 2
        assert missing["window"] == {"rows": [0, 1024], "columns": [2048, 4096]}
        assert missing["reason"]
        assert str(parts_site.folder) not in json.dumps(collection)
        files = parts_site.fetch_files(id_, tmp_path / str(number))
        expected = compute_expected(dates=1, shape=TORN_SHAPE)
        expected[:, :, 2048:4096] = 0
        with rasterio.open(files["result.tif" if id_ == merged else "result.vrt"]) as file:
            np.testing.assert_array_equal(file.read(), expected)


def test_a_process_that_ends_does_not_wait_for_that_of_a_part(parts_site: PartsSite, start: Start) -> None:
    id_ = parts_site.submit(reduce_graph("GTiff"))
    planner = start()
    parts_site.wait_for_parts(id_, 1)
    planner.kill()
    script = (
        "from odc_openeo.config import Config\n"
        "from odc_openeo.jobs.claims import claim_work\n"
        "from odc_openeo.worker.executors import ClaimRunner\n"
        "if __name__ == '__main__':\n"
        "    runner = ClaimRunner(Config())\n"
        "    assert runner.part_process.prepare(claim_work(runner.config, 'test', jobs=False))\n"
        "    assert runner.part_process.process.is_alive()\n"
    )
    path = parts_site.folder / "ending.py"
    path.write_text(script)
    environment = child_environment(parts_site.config, **parts_site.environment)
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
