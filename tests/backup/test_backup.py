"""Backups: what they bring back, and archives that are refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from odc_openeo import db, jobs
from odc_openeo.config import Config, child_environment
from odc_openeo.db import migrate
from odc_openeo.jobs import queue
from odc_openeo.stack.backup import RestoreRefused, make_backup, restore_backup
from odc_openeo.stack.backup_archive import ArchiveWriter, BackupInvalid, extract_archive
from odc_openeo.storage import get_storage
from odc_openeo.users import accounts
from tests.conftest import COMMAND, start_stack
from tests.support.waiting import wait_for

PASSWORD = "correct horse"
API = "openeo/1.3"


@pytest.fixture
def filled(config: Config) -> Config:
    """A service with a user, a finished job with a result, and a file."""
    ada = accounts.create_user(config, "ada", PASSWORD, ["staff"])
    graph = {"add": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}
    id_ = jobs.create_job(config, ada.id, jobs.JobDraft({"process_graph": graph}))
    jobs.start_job(config, ada.id, str(id_))
    claim = queue.claim_job(config, "worker")
    assert claim is not None
    store = get_storage(config)
    store.write(f"{claim.folder}/result.json", io.BytesIO(b"2"))
    store.write(f"files/{ada.id}/notes.txt", io.BytesIO(b"hello"))
    queue.finish_run(config, claim, [{"name": "result.json", "file:size": 1}], {}, {})
    return config


@pytest.fixture
def empty(empty_database: str, tmp_path: Path) -> Iterator[Config]:
    """A service without tables and files."""
    config = Config(database_url=empty_database, data_dir=tmp_path / "other")
    yield config
    db.dispose_engine(config)


def dump_tables(config: Config) -> dict[str, list[tuple[str, ...]]]:
    """All rows of all tables."""
    with db.get_engine(config).connect() as connection:
        return {
            name: sorted(tuple(map(str, row)) for row in connection.execute(table.select()))
            for name, table in db.Base.metadata.tables.items()
        }


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_brings_everything_back(filled: Config, empty: Config, tmp_path: Path) -> None:
    key, rows = filled.signing_key(), dump_tables(filled)
    backup = tmp_path / "backup.tar"
    summary = make_backup(filled, backup)
    assert (summary.files, summary.schemas) == (2, ("openeo",))
    assert backup.stat().st_mode & 0o777 == 0o600
    assert restore_backup(empty, backup).files == 2
    assert dump_tables(empty) == rows
    assert empty.signing_key() == key
    assert list_files(empty.data_dir / "storage") == list_files(filled.data_dir / "storage")
    assert accounts.verify_password(empty, "ada", PASSWORD).roles == ("staff",)
    assert not [path.name for path in empty.data_dir.iterdir() if path.name.startswith(".")]


def test_a_folder_gets_a_new_file(filled: Config, tmp_path: Path) -> None:
    summary = make_backup(filled, tmp_path)
    assert summary.path.parent == tmp_path
    with pytest.raises(FileExistsError, match="exists"):
        make_backup(filled, summary.path)


def test_a_folder_is_made(filled: Config, tmp_path: Path) -> None:
    target = tmp_path / "kept" / "backups"
    summary = make_backup(filled, target)
    assert list(target.iterdir()) == [summary.path]
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_file_of_any_name_is_not_taken_for_a_folder(filled: Config, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match="notes exists"):
        make_backup(filled, tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_nothing_is_overwritten_unless_asked(filled: Config, tmp_path: Path) -> None:
    backup = make_backup(filled, tmp_path).path
    before = dump_tables(filled)
    accounts.create_user(filled, "bob", PASSWORD)
    get_storage(filled).write("files/later.txt", io.BytesIO(b"later"))
    db.dispose_engine(filled)
    with pytest.raises(RestoreRefused, match="openeo already"):
        restore_backup(filled, backup)
    restore_backup(filled, backup, replace=True)
    assert dump_tables(filled) == before
    assert "files/later.txt" not in list_files(filled.data_dir / "storage")


def test_a_running_service_is_not_restored(filled: Config, tmp_path: Path) -> None:
    backup = make_backup(filled, tmp_path).path
    with db.get_engine(filled).connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(RestoreRefused, match="stop them first"):
            restore_backup(filled, backup, replace=True)


def test_results_whose_files_went_meanwhile_are_not_restored(
    filled: Config, empty: Config, tmp_path: Path
) -> None:
    shutil.rmtree(filled.data_dir / "storage" / "results")
    summary = restore_backup(empty, make_backup(filled, tmp_path).path)
    assert "1 results are not restored" in summary.remarks[0]
    assert dump_tables(empty)["openeo.job_results"] == []
    assert len(dump_tables(empty)["openeo.jobs"]) == 1


def test_older_tables_are_upgraded(filled: Config, empty: Config, tmp_path: Path) -> None:
    migrate.downgrade(filled, "services")
    db.dispose_engine(filled)
    backup = tmp_path / "old.tar"
    write_backup(filled, backup, revision="services")
    restore_backup(empty, backup)
    assert accounts.verify_password(empty, "ada", PASSWORD).roles == ("staff",)


def write_backup(config: Config, path: Path, **manifest: Any) -> None:
    """Write a backup of tables of any version."""
    from odc_openeo.stack.database_dump import Database

    dump = path.with_suffix(".dump")
    Database(db.get_database_url(config)).dump(["openeo"], dump)
    with ArchiveWriter(path) as archive:
        about = {"format": 1, "version": "9", "revision": "usage", "schemas": ["openeo"], **manifest}
        archive.add_json("manifest.json", about)
        archive.add_file("database.dump", dump)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({"revision": "of the future"}, "newer version"),
        ({"format": 2}, "format"),
        ({"schemas": ["public"]}, "schemas"),
        ({"schemas": None}, "schemas"),
    ],
)
def test_other_versions_are_refused(
    filled: Config, empty: Config, tmp_path: Path, manifest: dict[str, Any], problem: str
) -> None:
    write_backup(filled, tmp_path / "b.tar", **manifest)
    with pytest.raises(BackupInvalid, match=problem):
        restore_backup(empty, tmp_path / "b.tar")
    assert not (empty.data_dir / "storage").exists()


# --- Archives ------------------------------------------------------------------------------------


def make_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "member",
    [
        make_member("../out"),
        make_member("storage/../../out"),
        make_member("/etc/out"),
        make_member("storage//x"),
        make_member("storage/./x"),
        make_member("other/x"),
        make_member("storage"),
        make_member("storage/link", tarfile.SYMTYPE, "/etc"),
        make_member("storage/link", tarfile.LNKTYPE, "manifest.json"),
        make_member("storage/fifo", tarfile.FIFOTYPE),
        make_member("storage/device", tarfile.CHRTYPE),
        make_member("storage/folder", tarfile.DIRTYPE),
        make_member("manifest.json"),
    ],
    ids=lambda member: f"{member.name} {member.type.decode()}",
)
def test_members_that_no_backup_has_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path, target = tmp_path / "bad.tar", tmp_path / "in" / "side"
    with tarfile.open(path, "w") as tar:
        tar.addfile(make_member("manifest.json"), io.BytesIO(b"1"))
        tar.addfile(member, io.BytesIO(b"x"))
    target.mkdir(parents=True)
    with pytest.raises(BackupInvalid):
        extract_archive(path, target)
    assert {entry.name for entry in tmp_path.iterdir()} == {"bad.tar", "in"}
    assert {entry.name for entry in target.iterdir()} <= {"manifest.json", "storage"}


def damage(content: bytes, place: float) -> bytes:
    i = int(len(content) * place)
    return content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-12_000],
        lambda content: content[:100],
        lambda content: b"",
        lambda content: b"PK\x03\x04" + content,
        *[lambda content, place=place: damage(content, place) for place in (0.1, 0.3, 0.5, 0.7)],
    ],
)
def test_damaged_archives_are_refused(
    filled: Config, empty: Config, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    get_storage(filled).write("files/large.bin", io.BytesIO(bytes(range(256)) * 400))
    backup = make_backup(filled, tmp_path).path
    broken = tmp_path / "broken.tar"
    broken.write_bytes(change(backup.read_bytes()))
    with pytest.raises(BackupInvalid, match="broken.tar"):
        restore_backup(empty, broken)
    with db.get_engine(empty).connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regnamespace('openeo')").scalar() is None
    assert not (empty.data_dir / "storage").exists()


def test_files_that_shrink_while_they_are_copied_end_with_zeros(tmp_path: Path) -> None:
    from odc_openeo.stack.backup_archive import _Reader

    reader = _Reader(io.BytesIO(b"abc"), 5)
    assert reader.read(4) + reader.read() + reader.read(9) == b"abc\0\0"


def test_a_failed_backup_leaves_no_file(filled: Config, tmp_path: Path) -> None:
    migrate.downgrade(filled)
    with pytest.raises(ValueError, match="migrate"):
        make_backup(filled, tmp_path / "backup.tar")
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


# --- The whole stack -----------------------------------------------------------------------------


class User:
    """A user of a stack, signed in with name and password."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/{API}"
        token = requests.get(f"{self.url}/credentials/basic", auth=("ada", PASSWORD), timeout=30)
        assert token.ok, token.text
        self.headers = {"Authorization": f"Bearer basic//{token.json()['access_token']}"}

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.url}{path}"
        answer = requests.request(method, url, headers=self.headers, timeout=30, **options)
        assert answer.ok, answer.text
        return answer


