"""How the operator's commands find the stack that runs with a data folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from odc_openeo import db
from odc_openeo.cli import cli
from odc_openeo.config import Config, odc_database_environment
from odc_openeo.stack import running_stack
from odc_openeo.stack.running_stack import FolderInUse, RunningStack, find_running_stack, lock_folder
from odc_openeo.users import accounts


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ODC_", "DATACUBE_")):
            monkeypatch.delenv(name)


def leave_note(folder: Path, url: str, port: int = 8080) -> RunningStack:
    stack = RunningStack(f"http://127.0.0.1:{port}", url, None, odc_database_environment(url))
    running_stack.write_note(folder, stack)
    return stack


def run(*arguments: str, **environment: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), env=environment, input="correct horse\n")
    return done.output


def test_a_stack_is_found_as_long_as_its_launcher_lives(tmp_path: Path) -> None:
    assert find_running_stack(tmp_path) is None
    lock = lock_folder(tmp_path)
    assert find_running_stack(tmp_path) is None
    stack = leave_note(tmp_path, "postgresql+psycopg2://it@/datacube?host=/tmp/it")
    assert find_running_stack(tmp_path) == stack
    assert (tmp_path / running_stack.NOTE).stat().st_mode & 0o077 == 0
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        lock_folder(tmp_path)
    # A launcher that is killed leaves its note, but not its lock.
    lock.close()
    assert find_running_stack(tmp_path) is None


def test_commands_use_the_running_stack(
    plain_environment: None, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = db.get_database_url(config).render_as_string(hide_password=False)
    folder = tmp_path / "stack of mine"
    folder.mkdir()
    with lock_folder(folder):
        leave_note(folder, url)
        assert (
            run("user", "--data-dir", str(folder), "add", "ada", "--password-stdin") == "Created user ada\n"
        )
        assert "ada" in run("user", "list", ODC_OPENEO_DATA_DIR=str(folder))
        exports = run("env", "--data-dir", str(folder))
        script = f'{exports}\necho "$ODC_DEFAULT_DB_URL $ODC_OPENEO_DATA_DIR"'
        shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert shell.stdout == f"{url} {folder}\n"
    assert [user.name for user in accounts.list_users(config)] == ["ada"]
    nothing = run("env", "--data-dir", str(folder))
    assert nothing == (
        f"Error: no stack of yours runs with {folder}: start `odc-openeo up`, or name its --data-dir\n"
    )


def test_settings_win_over_the_running_stack(plain_environment: None, tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, database_url="postgresql:///mine", dask_scheduler="tcp://mine:1")
    with lock_folder(tmp_path):
        leave_note(tmp_path, "postgresql+psycopg2://it@/datacube")
        assert running_stack.attach(config) == config


def test_a_misspelt_setting_is_named_everywhere(plain_environment: None, tmp_path: Path) -> None:
    environment = {"ODC_OPENEO_PROT": "9000", "ODC_OPENEO_DATA_DIR": str(tmp_path)}
    for command in (["env"], ["user", "list"], ["migrate"], ["serve"]):
        assert "Warning: ODC_OPENEO_PROT is not a setting" in run(*command, **environment)
