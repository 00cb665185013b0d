"""The stack of `odc-openeo up`, started for real in a process of its own."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

import odc_openeo
from odc_openeo.config import Config, child_environment
from odc_openeo.stack import embedded, postgres, subprocesses
from odc_openeo.stack.gunicorn_command import gunicorn_command
from odc_openeo.udf.caches import CACHE_PREFIX
from tests.conftest import COMMAND, start_stack
from tests.support.ordinary_user import find_python_of_all
from tests.support.processes import find_alive, have_ended
from tests.support.waiting import PATIENCE, wait_for


def get(url: str) -> tuple[int, dict]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, json.load(answer)


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture
def data_dir(short_folder, request):
    return short_folder / f"{request.node.name}"[:40]


def test_life_of_a_stack(data_dir):
    first = start_stack(data_dir, "--no-samples")
    said = first.said().splitlines()
    assert [line.partition(":")[0] for line in said] == ["Ready", "Add a user", "Add data"], said
    assert get(first.url + "/health")[0] == 200
    names = {" ".join(entry.cmdline()) for entry in family(first.process.pid)}
    for part in ("postgres", "dask scheduler", "dask worker", "gunicorn"):
        assert any(part in name for name in names), (part, names)

    # A second launcher on the same folder is turned away, and harms nothing.
    second = start_stack(data_dir, "--no-samples")
    assert second.process.wait(PATIENCE) == 1
    assert "is in use" in second.said()

    # The commands of the operator find the running stack.
    add = [*COMMAND, "user", "--data-dir", str(data_dir), "add", "ada", "--password-stdin"]
    subprocess.run(add, input="long enough\n", text=True, env=child_environment(), check=True)

    processes = family(first.process.pid)
    assert first.stop(signal.SIGTERM) == 0
    assert find_alive(processes) == []

    again = start_stack(data_dir, "--no-samples")
    listing = [*COMMAND, "user", "--data-dir", str(data_dir), "list"]
    users = subprocess.check_output(listing, text=True, env=child_environment())
    assert "ada\t\tactive" in users
    assert "demo\t\tactive" in users

    # A part that crashes ends the whole, and is named.
    processes = family(again.process.pid)
    victim = next(entry for entry in processes if "scheduler" in entry.cmdline())
    victim.kill()
    assert again.process.wait(PATIENCE) == 1
    assert "dask scheduler ended" in again.said()
    assert have_ended(processes)


def test_temporary_files_are_in_the_data_folder(short_folder):
    folder = short_folder / "data"
    folder.mkdir()
    assert embedded._choose_temporary_folder(folder) == {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp" / "pymp-left").mkdir()
    (folder / "tmp" / "pymp-left" / "listener").touch()
    (folder / "tmp" / "lock").touch()
    (folder / "elsewhere").mkdir()
    (folder / "tmp" / "link").symlink_to(folder / "elsewhere")
    cache = folder / "tmp" / f"{CACHE_PREFIX}0"
    cache.mkdir()
    assert embedded._choose_temporary_folder(folder) == {"TMPDIR": str(folder / "tmp")}
    assert list((folder / "tmp").iterdir()) == [cache]
    assert (folder / "elsewhere").is_dir()
    # The sockets of Python would have too long paths.
    assert embedded._choose_temporary_folder(folder / "deep" / ("deeper" * 10)) == {}


def test_nothing_outlives_a_killed_launcher(data_dir):
    stack = start_stack(data_dir, "--no-samples")
    processes = family(stack.process.pid)
    assert len(processes) > 5
    stack.process.kill()
    stack.process.wait()
    # Each ends in good order, which takes a busy machine a while.
    assert have_ended(processes), [process.cmdline() for process in find_alive(processes)]


def test_sigint_while_starting(data_dir):
    command = [
        *COMMAND,
        "up",
        "--data-dir",
        str(data_dir),
        "--port",
        str(embedded.free_port()),
        "--no-samples",
    ]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for((data_dir / "postgresql").exists)
    processes = family(launcher.pid)
    launcher.send_signal(signal.SIGINT)
    assert launcher.communicate(timeout=PATIENCE)[0] == "Stopped\n"
    assert launcher.returncode == 0
    assert have_ended(processes)


def run_up(*options: str, **variables: str) -> subprocess.CompletedProcess:
    command = [*COMMAND, "up", *options]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=60, check=False
    )


def test_port_in_use(data_dir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_up("--data-dir", str(data_dir), "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_user_is_refused_elsewhere(data_dir):
    done = run_up("--data-dir", str(data_dir), "--host", "0.0.0.0", ODC_OPENEO_DEMO_USER="true")
    assert done.returncode == 1
    assert "loopback" in done.stderr
    assert not data_dir.exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_up("--data-dir", str(tmp_path / "file" / "data"), "--port", str(embedded.free_port()))
    assert done.returncode == 1
    assert "--data-dir" in done.stderr


PACKAGES = [Path(postgres.__file__).parent, Path(psutil.__file__).parent]


ORDINARY = """
import sys
from pathlib import Path
from odc_openeo.stack import postgres
folder = Path(sys.argv[1])
server = postgres.start_server(folder / "pg", folder / "log")
print(server.run_sql("SELECT current_user"))
server.stop(5)
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or find_python_of_all(PACKAGES) is None,
    reason="needs root, and a Python and a clone that other users can reach",
)
def test_postgres_for_an_ordinary_user(short_folder):
    folder = short_folder / "ordinary"
    folder.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    path = os.pathsep.join(str(Path(entry.__file__).parents[1]) for entry in (odc_openeo, psutil))
    output = subprocess.check_output(
        [find_python_of_all(PACKAGES) or "", "-c", ORDINARY, str(folder)],
        user="nobody",
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env=child_environment(PYTHONPATH=path, HOME="/"),
        text=True,
    )
    assert output == f"{postgres.DATABASE_USER}\n"
    assert (folder / "pg" / "pgdata").stat().st_uid == nobody.pw_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_postgres_of_root_keeps_the_owner_of_its_data(short_folder):
    """The owner is a user without an account, or that of older data; copies that root made change theirs."""
    folder = short_folder / "owners"
    pgdata = folder / "pg" / "pgdata"

    def start() -> tuple[set[int], set[int], str]:
        server = postgres.start_server(folder / "pg", folder / "log")
        databases = server.run_sql("SELECT datname FROM pg_database WHERE datname = 'kept'")
        server.create_database("kept")
        runners = set(psutil.Process(server.child.process.pid).uids())
        server.stop(5)
        return runners, {path.lstat().st_uid for path in (pgdata, *pgdata.rglob("*"))}, databases

    assert start() == ({postgres.SERVER_UID}, {postgres.SERVER_UID}, "")
    with pytest.raises(KeyError):
        pwd.getpwuid(postgres.SERVER_UID)
    copy = folder / "copy"
    shutil.copytree(pgdata, copy, symlinks=True)
    shutil.rmtree(pgdata)
    copy.rename(pgdata)
    assert start() == ({postgres.SERVER_UID}, {postgres.SERVER_UID}, "kept")
    postgres._change_owner(pgdata, 12345)
    assert start() == ({12345}, {12345}, "kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_postgres_of_root_needs_a_folder_it_can_reach(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(postgres.PostgresError, match="--data-dir"):
        postgres.start_server(closed / "data" / "pg", tmp_path / "log")


def test_postgres_in_a_deep_folder(short_folder):
    folder = short_folder / ("deep" * 20) / ("deeper" * 10)
    server = postgres.start_server(folder / "pg", folder / "log")
    assert server.socket_dir != folder / "pg" / "pgdata"
    assert server.run_sql("SELECT 1") == "1"
    server.stop(5)
    assert not server.socket_dir.exists()


def test_postgres_that_lost_its_owner_is_taken_over(short_folder):
    folder = short_folder / "orphan"
    first = postgres.start_server(folder / "pg", folder / "log")
    first.create_database("kept")
    second = postgres.start_server(folder / "pg", folder / "log")
    assert "kept" in second.run_sql("SELECT datname FROM pg_database")
    assert first.child.process.wait(PATIENCE) == 0
    second.stop(5)


def test_children_are_killed_when_they_do_not_stop(tmp_path):
    code = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('up', flush=True); time.sleep(99)"
    log = tmp_path / "log"
    child = subprocesses.start_child("deaf", [sys.executable, "-c", code], log, child_environment())
    while not child.last_output():
        time.sleep(0.02)
    subprocesses.stop_children([child], 0.5)
    assert child.exit_status() == -signal.SIGKILL


def test_children_end_with_their_owner(tmp_path):
    code = (
        "import sys; from pathlib import Path; from odc_openeo.config import child_environment as env;"
        "from odc_openeo.stack import subprocesses;"
        "c = subprocesses.start_child('sleep', ['sleep', '600'], Path(sys.argv[1]), env());"
        "print(c.process.pid)"
    )
    output = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "log")], text=True)
    wait_for(lambda: not psutil.pid_exists(int(output)))


def test_gunicorn_never_preloads():
    command = gunicorn_command(Config(host="::1", port=1234))
    assert "--preload" not in command
    assert "[::1]:1234" in command
    assert Path(command[0]).exists()