def test_a_stack_is_back_after_its_folder_was_lost(short_folder: Path, tmp_path: Path) -> None:
    data_dir = short_folder / "restored"
    first = start_stack(data_dir, "--no-samples")
    try:
        assert first.process.poll() is None, first.said()
        run = [*COMMAND, "user", "--data-dir", str(data_dir), "add", "ada", "--password-stdin"]
        added = subprocess.run(run, input=PASSWORD, text=True, env=child_environment(), capture_output=True)
        assert added.returncode == 0, added.stdout + added.stderr
        ada = User(first.url)
        graph = {"add": {"process_id": "add", "arguments": {"x": 1, "y": 41}, "result": True}}
        job = ada.ask("POST", "/jobs", json={"process": {"process_graph": graph}}).headers[
            "OpenEO-Identifier"
        ]
        ada.ask("POST", f"/jobs/{job}/results")
        wait_for(lambda: ada.ask("GET", f"/jobs/{job}").json()["status"] == "finished")
        ada.ask("PUT", "/files/notes.txt", data=b"hello")
        backup = tmp_path / "backup.tar"
        done = run_backup_command("backup", data_dir, backup)
        assert "openeo, agdc" in done
    finally:
        first.stop()
    shutil.rmtree(data_dir)
    assert "Restored openeo, agdc" in run_backup_command("restore", data_dir, backup)
    second = start_stack(data_dir, "--no-samples")
    try:
        ada = User(second.url)
        assert ada.ask("GET", f"/jobs/{job}").json()["status"] == "finished"
        (asset,) = ada.ask("GET", f"/jobs/{job}/results").json()["assets"].values()
        assert json.loads(ada.ask("GET", asset["href"]).text) == 42
        assert ada.ask("GET", "/files/notes.txt").content == b"hello"
        wait_for(lambda: requests.get(f"{second.url}/health/ready", timeout=30).json()["status"] == "ok")
    finally:
        second.stop()


def run_backup_command(name: str, data_dir: Path, file: Path) -> str:
    start = time.monotonic()
    command = [*COMMAND, name, "--data-dir", str(data_dir), str(file)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{name}: {time.monotonic() - start:.1f} s")
    return done.stdout
