"""Gunicorn with our worker: slow clients get a thread for a while only, the others are answered meanwhile."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from odc_openeo.stack.embedded import free_port
from tests.conftest import wait_until_answering

SETTINGS = """
from odc_openeo.stack import gunicorn_worker
gunicorn_worker.HEAD_SECONDS = 1.0
gunicorn_worker.STALL_SECONDS = 1.0
"""
APP = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
THREADS = 2


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that gives back what it gets."""
    folder: Path = tmp_path_factory.mktemp("gunicorn")
    (folder / "settings.py").write_text(SETTINGS)
    (folder / "echo.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "echo:app", "--config", "settings.py", "--no-control-socket"]
    command += ["--worker-class", "odc_openeo.stack.gunicorn_worker.Worker", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "1", "--threads", str(THREADS), "--chdir", str(folder)]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as process:
        wait_until_answering(process, port)
        yield port
        process.terminate()


def dribble(port: int, begin: bytes) -> socket.socket:
    """A connection that has sent only the beginning of a request."""
    sender = socket.create_connection(("127.0.0.1", port), timeout=30)
    sender.sendall(begin)
    return sender


def ended(sender: socket.socket) -> bool:
    """Whether the server has closed a connection, which says so within half a minute."""
    try:
        while sender.recv(1000):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    ],
    ids=["head", "body"],
)
def test_slow_clients_are_given_up(port: int, begin: bytes) -> None:
    senders = [dribble(port, begin) for _ in range(2 * THREADS)]
    # As many as there are threads hold all of them; once they are cut off, there is room for others.
    assert requests.post(f"http://127.0.0.1:{port}/", data=b"quick", timeout=60).content == b"quick"
    assert all(ended(sender) for sender in senders)
    for sender in senders:
        sender.close()


def test_clients_that_continue_are_served(port: int) -> None:
    with dribble(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n") as sender:
        for byte in (b"s", b"l", b"o", b"w"):
            time.sleep(0.4)
            sender.sendall(byte)
        answer = b""
        while not answer.endswith(b"slow"):
            part = sender.recv(1000)
            assert part, answer
            answer += part
    with requests.Session() as session:
        for number in range(3):
            answered = session.post(f"http://127.0.0.1:{port}/", data=str(number), timeout=30)
            assert answered.content == str(number).encode()


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "RequestInvalid"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "RequestInvalid"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400, "RequestInvalid"),
        (b"GET / HTTP/1.1\r\nBad Header: <script>\r\n\r\n", 400, "RequestInvalid"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, "RequestInvalid"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400, "RequestInvalid"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: evil\r\n\r\n", 501, "FeatureUnsupported"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "RequestInvalid"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "RequestTooLarge"),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431, "RequestTooLarge"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_requests_that_never_reach_the_application(port: int, sent: bytes, status: int, code: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(sent)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read()
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    error = json.loads(body)
    assert (set(error), error["code"]) == ({"id", "code", "message"}, code)
    assert b"script" not in body
    assert b"Error" not in body
