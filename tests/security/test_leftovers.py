"""What killed processes, full disks and cut connections leave behind."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.db import normalise_url
from odc_openeo.errors import StorageFailure, UrlUnreachable
from odc_openeo.storage.scratch_folders import FOLDER, make_scratch_folder, remove_abandoned_scratch
from odc_openeo.untrusted.safe_http import Policy, download_file
from tests.api.conftest import API, addition
from tests.catalog.scenes import PRODUCT, Index, scene
from tests.conftest import Site

OWNER = """
import sys, time
from odc_openeo.config import Config
from odc_openeo.storage.scratch_folders import make_scratch_folder
with make_scratch_folder(Config(data_dir=sys.argv[1])) as folder:
    (folder / "result.tif").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_folders_of_killed_processes_are_removed_at_the_next_start(config: Config) -> None:
    command = [sys.executable, "-c", OWNER, str(config.data_dir)]
    owners = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(owner.stdout.readline().strip()) for owner in owners if owner.stdout]
    try:
        with make_scratch_folder(config) as ours:
            assert remove_abandoned_scratch(config) == 0
            owners[0].kill()
            owners[0].wait()
            create_app(config)
            assert [folder.exists() for folder in folders] == [False, True]
            assert ours.is_dir()
        assert not ours.exists()
    finally:
        for owner in owners:
            owner.kill()
            owner.communicate()
    assert remove_abandoned_scratch(config) == 1
    assert list((config.data_dir / FOLDER).iterdir()) == []


def test_results_leave_no_folder(
    config: Config, odc_config: Config, client: FlaskClient, bearer: dict[str, str]
) -> None:
    answer = client.post(f"{API}/result", json={"process": addition()}, headers=bearer)
    assert answer.status_code == 200
    assert list((odc_config.data_dir / FOLDER).iterdir()) == []
    assert list((odc_config.data_dir / FOLDER).parent.parent.glob("odc-openeo-result-*")) == []


def test_a_full_disk_is_not_a_lost_connection(site: Site, tmp_path: Path) -> None:
    (site.folder / "large").write_bytes(b"x" * 2**20)
    policy = Policy(allow=("127.0.0.1",))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(StorageFailure, match="no space left"):
            download_file(policy, f"{site.root}/large", tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "copy").exists()
    download_file(policy, f"{site.root}/large", tmp_path / "copy")
    with pytest.raises(UrlUnreachable):
        download_file(policy, f"{site.root}/missing", tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    with pytest.raises(FileExistsError):
        download_file(policy, f"{site.root}/large", tmp_path / "copy")
    assert (tmp_path / "copy").exists()


ADDRESSES = ("/collections", "/search?limit=1", "/jobs", "/files", "/me", "/process_graphs", "/services")


def test_all_requests_are_answered_after_connections_were_cut(
    odc_config: Config, odc_database: str, app: Flask, bearer: dict[str, str], tmp_path: Path
) -> None:
    index = Index()
    index.add_product(PRODUCT)
    index.add(scene(tmp_path / "scene", 1, "2022-06-01T10:00:00Z"))
    index.datacube.close()
    client = app.test_client()
    name = PRODUCT["name"]
    addresses = (
        *ADDRESSES,
        f"/collections/{name}",
        f"/collections/{name}/items",
        f"/collections/{name}/queryables",
    )
    admin = create_engine(normalise_url(odc_database))
    cut = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for address in addresses:
        assert client.get(f"{API}{address}", headers=bearer).status_code == 200, address
    for address in addresses:
        with admin.connect() as connection:
            assert connection.execute(cut).scalar_one() > 0
        assert client.get(f"{API}{address}", headers=bearer).status_code == 200, address
    admin.dispose()
