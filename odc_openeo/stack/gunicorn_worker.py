"""Gunicorn's threaded worker, protected against slow clients."""

from __future__ import annotations

import contextlib
import errno
import json
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from gunicorn.workers.gthread import TConn, ThreadWorker

from odc_openeo.config import allowed_gdal_drivers
from odc_openeo.runners.hidden_memory import hide_memory
from odc_openeo.untrusted.gdal_drivers import secure_gdal

HEAD_SECONDS: Final = 15.0
"""Time within which the head of a request must arrive; slower clients are disconnected."""

STALL_SECONDS: Final = 60.0
"""Time without progress, while a body is sent or a response is read, after which a client is disconnected."""


MESSAGES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("RequestInvalid", "The request is not valid HTTP/1.1. Check its first line and its headers."),
    403: ("RequestInvalid", "The request is not accepted from this proxy."),
    414: ("RequestInvalid", "The URL is too long. Send long queries by POST if the endpoint allows it."),
    417: ("RequestInvalid", "The header Expect has a value that is not supported. Remove it."),
    431: ("RequestTooLarge", "The headers are too large. Remove unnecessary ones, such as old cookies."),
    500: ("Internal", "The server failed to handle the request. Please report the id of this error."),
    501: ("FeatureUnsupported", "The transfer coding of the request is not supported. Use chunked or none."),
}
"""Code and message, by status, of responses to requests that never reach the application."""


class _ErrorWriter:
    """A socket that sends gunicorn's error pages as openEO errors."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Send an error with the status of the response only: gunicorn's text may echo the request."""
        self._client.sendall(_format_error(int(data.split(b" ", 2)[1])))


def _format_error(status: int) -> bytes:
    code, message = MESSAGES.get(status, MESSAGES[500 if status >= 500 else 400])
    body = json.dumps({"id": uuid4().hex, "code": code, "message": message}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


class Worker(ThreadWorker):
    """Limits the time for which a connection can occupy a thread before the head of its request has arrived.

    While all threads are busy it accepts no connections, as another process may have a free thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[TConn, float] = {}
        self._lock = threading.Lock()
        self._busy_threads = 0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Check the configuration; called in the master process, before workers are forked from it."""
        hide_memory()
        super().check_config(cfg, log)

    def load_wsgi(self) -> None:
        """Load the application, and start its runners in the background."""
        secure_gdal(allowed_gdal_drivers())
        super().load_wsgi()
        backend = getattr(self.wsgi, "extensions", {}).get("odc_openeo")
        if backend is not None:
            threading.Thread(target=backend.start_runners, name="start runners", daemon=True).start()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept new connections or not; called only in the main thread, as are methods counting threads."""
        super().set_accept_enabled(enabled and self._busy_threads < self.cfg.threads)

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and hand it to a thread once it has sent data."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        conn = TConn(self.cfg, client, address, listener.getsockname())
        conn.timeout = time.monotonic() + HEAD_SECONDS
        self.nr_conns += 1
        self.pending_conns.append(conn)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection with something to read to a thread."""
        # The thread calls this before it reads, each time after the socket's timeout was reset.
        conn.init = partial(self._begin_request, conn)
        self._busy_threads += 1
        if self._accepting:
            self.set_accept_enabled(True)
        super().enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Take a connection back from its thread."""
        self._busy_threads -= 1
        super().finish_request(conn, fs)

    def _begin_request(self, conn: TConn) -> None:
        TConn.init(conn)
        conn.sock.settimeout(STALL_SECONDS)
        with self._lock:
            self._heads[conn] = time.monotonic() + HEAD_SECONDS

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Respond to requests that never reach the application: not valid HTTP, or too large a head."""
        super().handle_error(req, _ErrorWriter(client), addr, exc)

    def handle(self, conn: TConn) -> Any:
        """Read a request and answer it."""
        try:
            return super().handle(conn)
        finally:
            self._forget_deadline(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request whose head has arrived."""
        self._forget_deadline(conn)
        return super().handle_request(req, conn)

    def _forget_deadline(self, conn: TConn) -> None:
        with self._lock:
            self._heads.pop(conn, None)

    def murder_pending(self) -> None:
        """Disconnect clients that take too long; called every second."""
        super().murder_pending()
        with self._lock:
            late = [conn for conn, deadline in self._heads.items() if deadline < time.monotonic()]
            for conn in late:
                # The thread then reads the end of the connection, and closes it.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)
