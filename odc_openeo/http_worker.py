"""Gunicorn's worker with threads, which slow clients cannot keep waiting for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from functools import partial
from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker

HEAD_SECONDS: Final = 15.0
"""Time within which the head of a request must be there; a client that dribbles it is cut off."""

STALL_SECONDS: Final = 60.0
"""Time without a byte, in a body that is sent or an answer that is read, after which a client is given up."""


class Worker(ThreadWorker):
    """Gives a thread to a connection only for a while, until the head of its request is there.

    While all threads are busy it accepts no connections: another process may have a thread for them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[TConn, float] = {}
        self._lock = threading.Lock()
        self._busy_threads = 0

    def load_wsgi(self) -> None:
        """Load the application, and start its runners while the first requests are on their way."""
        super().load_wsgi()
        backend = getattr(self.wsgi, "extensions", {}).get("odc_openeo")
        if backend is not None:
            threading.Thread(target=backend.start_runners, name="start runners", daemon=True).start()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept new connections, or not; called by the main thread only, as are those that count threads."""
        super().set_accept_enabled(enabled and self._busy_threads < self.cfg.threads)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection with something to read to a thread."""
        # Called by the thread before it reads, each time after the socket has lost its timeout.
        conn.init = partial(self._begin, conn)
        self._busy_threads += 1
        if self._accepting:
            self.set_accept_enabled(True)
        super().enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Take a connection back from its thread."""
        self._busy_threads -= 1
        super().finish_request(conn, fs)

    def _begin(self, conn: TConn) -> None:
        TConn.init(conn)
        conn.sock.settimeout(STALL_SECONDS)
        with self._lock:
            self._heads[conn] = time.monotonic() + HEAD_SECONDS

    def handle(self, conn: TConn) -> Any:
        """Read a request and answer it."""
        try:
            return super().handle(conn)
        finally:
            self._forget(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request whose head is there."""
        self._forget(conn)
        return super().handle_request(req, conn)

    def _forget(self, conn: TConn) -> None:
        with self._lock:
            self._heads.pop(conn, None)

    def murder_pending(self) -> None:
        """Cut off those who take too long; called every second."""
        super().murder_pending()
        with self._lock:
            late = [conn for conn, deadline in self._heads.items() if deadline < time.monotonic()]
            for conn in late:
                # The thread then reads the end of the connection, and closes it.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)
