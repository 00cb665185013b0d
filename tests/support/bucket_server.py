"""An S3 server on loopback, and a gate in front of it that can refuse, throttle and be cut off."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY, SECRET = "AKIAEXAMPLEEXAMPLE00", "geheim/geheim+geheim/geheim+geheim/geheim0"

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


@dataclass(frozen=True)
class Request:
    """A request as it came in at the gate."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What the gate answers itself."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def make_error(status: int, code: str, message: str, more: str = "") -> Answer:
    """An error as S3 writes it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


Rule = Callable[[Request], Answer | None]


def demand_payer(request: Request) -> Answer | None:
    """A bucket whose requesters pay."""
    if request.headers.get("x-amz-request-payer") == "requester":
        return None
    return make_error(403, "AccessDenied", "Access Denied")


def demand_signature(request: Request) -> Answer | None:
    """A bucket that is not public."""
    return None if "authorization" in request.headers else make_error(403, "AccessDenied", "Access Denied")


def refuse_signature(request: Request) -> Answer | None:
    """A bucket of an account that does not know the keys of others."""
    if "authorization" not in request.headers:
        return None
    message = "The AWS Access Key Id you provided does not exist in our records."
    return make_error(403, "InvalidAccessKeyId", message)


def throttle(request: Request) -> Answer | None:
    """A store with too many requests."""
    return make_error(503, "SlowDown", "Please reduce your request rate.")


class _Server(ThreadingHTTPServer):
    """A server whose connections can be closed at once."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], gate: Gate) -> None:
        self.gate = gate
        self.sockets: list[socket.socket] = []
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.sockets.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: connections are closed while they are in use."""

    def close_all(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        gate: Gate = self.server.gate  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        gate.requests.append(request)
        answer = next((answer for rule in gate.rules if (answer := rule(request))), None)
        self._send(answer or gate.forward(request))
        gate.answered.append(request)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _send(self, answer: Answer) -> None:
        with suppress(OSError):
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        pass


class Gate:
    """A web server in front of another one: ``rules`` may answer instead.

    ``requests`` came so far, and those in ``answered`` have their answers.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.answered: list[Request] = []
        self._server = self._start(0)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def _start(self, port: int) -> _Server:
        server = _Server(("127.0.0.1", port), _Handler, self)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def forward(self, request: Request) -> Answer:
        """The answer of the server behind."""
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        try:
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            response = connection.getresponse()
            headers = {k: v for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP}
            if request.method == "HEAD":
                headers["Content-Length"] = response.headers.get("Content-Length", "0")
            return Answer(response.status, response.read(), headers)
        finally:
            connection.close()

    def cut(self) -> None:
        """Refuse connections and drop those that are open."""
        self._server.close_all()

    def restore(self) -> None:
        """Accept connections again, at the same port."""
        self._server = self._start(self.port)


@contextmanager
def open_gate(target: int) -> Iterator[Gate]:
    """A gate in front of the server at a port."""
    gate = Gate(target)
    yield gate
    gate.cut()


class Store:
    """An S3 server with one bucket, ``data``; ``port`` is where it listens."""

    def __init__(self, port: int) -> None:
        import boto3

        self.port = port
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket="data")

    def put_scene(self, document: Mapping[str, Any], bucket: str = "data") -> dict[str, Any]:
        """Upload the files of a scene; its document with locations in the bucket."""
        folder = Path(document["location"].removeprefix("file://")).parent
        for file in folder.glob("*.tif"):
            self.client.upload_file(str(file), bucket, f"{folder.name}/{file.name}")
        return {**document, "location": f"s3://{bucket}/{folder.name}/scene.odc-metadata.yaml"}

    def publish(self, bucket: str = "data") -> None:
        """Let everybody read what is in the bucket now; other requests must be signed."""
        for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", []):
            self.client.put_object_acl(Bucket=bucket, Key=entry["Key"], ACL="public-read")


@contextmanager
def start_store() -> Iterator[Store]:
    """An S3 server of moto in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Store(server.get_host_and_port()[1])
    finally:
        server.stop()
