"""The command `odc-openeo`, called as users call it."""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import psutil
import psycopg2
import pytest
from click.testing import CliRunner

from odc_openeo import __version__, db
from odc_openeo.cli import cli, main
from odc_openeo.config import Config, child_environment
from odc_openeo.errors import CredentialsInvalid, TokenInvalid
from odc_openeo.users import accounts
from tests.conftest import COMMAND
from tests.support.index_drivers import get_test_driver, index_environment

ROOT = Path(__file__).parent.parent


def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run the command as `odc-openeo` does, but in this process: those of Python take seconds to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["odc-openeo", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, stdout.getvalue(), stderr.getvalue())


def run_process(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=120,
        check=False,
    )


def test_every_command_and_option_explains_itself():
    def walk(command, path):
        assert command.help, path
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (path, parameter.name)
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(cli, "odc-openeo")
    assert {"up", "serve", "migrate", "index", "user", "demo", "doctor", "version"} <= set(cli.commands)


def test_version_is_printed():
    assert run_process("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("setting", ["true", None])
def test_serve_makes_the_user_demo_if_the_setting_says_so(odc_config, monkeypatch, setting):
    monkeypatch.setattr(os, "execve", lambda *_: None)
    for name, value in odc_config.environment().items():
        monkeypatch.setenv(name, value)
    if setting:
        monkeypatch.setenv("ODC_OPENEO_DEMO_USER", setting)
    done = CliRunner().invoke(cli, ["serve"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [user.name for user in accounts.list_users(odc_config)] == (["demo"] if setting else [])


def test_commands_wait_for_a_busy_server(config, postgres_server, monkeypatch):
    monkeypatch.setitem(db._connect_seconds, "limit", 5)
    variables = config.environment()
    db.dispose_engine(config)
    server = psutil.Process(postgres_server.child.process.pid)
    server.suspend()
    # Longer than a request would wait for a connection.
    timer = threading.Timer(7, server.resume)
    timer.start()
    try:
        done = run("user", "add", "ada", "--password-stdin", stdin="long enough\n", **variables)
    finally:
        timer.cancel()
        server.resume()
    assert (done.returncode, done.stderr) == (0, "")


def test_users_are_added_listed_and_disabled(config):
    variables = config.environment()
    assert run("user", "add", "ada", "--password-stdin", stdin="short\n", **variables).returncode == 1
    result = run_process(
        "user", "add", "ada", "--role", "admin", "--password-stdin", stdin="long enough\n", **variables
    )
    assert result.stdout == "Created user ada\n", result.stderr
    id_, *row = listed(**variables)[0]
    assert row == ["ada", "admin", "active", ""]
    assert run("user", "disable", "ada", **variables).stdout == "Disabled user ada\n"
    assert listed(**variables) == [[id_, "ada", "admin", "disabled", ""]]
    assert run("user", "enable", id_, **variables).stdout == "Enabled user ada\n"
    assert run("user", "roles", "ada", **variables).stdout == "Roles of user ada: none\n"
    assert listed(**variables) == [[id_, "ada", "", "active", ""]]
    assert run("user", "revoke", "ada", **variables).stdout == "Ended 0 sessions of user ada\n"
    gone = run_process("user", "disable", "eve", **variables)
    assert gone.returncode == 1
    assert gone.stderr.startswith("Error: there is no user 'eve'")


def test_a_new_password_ends_all_sessions(config):
    ada = accounts.create_user(config, "ada", "correct horse")
    token = accounts.issue_token(config, ada)
    done = run(
        "user", "password", "ada", "--password-stdin", stdin="battery staple\n", **config.environment()
    )
    assert done.stdout == "Changed the password of user ada\n", done.stderr
    assert accounts.verify_password(config, "ada", "battery staple") == ada
    for refused in (
        lambda: accounts.verify_password(config, "ada", "correct horse"),
        lambda: accounts.get_user_by_token(config, token),
    ):
        with pytest.raises((CredentialsInvalid, TokenInvalid)):
            refused()


def listed(**variables: str) -> list[list[str]]:
    """What `user list` prints: rows of columns."""
    return [line.split("\t") for line in run("user", "list", **variables).stdout.splitlines()]


def test_faulty_providers_stop_the_service(config, tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text("providers: [{id: a, client_secret: hush}]")
    done = run("serve", **config.environment(), ODC_OPENEO_OIDC_PROVIDERS=str(path))
    assert done.returncode == 1
    assert "ODC_OPENEO_OIDC_PROVIDERS" in done.stderr
    assert "providers.0.issuer: Field required" in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["user", "list"]])
def test_missing_database_is_said(command):
    done = run(*command)
    assert done.returncode == 1
    assert "ODC_OPENEO_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_setting_is_named():
    done = run("doctor", ODC_OPENEO_PORT="many")
    assert done.returncode == 1
    assert "ODC_OPENEO_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_finds_all_well(odc_config):
    done = run_process("doctor", "--settings", **odc_config.environment())
    assert done.returncode == 0, done.stdout
    marks = [line[:4] for line in done.stdout.splitlines() if line[:4] in ("fail", "warn", "ok  ")]
    assert marks == sorted(marks, key=["fail", "warn", "ok  "].index)
    for name in Config.model_fields:
        assert f"ODC_OPENEO_{name.upper()}" in done.stdout
    assert done.stdout.count("ok  ") == 9
    assert re.search(r"^(ok|warn) +user-defined functions: ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("mode", "mark", "text"), [("off", "ok", "turned them off"), ("namespaces", "fail", "bubblewrap")]
)
def test_doctor_says_why_no_user_code_runs(tmp_path, mode, mark, text):
    # Nothing else is there, bubblewrap neither.
    done = run("doctor", ODC_OPENEO_UDF=mode, ODC_OPENEO_DATA_DIR=str(tmp_path), PATH=str(tmp_path))
    (line,) = [line for line in done.stdout.splitlines() if "user-defined functions: " in line]
    assert line.startswith(mark)
    assert text in line
    assert list(tmp_path.iterdir()) == []
    assert "ODC_OPENEO_PORT" not in done.stdout


def test_doctor_says_what_to_fix(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(
        "doctor",
        ODC_OPENEO_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none",
        ODC_OPENEO_DASK_SCHEDULER="tcp://127.0.0.1:1",
        ODC_OPENEO_STORAGE_URL=str(tmp_path / "file" / "x"),
        ODC_OPENEO_PROT="8081",
        **index_environment("postgresql+psycopg2://me:secret@127.0.0.1:1/none"),
    )
    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
    findings = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert [line.split()[1] for line in findings] == ["settings:", "database:", "index:", "dask:", "storage:"]
    for line, what in zip(
        findings,
        [
            "ODC_OPENEO_PROT",
            "no PostgreSQL answers",
            "ODC_DEFAULT_DB_URL",
            "scheduler",
            "ODC_OPENEO_STORAGE_URL",
        ],
        strict=True,
    ):
        assert what in line


def test_index_products(odc_database):
    done = run("index", "products", **index_environment(odc_database))
    assert done.returncode == 0, done.stderr
    with psycopg2.connect(odc_database.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        table = "agdc.dataset_type" if get_test_driver() == "postgres" else "odc.product"
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert f"Added {cursor.fetchone()[0]} products" in done.stdout


def test_index_stac_names_the_unknown_product(odc_database, tmp_path):
    (tmp_path / "item.json").write_text("{}")
    done = run("index", "stac", str(tmp_path / "item.json"), **index_environment(odc_database))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_wheel_has_everything_and_works_anywhere(tmp_path, empty_database):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("odc_openeo-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    package = ROOT / "odc_openeo"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"odc_openeo/{path.relative_to(package)}" in names
    assert not [name for name in names if name.startswith("tests")]

    environment = child_environment(PYTHONPATH=str(tmp_path / "site"), ODC_OPENEO_DATABASE_URL=empty_database)
    code = "import odc_openeo; print(odc_openeo.__file__)"
    where = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True)
    assert where.startswith(str(tmp_path / "site"))
    subprocess.run([*COMMAND, "migrate"], cwd=tmp_path, env=environment, check=True)
    users = subprocess.run([*COMMAND, "user", "list"], cwd=tmp_path, env=environment, check=True)
    assert users.returncode == 0


def test_lock_file_is_exact_and_complete():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in line and "://" not in line and not line.startswith("-") for line in pins)
    names = {line.split("==")[0] for line in pins}
    assert {"datacube", "odc-stac", "openeo", "pytest", "ruff", "mypy", "import-linter"} <= names


def test_make_help_lists_all_targets():
    text = subprocess.check_output(["make", "--no-print-directory", "help"], cwd=ROOT, text=True)
    listed = {line.split()[0] for line in text.splitlines()}
    assert {"help", "demo", "test", "serve", "check", "bench", "clean"} <= listed
