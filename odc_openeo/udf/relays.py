"""The only way of a sandboxed process into the network: connections that this process makes on its behalf.

A sandboxed process has no sockets of the internet and cannot connect anything. It asks through a socket that
it has inherited, and gets one end of a pair of sockets, whose other end is relayed to the host. So nothing
of the sandbox has to be opened, and hosts and their addresses are checked here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any, Final

from odc_openeo.errors import OpenEOError, UdfUnavailable, UrlUnreachable
from odc_openeo.udf.child.messages import LENGTH, encode_message
from odc_openeo.udf.settings import RelayRules

MOST_CONNECTIONS: Final = 32
"""Connections of a process at a time."""
MOST_REQUEST_BYTES: Final = 4096
DEFAULT_PORTS: Final = (80, 443)
CONNECT_S: Final = 10.0
BLOCK: Final = 2**16


class Relay:
    """Makes the connections of one sandboxed process until it ends or `close` is called."""

    def __init__(self, rules: RelayRules) -> None:
        self.rules = rules
        self._requests, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._serve, name="udf-relay", daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            for connection in (self._requests, *self._open):
                # Threads that wait for it wake up and close it.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.end.close()

    def close_descriptors(self) -> None:
        """Close the descriptors of a process that was forked: its threads do not exist."""
        for connection in (self._requests, self.end, *self._open):
            connection.close()

    def _serve(self) -> None:
        with self._requests, contextlib.suppress(OSError, EOFError, ValueError, RecursionError):
            while True:
                (length,) = LENGTH.unpack(self._receive(LENGTH.size))
                if length > MOST_REQUEST_BYTES:
                    return
                self._answer(json.loads(self._receive(length)))

    def _receive(self, count: int) -> bytes:
        content = self._requests.recv(count, socket.MSG_WAITALL)
        if len(content) < count:
            raise EOFError
        return content

    def _answer(self, request: Any) -> None:
        try:
            ours, theirs = self._connect(request)
        except (OpenEOError, OSError) as error:
            text = str(error.message) if isinstance(error, OpenEOError) else "there are too many connections"
            self._requests.sendall(encode_message({"error": text}))
            return
        with theirs:
            socket.send_fds(self._requests, [encode_message({})], [theirs.fileno()])

    def _connect(self, request: Any) -> tuple[socket.socket, socket.socket]:
        host, port = _parse_request(request)
        with self._lock:
            if len(self._open) >= 2 * MOST_CONNECTIONS:
                raise OSError
        remote = self._open_connection(host, port)
        remote.settimeout(None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._lock:
            if self._closed:
                for connection in (remote, ours, theirs):
                    connection.close()
                raise OSError
            self._open |= {remote, ours}
        threading.Thread(target=self._join, args=(remote, ours), name="udf-relay", daemon=True).start()
        return ours, theirs

    def _open_connection(self, host: str, port: int) -> socket.socket:
        if f"{host}:{port}" in self.rules.trusted:
            return _connect_to(host, port, [host])
        check_host(self.rules, host, port)
        return _connect_to(host, port, self.rules.policy.resolve_host(host, port))

    def _join(self, remote: socket.socket, ours: socket.socket) -> None:
        """Relay in both directions until both have ended."""
        back = threading.Thread(target=_copy, args=(remote, ours), name="udf-relay", daemon=True)
        back.start()
        _copy(ours, remote)
        back.join()
        with self._lock:
            self._open -= {remote, ours}
            remote.close()
            ours.close()


def _parse_request(request: Any) -> tuple[str, int]:
    host = request.get("host") if isinstance(request, Mapping) else None
    port = request.get("port") if isinstance(request, Mapping) else None
    if not isinstance(host, str) or isinstance(port, bool) or not isinstance(port, int):
        raise UrlUnreachable(host="", reason="the host is not valid.")
    if not 0 < port < 2**16 or not host.isascii():
        raise UrlUnreachable(host="", reason="the host or its port is not valid.")
    return host.rstrip(".").lower(), port


def check_host(rules: RelayRules, host: str, port: int) -> None:
    """Raise UdfUnavailable if the operator has not named a host with this port."""
    for entry in rules.hosts:
        name, _, number = entry.partition(":")
        is_named = name == "*" or (host.endswith(name) if name.startswith(".") else host == name)
        if is_named and (port == int(number) if number else port in DEFAULT_PORTS):
            return
    raise UdfUnavailable(reason=f"the operator has not opened the network to {host}:{port} for them.")


def _connect_to(host: str, port: int, addresses: list[str]) -> socket.socket:
    for address in addresses:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), CONNECT_S)
    raise UrlUnreachable(host=host, reason="the host does not respond.")


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while block := source.recv(BLOCK):
            sink.sendall(block)
    except OSError:
        # One side is gone: the other one cannot be served any more.
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
