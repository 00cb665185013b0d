"""Gunicorn with our worker and runners: clients that leave, threads that are all busy, processes that die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from odc_openeo.stack.embedded import free_port
from tests.conftest import wait_until_answering
from tests.support.processes import has_ended

APP = """
import os
import time
from pathlib import Path

from odc_openeo.api.runner_calls import watch_client
from odc_openeo.config import Config
from odc_openeo.runners import Lane, RunAbandoned, RunnerPool
from tests.runners import tasks

pool = RunnerPool(Config(data_dir=os.environ["FOLDER"]), Lane("test", 2, 2, 9, 9))

def app(environ, start_response):
    match environ["PATH_INFO"].split("/"):
        case ["", "run", name]:
            mark = Path(os.environ["FOLDER"], name)
            wanted = watch_client(environ)
            try:
                pool.run(tasks.sleep_and_mark, mark, 60.0, user="ada", seconds=60.0, is_wanted=wanted)
            except RunAbandoned:
                mark.with_suffix(".abandoned").write_text("")
        case ["", "sleep", seconds]:
            time.sleep(float(seconds))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
WORKERS = 2


@dataclass(frozen=True)
class Server:
    """A running gunicorn with one thread for each of its processes."""

    port: int
    folder: Path

    def get(self, path: str, seconds: float = 60) -> int:
        """The id of the process that has answered."""
        return int(requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=seconds).content)

    def send(self, path: str) -> socket.socket:
        """A connection on which a request was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection

    def wait_for(self, name: str, seconds: float = 120) -> str:
        """What a file says once it is there."""
        deadline = time.monotonic() + seconds
        while not (self.folder / name).exists() or ("." not in name and not (self.folder / name).read_text()):
            assert time.monotonic() < deadline, name
            time.sleep(0.02)
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tmp_path = tmp_path_factory.mktemp("gunicorn")
    (tmp_path / "busy_app.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "busy_app:app", "--no-control-socket"]
    command += ["--worker-class", "odc_openeo.stack.gunicorn_worker.Worker", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(WORKERS), "--threads", "1", "--chdir", str(tmp_path), "--keep-alive", "0"]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "FOLDER": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            wait_until_answering(process, port)
            yield Server(port, tmp_path)
        finally:
            process.terminate()


@pytest.mark.parametrize("how", ["close", "reset", "half-close", "more-sent-ahead"])
def test_a_client_that_leaves_ends_its_run(server: Server, how: str) -> None:
    connection = server.send(f"/run/{how}")
    runner = int(server.wait_for(how))
    if how == "half-close":
        connection.shutdown(socket.SHUT_WR)
    elif how == "more-sent-ahead":
        connection.sendall(b"GET / HTTP/1.1\r\n")
        connection.close()
    else:
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert has_ended(runner)
    server.wait_for(f"{how}.abandoned")


def test_a_waiting_client_keeps_its_run(server: Server) -> None:
    with server.send("/run/patient"):
        runner = int(server.wait_for("patient"))
        assert not has_ended(runner, 1.5)


def test_a_busy_process_leaves_connections_to_others(server: Server) -> None:
    with server.send("/sleep/8"):
        time.sleep(0.5)
        start = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            answered = set(threads.map(server.get, ["/"] * 40))
        # Each of them would have waited for the busy process had it accepted the connection.
        assert time.monotonic() - start < 7
        assert len(answered) == 1


def test_silent_connections_hold_no_thread(server: Server) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=120) for _ in range(10)]
    start = time.monotonic()
    for _ in range(5):
        server.get("/")
    # Each of them would have held one of the two threads for seconds.
    assert time.monotonic() - start < 4
    for connection in silent:
        connection.close()


def test_all_are_served_again_when_threads_are_free(server: Server) -> None:
    with ThreadPoolExecutor(8) as threads:
        answered = list(threads.map(server.get, ["/sleep/0.2"] * 16))
    assert len(answered) == 16
    assert server.get("/")


def test_runners_end_with_the_process_that_they_work_for(server: Server) -> None:
    with server.send("/run/killed"):
        runner = int(server.wait_for("killed"))
        # Its forkserver's parent: the gunicorn worker.
        parent = psutil.Process(runner).parent()
        assert parent is not None
        os.kill(parent.ppid(), signal.SIGKILL)
        assert has_ended(runner)
    assert server.get("/")
